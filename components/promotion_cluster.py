"""A run deployed on a cluster -> its InferenceGraph, candidate and model exchanged through the Kubernetes API, and probed.

The candidate's InferenceService is the standing predictor's under another name and with another model, so it is all that the deployment
has made of a predictor: image, limits, probes, policies. Every change waits until new pods answer and old ones are out of service.
"""

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from components.promotion_target import Door, probed
from components.subprogram import run_program
from promolift.contracts.artifacts import ModelManifest, read_manifest
from promolift.contracts.decisions import NODES
from promolift.drift.reference import files_in
from promolift.errors import UnavailableError
from promolift.kubectl import NAMESPACE, Document, chosen
from promolift.promotion.graph_change import SERVICE, Window, window_in
from promolift.storage import Place, write_text
from promolift.storage import copy as copied

GRAPH, PREDICTOR, DETECTOR, RELAY = "promo-decision", "promo-predictor", "promo-detector", "promo-relay"
ROUTERS = f"serving.kserve.io/inferencegraph={GRAPH}"
ROLLED_S = 180
MODEL, DIGEST = "STORAGE_URI", "PROMOLIFT_MODEL_SHA256"
SETTINGS = Path(__file__).parent.parent / "manifests/base/settings.env"
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""What kubectl leaves on a document that was applied from a client; it is about that document only."""


class ClusterTarget:
    """What `python -m deployment deploy` left on a kube context ("": the current one), for the run in `folder`."""

    look_s = 5.0
    """Between two looks at a canary: each asks S3 for the log anew."""

    def __init__(self, folder: Path, context: str) -> None:
        self.folder, self._kubectl = folder, chosen(context)
        (folder / "rollout").mkdir(exist_ok=True)

    @property
    def where(self) -> str:
        """What somebody may have edited by hand."""
        return f"InferenceGraph {GRAPH} of context '{self._kubectl.context}'"

    @cached_property
    def salt(self) -> str:
        """The deployment's own salt."""
        return self._kubectl.secret("promo-secrets", "hash_salt")

    @cached_property
    def lake(self) -> Place:
        """Where the relay writes the decision log."""
        (container,) = self._get("deployment", RELAY)["spec"]["template"]["spec"]["containers"]
        return next(str(word).partition("=")[2] for word in container["args"] if str(word).startswith("--lake="))

    def graph(self) -> Document:
        """The graph that stands."""
        found = self.served()
        kept = {name: found[name] for name in ("apiVersion", "kind")}
        return {**kept, "metadata": {"name": GRAPH}, "spec": {"nodes": found["spec"]["nodes"]}}

    def champion(self) -> ModelManifest:
        """The manifest of the model that the standing predictor was given."""
        with TemporaryDirectory() as at:
            copied(f"{self._model_of(PREDICTOR)}/manifest.json", f"{at}/manifest.json")
            return read_manifest(Path(at))

    def served(self) -> Document:
        """The graph's document. Raises UnavailableError where nothing is deployed."""
        found = self._kubectl.attempt("-n", NAMESPACE, "get", "inferencegraph", GRAPH, "-o", "json")
        if found.returncode:
            raise UnavailableError(f"Context '{self._kubectl.context}' has no graph {GRAPH}; deploy the run first: make deploy-local.")
        document: Document = json.loads(found.stdout)
        return document

    def put(self, graph: Document, candidate: Path | None = None, champion: Path | None = None) -> None:
        """Exchange the graph, with the candidate's or the champion's model first; returns once it is served. Raises UnavailableError."""
        self.served()
        if candidate is not None:
            self._start(candidate)
        if champion is not None:
            self._crown(champion)
        patch = [{"op": "replace", "path": "/spec/nodes", "value": graph["spec"]["nodes"]}]
        self._kubectl("-n", NAMESPACE, "patch", "inferencegraph", GRAPH, "--type=json", "-p", json.dumps(patch))
        window = window_in(graph)
        self._rolled(GRAPH, lambda router: _window_of(router) == window)
        self._left()
        if window is None:
            self._kubectl("-n", NAMESPACE, "delete", "inferenceservice", SERVICE, "--ignore-not-found", "--wait=false")

    def _left(self) -> None:
        """Wait until no router of the graph before is left: one that is on its way out still answers on connections that callers keep."""

        def gone() -> bool:
            return not any(
                "deletionTimestamp" in pod["metadata"] for pod in self._kubectl.get("-n", NAMESPACE, "pods", "-l", ROUTERS)["items"]
            )

        _until(gone, f"Routers of the graph before did not end in {ROLLED_S} s, so some shoppers may still be served as before.")

    def probe(self, window: Window | None, champion: str, candidate: str) -> str:
        """Ask the router about shoppers who are nobody; a sentence about shares. Raises ConflictError when one meets the wrong model."""
        return probed(self._asked, self.salt, window, champion, candidate)

    def shadow(self, model: Path, most: int) -> Document:
        """What the candidate would have answered to the newest decisions of the deployment's log."""
        arguments = ["shadow", "--run", str(self.folder), "--model", str(model), "--most", str(most), "--lake", str(self.lake)]
        own = {"PROMOLIFT_SETTINGS_FILE": str(SETTINGS), "PROMOLIFT_HASH_SALT": self.salt}
        return run_program("serving.kserve", arguments, **own)[-1]

    @contextmanager
    def _asked(self) -> Iterator[Door]:
        """Anew for every attempt: a port that leads to a pod leads nowhere once the pod is gone."""
        with self._kubectl.forwarded(f"svc/{GRAPH}", 80) as port:
            yield Door(f"http://127.0.0.1:{port}", {})

    def _get(self, kind: str, name: str) -> Document:
        found: Document = self._kubectl.get("-n", NAMESPACE, kind, name)
        return found

    def _model_of(self, service: str) -> str:
        return str(_environment(self._get("inferenceservice", service)["spec"]["predictor"]["containers"][0])[MODEL])

    def _start(self, model: Path) -> None:
        """The candidate's InferenceService, ready with its model."""
        standing, uri = self._get("inferenceservice", PREDICTOR), self._delivered(model)
        spec, told = copy.deepcopy(standing["spec"]), standing["metadata"]
        _set(spec["predictor"]["containers"][0], uri, read_manifest(model).sha256)
        metadata = {
            "name": SERVICE, "namespace": NAMESPACE, "labels": told.get("labels", {}),
            "annotations": {key: value for key, value in told.get("annotations", {}).items() if key != APPLIED},
        }  # fmt: skip
        document = {"apiVersion": standing["apiVersion"], "kind": standing["kind"], "metadata": metadata, "spec": spec}
        self._kubectl.apply([document])
        self._rolled(f"{SERVICE}-predictor", lambda box: _environment(box).get(MODEL) == uri)
        ready = ("wait", f"inferenceservice/{SERVICE}", "--for=condition=Ready", f"--timeout={ROLLED_S}s")
        self._kubectl("-n", NAMESPACE, *ready)

    def _crown(self, model: Path) -> None:
        """Every box with the model, and the drift detector where there is one: one after the other begins, and all are waited for."""
        uri, digest = self._delivered(model), read_manifest(model).sha256
        services = [f"promo-{name}" for name in NODES]
        if not self._kubectl.attempt("-n", NAMESPACE, "get", "inferenceservice", DETECTOR).returncode:
            services.append(DETECTOR)
        for service in services:
            container = self._get("inferenceservice", service)["spec"]["predictor"]["containers"][0]
            _set(container, uri, digest)
            patch = [{"op": "replace", "path": "/spec/predictor/containers/0/env", "value": container["env"]}]
            self._kubectl("-n", NAMESPACE, "patch", "inferenceservice", service, "--type=json", "-p", json.dumps(patch))
        for service in services:
            self._rolled(f"{service}-predictor", lambda box: _environment(box).get(MODEL) == uri)

    def _delivered(self, model: Path) -> str:
        """The model's folder in S3, beside the standing one and under a name that no other content has."""
        standing = self._model_of(PREDICTOR)
        manifest = (model / "manifest.json").read_text(encoding="utf-8")
        uri = f"{standing.rpartition('/')[0]}/{read_manifest(model).version}-{sha256(manifest.encode()).hexdigest()[:8]}"
        if uri != standing:
            for name in ("model.tflite", *files_in(model)):
                copied(model / name, f"{uri}/{name}")
            copied(f"{standing}/registry.db", f"{uri}/registry.db")
            write_text(f"{uri}/manifest.json", manifest)
        return uri

    def _rolled(self, deployment: str, is_new: Callable[[Document], bool]) -> None:
        """Wait until KServe's controller has changed the Deployment, and until its new pods serve alone."""

        def changed() -> bool:
            found = self._kubectl.attempt("-n", NAMESPACE, "get", "deployment", deployment, "-o", "json")
            return not found.returncode and is_new(json.loads(found.stdout)["spec"]["template"]["spec"]["containers"][0])

        _until(changed, f"KServe did not change the Deployment {deployment} in {ROLLED_S} s; its controller's log says why.")
        self._kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{deployment}", f"--timeout={ROLLED_S}s")


def _until(true: Callable[[], bool], else_said: str) -> None:
    """Wait. Raises UnavailableError with the sentence after ROLLED_S."""
    deadline = time.monotonic() + ROLLED_S
    while not true():
        if time.monotonic() > deadline:
            raise UnavailableError(else_said)
        time.sleep(0.5)


def _window_of(router: Document) -> Window | None:
    """The canary in the graph that a router was started with: KServe gives it as JSON."""
    return window_in({"spec": json.loads(router["args"][router["args"].index("--graph-json") + 1])})


def _environment(container: Document) -> dict[str, Any]:
    return {one["name"]: one.get("value") for one in container.get("env", ())}


def _set(container: Document, uri: str, digest: str) -> None:
    """Give a box another model: the two variables that the deployment sets."""
    given = {MODEL: uri, DIGEST: digest}
    for one in container["env"]:
        if one["name"] in given:
            one["value"] = given[one["name"]]
