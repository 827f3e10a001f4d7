"""A finished run's folder -> the whole graph served on this machine until SIGINT or SIGTERM; what it started, it stops.

Starts in this order: Redis (unless one is given), the relay of the decision log, the four nodes, the graph. Stops in the reverse
order, so that the relay sees every decision before it drains for the last time.
"""

import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from promolift.contracts.artifacts import write_json
from promolift.contracts.decisions import NODES
from promolift.contracts.tables import DECISIONS
from promolift.errors import InputError, UnavailableError, usable
from promolift.redis_server import redis_server
from promolift.settings import Settings
from serving.kserve.listen import bind
from serving.kserve.model_folder import load_manifest, load_model, model_version
from serving.kserve.processes import Processes
from serving.kserve.redis_client import connect

START_S = 90.0
GRAPH = Path(__file__).with_name("graph.yaml")


@dataclass(frozen=True)
class Plan:
    """What to serve and where: the run's folder, the model, Feast's registry, the rules, HOST:PORT."""

    folder: Path
    model: Path
    registry: Path
    rules: Path
    listen: str

    @property
    def table(self) -> Path:
        """The Delta table of decisions."""
        return self.folder / "lake" / DECISIONS.path


def serve(plan: Plan, settings: Settings) -> int:
    """Serve until stopped; returns 0. Raises the sentence of whatever cannot start, and of whatever ends too early."""
    _check(plan)
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        redis_url = settings.redis_url or stack.enter_context(_own_redis(plan.folder))
        connect(redis_url).close()
        processes = Processes(plan.folder / "logs")
        stack.callback(processes.stop)
        urls = _start_nodes(plan, redis_url, processes)
        url = _start_graph(plan, urls, processes)
        record = stack.enter_context(_announced(plan, url, redis_url, processes))
        print(f"ready: POST a request to {url}, or run `python -m serving.kserve decide --run {plan.folder}` (see {record})", flush=True)
        processes.watch(stop.wait)
        print("stopping; the decision log is flushed", flush=True)
    return 0


def _check(plan: Plan) -> None:
    if not plan.folder.is_dir():
        raise InputError(f"There is no run folder {plan.folder}; make one with `python -m pipelines.run training`.")
    manifest = load_manifest(plan.model)
    load_model(plan.model, manifest)
    bind(plan.listen).close()
    print(f"model {model_version(manifest)} for {len(manifest.promos)} promos", flush=True)


@contextmanager
def _own_redis(folder: Path) -> Iterator[str]:
    with redis_server(folder / "redis") as url:
        print(f"redis {url}", flush=True)
        yield url


def _start_nodes(plan: Plan, redis_url: str, processes: Processes) -> dict[str, str]:
    """URL of every node by name, once each answers."""
    started, deadline = time.monotonic(), time.monotonic() + START_S
    # One thread for each small model: more would only compete for the cores that the other nodes need.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PROMOLIFT_REDIS_URL": redis_url}
    spill = str(plan.folder / "undelivered.jsonl")
    relay = ["relay", "--table", str(plan.table), "--spill", spill]
    shared = ["--model", str(plan.model), "--registry", str(plan.registry), "--rules", str(plan.rules), "--spill", spill]
    children = [processes.start("relay", "serving.kserve", relay, environment)]
    for name in NODES:
        arguments = ["node", name, "--host", "127.0.0.1", "--port", "0", *shared]
        children.append(processes.start(name, "serving.kserve", arguments, environment))
    urls = {}
    for child in children:
        line = processes.wait_ready(child, deadline)
        print(f"{line} ({time.monotonic() - started:.1f} s)", flush=True)
        if child.name in NODES:
            urls[child.name] = f"{line.split(' listens on ')[1]}/v1/models/{child.name}"
    for url in urls.values():
        _wait_for(url, deadline)
    return {name: f"{url}:predict" for name, url in urls.items()}


def _start_graph(plan: Plan, urls: dict[str, str], processes: Processes) -> str:
    deadline = time.monotonic() + START_S
    arguments = ["run", "--graph", str(GRAPH), "--listen", plan.listen]
    for name, url in urls.items():
        arguments += ["--url", f"{name}={url}"]
    line = processes.wait_ready(processes.start("graph", "serving.kserve.graph", arguments, os.environ), deadline)
    url = line.split(" listens on ")[1]
    _wait_for(f"{url}/readyz", deadline)
    return url


@contextmanager
def _announced(plan: Plan, url: str, redis_url: str, processes: Processes) -> Iterator[Path]:
    """serving.json while the graph serves, so that `decide` finds it."""
    document = {"url": url, "redis_url": redis_url, "decisions": str(plan.table), "pids": processes.pids(), "pid": os.getpid()}
    with usable(plan.folder / "serving.json", "serve a run in a folder that can be written"):
        path = write_json(plan.folder / "serving.json", document)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _wait_for(url: str, deadline: float) -> None:
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 (our own http address)
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            time.sleep(0.05)
    raise UnavailableError(f"{url} did not become ready in {START_S:.0f} s; see the logs beside serving.json.")
