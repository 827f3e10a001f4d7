"""A finished run's folder -> the engine and its graph served on this machine until SIGINT or SIGTERM; what it started, it stops.

Starts in this order: Redis (unless one is given), the relay of the decision log, the four nodes and the graph (or none of them: with
`fused` the engine decides in its own process), the engine. Stops in the reverse order, so that the relay sees every decision before it
drains for the last time. SIGHUP reads rules and model anew, without a failed request.
"""

import json
import os
import secrets
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from pydantic import SecretStr

from promolift.contracts.decisions import NODES
from promolift.errors import InputError, PromoliftError, UnavailableError, usable
from promolift.promotion.graph_change import STEP
from promolift.redis_server import redis_server
from promolift.settings import Settings
from serving.engine.auth import SCOPES, keys_in
from serving.kserve.boxes import Sources
from serving.kserve.listen import bind
from serving.kserve.model_folder import load_manifest, load_model
from serving.kserve.processes import Child, Processes
from serving.kserve.redis_client import connect
from serving.kserve.rollout import FOLDER, GRAPH_FILE, URLS, Follower, prepared
from serving.kserve.versions import keep
from serving.traces import FORWARDED

START_S = 90.0
GRAPH = Path(__file__).with_name("graph.yaml")


@dataclass(frozen=True)
class Plan:
    """What to serve and where: run folder, model, Feast's registry, rules, HOST:PORT, in how many processes, and whether it is watched."""

    folder: Path
    model: Path
    registry: Path
    rules: Path
    listen: str
    fused: bool = False
    detect: bool = False

    @property
    def lake(self) -> Path:
        """Where the decision log is."""
        return self.folder / "lake"

    @property
    def spill(self) -> Path:
        """Answers that the ledger does not know yet."""
        return self.folder / "undelivered.jsonl"

    def sources(self, redis_url: str) -> Sources:
        """What the boxes read."""
        return Sources(redis_url, self.model, self.registry, self.rules, self.spill)


def serve(plan: Plan, settings: Settings) -> int:
    """Serve until stopped; returns 0. Raises the sentence of whatever cannot start, and of whatever ends too early."""
    _check(plan)
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        redis_url = settings.redis_url or stack.enter_context(_own_redis(plan.folder))
        connect(redis_url).close()
        keys, api_key = _secrets(plan, settings)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PROPAGATE_HEADERS": FORWARDED,
            "PROMOLIFT_REDIS_URL": redis_url,
            "PROMOLIFT_TOKEN_KEYS": json.dumps(keys),
        }
        settings = settings.model_copy(update={"token_keys": {name: SecretStr(secret) for name, secret in keys.items()}})
        sources = plan.sources(redis_url)
        keep(sources, settings, plan.folder)
        processes = Processes(plan.folder / "logs")
        stack.callback(processes.stop)
        started = Started(plan, processes, environment)
        detector = started.detector() if plan.detect else ""
        urls = {} if plan.fused else started.nodes(detector)
        rollout = prepared(plan.folder, GRAPH, urls)
        graph_url = "" if plan.fused else started.graph(rollout)
        started.relay()
        record = plan.folder / "serving.json"
        follower = Follower(rollout, sources, settings, processes, urls, started.candidate, lambda told: _tell(record, told, processes))
        follower.follow()
        url = started.engine(graph_url)
        addresses = {**follower.told, "url": url, "graph_url": graph_url, "redis_url": redis_url, "api_key": api_key, "detector": detector}
        stack.enter_context(_announced(record, plan.lake, addresses, processes))
        print(
            f"ready: POST a request to {url}/v1/decisions, or run `python -m serving.kserve decide --run {plan.folder}` (see {record})",
            flush=True,
        )
        signal.signal(signal.SIGHUP, lambda *_: _renew(plan, redis_url, settings, processes))
        processes.watch(stop.wait, follower.follow)
        print("stopping; the decision log is flushed", flush=True)
    return 0


def _renew(plan: Plan, redis_url: str, settings: Settings, processes: Processes) -> None:
    """Keep the new versions, then have every process read them. A wrong file is said and changes nothing."""
    try:
        keep(plan.sources(redis_url), settings, plan.folder)
    except PromoliftError as problem:
        print(f"rules and model stay as they were: {problem}", flush=True)
        return
    processes.signal(signal.SIGHUP, ("engine",) if plan.fused else ("eligibility", "predictor", "constraints"))
    print("rules and model are read anew", flush=True)


def _secrets(plan: Plan, settings: Settings) -> tuple[dict[str, str], str]:
    """Keys of the tokens (the settings', else one of our own that stays with the run) and a new API key for this machine's callers."""
    given = {name: secret.get_secret_value() for name, secret in settings.token_keys.items()}
    with usable(plan.folder, "serve a run in a folder that can be written"):
        path = plan.folder / "token_keys.json"
        if not given and not path.exists():
            _private(path, json.dumps({"local-1": secrets.token_urlsafe(32)}))
        keys: dict[str, str] = given or json.loads(path.read_text(encoding="utf-8"))
        api_keys = plan.folder / "api_keys.json"
        api_keys.unlink(missing_ok=True)
        return keys, keys_in(api_keys).add("local", list(SCOPES))


def _private(path: Path, text: str) -> None:
    """Write a file that only its owner reads."""
    path.touch(0o600)
    path.write_text(text, encoding="utf-8")


def _check(plan: Plan) -> None:
    if plan.fused and plan.detect:
        raise InputError("--detect needs the predictor as a process of its own; leave --fused out.")
    if not plan.folder.is_dir():
        raise InputError(f"There is no run folder {plan.folder}; make one with `python -m pipelines.run training`.")
    manifest = load_manifest(plan.model)
    load_model(plan.model, manifest)
    bind(plan.listen).close()
    print(f"model {manifest.version} for {len(manifest.promos)} promos", flush=True)


