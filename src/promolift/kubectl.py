"""A kube context -> kubectl on it, its refusals as whole sentences."""

import json
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from promolift.errors import InputError, PromoliftError, UnavailableError

PRODUCTION = re.compile(r"(^|[^a-z])(prod|production|prd|live)([^a-z]|$)", re.IGNORECASE)
NAMESPACE = "promolift"
Document = dict[str, Any]
CRDS = {"inferenceservices.serving.kserve.io": "v1beta1", "inferencegraphs.serving.kserve.io": "v1alpha1"}
"""Kinds that KServe brings, and the version that our manifests are written in."""
REPORTED_S = 30.0
MOST_S = 600.0
"""No call waits longer: the longest of ours gives the cluster four minutes."""
OPENED_S, TRIES = 10.0, 3


@dataclass(frozen=True)
class Kubectl:
    """kubectl on one context."""

    context: str

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        """Its output. Raises UnavailableError without a cluster that answers, PromoliftError for what it refuses."""
        found = self.attempt(*arguments, stdin=stdin)
        if found.returncode:
            raise _problem(self.context, arguments, found.stderr + found.stdout)
        return found.stdout

    def attempt(self, *arguments: str, stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Its whole result, whatever the exit status. Raises UnavailableError without the program."""
        return run(["--context", self.context, *arguments], stdin)

    def get(self, *arguments: str) -> Any:
        """The document that `get` answers with."""
        return json.loads(self("get", *arguments, "-o", "json"))

    def apply(self, documents: Sequence[Document], *options: str) -> str:
        """Apply documents on the server's side, with unknown fields refused."""
        text = yaml.safe_dump_all(documents)
        return self("apply", "--server-side", "--force-conflicts", "--validate=strict", *options, "-f", "-", stdin=text)

    def secret(self, name: str, key: str) -> str:
        """A value of a Secret of our namespace."""
        return self("-n", NAMESPACE, "get", "secret", name, "-o", f"go-template={{{{index .data {json.dumps(key)} | base64decode}}}}")

    @contextmanager
    def forwarded(self, target: str, port: int) -> Iterator[int]:
        """A port of this machine that leads to `target` (svc/NAME, pod/NAME) until the block ends.

        Raises UnavailableError for what kubectl refuses, and where it opens no port though it was started TRIES times.
        """
        command = ["kubectl", "--context", self.context, "-n", NAMESPACE, "port-forward", target, f":{port}"]
        with TemporaryDirectory(prefix="promolift-") as folder:
            process, opened = _forwarding(command, Path(folder) / "said", target)
            try:
                yield opened
            finally:
                _end(process)


def _forwarding(command: list[str], said: Path, target: str) -> "tuple[subprocess.Popen[bytes], int]":
    """The process that forwards, and its port; one that says nothing is ended, and another one started."""
    for _ in range(TRIES):
        # It prints a line a connection for as long as it runs: a pipe that nobody reads would fill up and stop it.
        with said.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            if opened := _port_told(process, said, target):
                return process, opened
        except BaseException:
            _end(process)
            raise
        _end(process)
    raise UnavailableError(f"{target} cannot be reached: kubectl port-forward opened no port within {OPENED_S:g} s, {TRIES} times.")


def _port_told(process: "subprocess.Popen[bytes]", said: Path, target: str) -> int | None:
    """The port that kubectl tells of, None when it does not in time. Raises UnavailableError when it ends without."""
    deadline = time.monotonic() + OPENED_S
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        text = said.read_text(encoding="utf-8")
        if found := re.search(r"127\.0\.0\.1:(\d+) ->", text):
            return int(found[1])
        if ended:
            raise UnavailableError(f"{target} cannot be reached through kubectl port-forward: {text.strip()}")
        time.sleep(0.05)
    return None


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def run(arguments: Sequence[str], stdin: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Kubectl with these arguments. Raises UnavailableError without the program, and for a cluster that never answers."""
    try:
        return subprocess.run(["kubectl", *arguments], input=stdin or "", capture_output=True, text=True, check=False, timeout=MOST_S)
    except subprocess.TimeoutExpired as problem:
        raise UnavailableError(f"The cluster did not answer `kubectl {' '.join(arguments[:5])}` within {MOST_S:g} s.") from problem
    except FileNotFoundError as problem:
        raise UnavailableError("A cluster needs the program kubectl, which is not on the PATH; install it.") from problem


def _problem(context: str, arguments: Sequence[str], said: str) -> PromoliftError:
    lines = [line for line in said.strip().splitlines() if line] or ["it said nothing"]
    if "Unable to connect to the server" in said or "The connection to the server" in said:
        return UnavailableError(f"No cluster answers at context '{context}' ({lines[-1]}); start it, or name another with --context.")
    if "enter Username" in said or "Unauthorized" in said or "must be logged in" in said:
        return UnavailableError(f"Context '{context}' has no valid credentials; log in to its cluster.")
    if "context was not found" in said or f'context "{context}" does not exist' in said:
        return InputError(f"There is no context '{context}' ({lines[-1]}); `kubectl config get-contexts` lists them.")
    return PromoliftError(f"The cluster refuses `kubectl {' '.join(arguments[:3])}`: {' '.join(lines)}")


def chosen(context: str) -> Kubectl:
    """Kubectl on the context that is named, or on the current one unless it looks like production.

    Raises InputError for one that has to be spelled out, UnavailableError where none is set or no cluster answers.
    """
    current = run(["config", "current-context"]).stdout.strip()
    if not context and not current:
        raise UnavailableError("kubectl has no current context, so there is no cluster; set KUBECONFIG, or name a context with --context.")
    server = run(["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]).stdout
    if not context and PRODUCTION.search(f"{current} {server}"):
        raise InputError(f"The current context '{current}' ({server}) looks like production; spell it out with --context {current}.")
    kubectl = Kubectl(context or current)
    kubectl("version", "--request-timeout=10s")
    return kubectl


def need_kserve(kubectl: Kubectl) -> None:
    """Raises UnavailableError where KServe's kinds are missing or older than our manifests."""
    for name, version in CRDS.items():
        found = kubectl.attempt("get", "crd", name, "-o", "jsonpath={.spec.versions[?(@.served==true)].name}")
        if found.returncode:
            raise UnavailableError(f"The cluster '{kubectl.context}' has no {name}; install KServe 0.17 or newer in Standard mode.")
        served = found.stdout.split()
        if version not in served:
            raise UnavailableError(f"'{kubectl.context}' serves {name} as {', '.join(served)}, not as {version}; update KServe.")


def need_images(kubectl: Kubectl, images: Sequence[str]) -> None:
    """Raises UnavailableError for the first image that no node has; a node takes a while to tell of a new one."""
    deadline = time.monotonic() + REPORTED_S
    while missing := [image for image in images if image not in _there(kubectl)]:
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"No node of '{kubectl.context}' has the image {missing[0]}; build it with `make images` and carry it over "
                f"(`kind load docker-image {missing[0]}`), or push it to a registry and name that with --registry."
            )
        time.sleep(2)


def _there(kubectl: Kubectl) -> set[str]:
    """Names of the images that nodes have."""
    nodes = kubectl.get("nodes")["items"]
    return {name.removeprefix("docker.io/") for node in nodes for image in node["status"].get("images", ()) for name in image["names"]}