@contextmanager
def _own_redis(folder: Path) -> Iterator[str]:
    with redis_server(folder / "redis") as url:
        print(f"redis {url}", flush=True)
        yield url


@dataclass(frozen=True)
class Started:
    """Starts the programs of one plan and waits until each is ready."""

    plan: Plan
    processes: Processes
    environment: Mapping[str, str]

    def relay(self) -> None:
        """The relay of the decision log."""
        self._start("relay", "serving.kserve", ["relay", "--lake", str(self.plan.lake), "--spill", str(self.plan.spill)])

    def detector(self) -> str:
        """The drift detector's URL; days are those of the requests' moments, since here mostly history is asked about."""
        arguments = ["--model", str(self.plan.model), "--listen", "127.0.0.1:0", "--moments"]
        return self._start("detector", "serving.detector", arguments)[1]

    def nodes(self, detector: str = "") -> dict[str, str]:
        """The predict URL of every box by name; `detector` gets copies of what the predictor does."""
        started, deadline = time.monotonic(), time.monotonic() + START_S
        children = [
            self.processes.start(name, "serving.kserve", self._node(name, detector if name == "predictor" else ""), self.environment)
            for name in NODES
        ]
        urls = {}
        for child in children:
            line = self.processes.wait_ready(child, deadline)
            print(f"{line} ({time.monotonic() - started:.1f} s)", flush=True)
            urls[child.name] = f"{line.split(' listens on ')[1]}/v1/models/{child.name}"
            _wait_for(urls[child.name], deadline)
            self.processes.keep(child, "0", urls[child.name].split(":")[2].split("/")[0])
        return {name: f"{url}:predict" for name, url in urls.items()}

    def candidate(self, model: Path) -> str:
        """The predict URL of a second predictor, with another model, for a canary."""
        arguments = ["node", "predictor", "--host", "127.0.0.1", "--port", "0", "--model", str(model)]
        environment = {**self.environment, "PROMOLIFT_MODEL_SHA256": ""}
        child = self.processes.start(STEP, "serving.kserve", arguments, environment)
        deadline = time.monotonic() + START_S
        url = f"{self.processes.wait_ready(child, deadline).split(' listens on ')[1]}/v1/models/predictor"
        _wait_for(url, deadline)
        self.processes.keep(child, "0", url.split(":")[2].split("/", maxsplit=1)[0])
        return f"{url}:predict"

    def graph(self, rollout: Path) -> str:
        """The graph's URL; behind the engine it listens on a port that is free."""
        files = ["--graph", str(rollout / GRAPH_FILE), "--urls", str(rollout / URLS)]
        arguments = ["run", *files, "--listen", "127.0.0.1:0"]
        child, url = self._start("graph", "serving.kserve.graph", arguments)
        _wait_for(f"{url}/readyz", time.monotonic() + START_S)
        self.processes.keep(child, "127.0.0.1:0", url.removeprefix("http://"))
        return url

    def engine(self, graph_url: str) -> str:
        """The engine's URL."""
        keys = str(self.plan.folder / "api_keys.json")
        graph = ["--graph", graph_url] if graph_url else ["--rollout", str(self.plan.folder / FOLDER)]
        arguments = ["serve", "--listen", self.plan.listen, "--keys", keys, "--lake", str(self.plan.lake), *graph, *self._files]
        # It may listen on every address; callers need one.
        url = self._start("engine", "serving.engine", arguments)[1].replace("//0.0.0.0:", "//127.0.0.1:")
        _wait_for(f"{url}/healthz", time.monotonic() + START_S)
        return url

    def _node(self, name: str, log_url: str) -> list[str]:
        return ["node", name, "--host", "127.0.0.1", "--port", "0", *self._files, *(["--log-url", log_url] if log_url else [])]

    @property
    def _files(self) -> list[str]:
        plan = self.plan
        return ["--model", str(plan.model), "--registry", str(plan.registry), "--rules", str(plan.rules), "--spill", str(plan.spill)]

    def _start(self, name: str, module: str, arguments: Sequence[str]) -> tuple[Child, str]:
        """The child that is ready, and where it listens (what it drains)."""
        child = self.processes.start(name, module, arguments, self.environment)
        line = self.processes.wait_ready(child, time.monotonic() + START_S)
        print(line, flush=True)
        return child, line.split(" listens on ")[-1]


@contextmanager
def _announced(path: Path, lake: Path, addresses: Mapping[str, str], processes: Processes) -> Iterator[None]:
    """serving.json, for our own eyes, while it serves, so that `decide` finds it."""
    document = {**addresses, "lake": str(lake), "pids": processes.pids(), "pid": os.getpid()}
    with usable(path, "serve a run in a folder that can be written"):
        _private(path, json.dumps(document, indent=2))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _tell(record: Path, told: Mapping[str, str], processes: Processes) -> None:
    """Say in serving.json which graph and models are served now, and by which processes, once it is there."""
    if not record.exists():
        return
    document = json.loads(record.read_text(encoding="utf-8"))
    fresh = record.with_suffix(".new")
    _private(fresh, json.dumps(document | told | {"pids": processes.pids()}, indent=2))
    fresh.replace(record)


def _wait_for(url: str, deadline: float) -> None:
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 (our own http address)
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            time.sleep(0.05)
    raise UnavailableError(f"{url} did not become ready in {START_S:.0f} s; see the logs beside serving.json.")
