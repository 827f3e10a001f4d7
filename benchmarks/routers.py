"""Four boxes with their real work, and four no-op `kserve.Model` steps, each behind KServe's own router: latency and knee throughput.

KSERVE_ROUTER names the router's program; without it this part is left out, and says so.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.decisions import quantiles, redis_with_features, requests_of
from promolift.contracts.decisions import NODES, dump_bytes
from promolift.errors import PromoliftError
from serving.kserve.boxes import RULES
from serving.kserve.processes import Processes
from serving.kserve.serve import Plan, Started

ROUTER, PORT = "KSERVE_ROUTER", 8080  # the router's port cannot be chosen
CALLERS, SECONDS, START_S = (4, 8, 16), 8.0, 60.0


def measure(run: Path) -> dict[str, Any]:
    """Figures of both, by callers, p95 of ours at four callers, and our highest throughput over that of the no-ops."""
    if not os.environ.get(ROUTER):
        return {"left_out": f"{ROUTER} names no router"}
    with _boxes(run) as urls:
        ours = _behind_router(urls, run)
    with _noops() as urls:
        theirs = _behind_router(urls, run)
    knees = [max(figures["per_s"] for figures in found.values()) for found in (ours, theirs)]
    return {"boxes": ours, "noop_models": theirs, "p95_ms": ours["4"]["p95_ms"], "knee_ratio": round(knees[0] / knees[1], 2)}


@contextmanager
def _boxes(run: Path) -> Iterator[dict[str, str]]:
    """The four nodes of a served run, without relay and engine."""
    with redis_with_features(run) as (url, folder):
        plan = Plan(folder, run / "serving_model", run / "registry.db", RULES, "127.0.0.1:0")
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "PROMOLIFT_REDIS_URL": url, "PROMOLIFT_TOKEN_KEYS": json.dumps({"k": "x" * 32})
        }  # fmt: skip
        processes = Processes(folder / "logs")
        try:
            yield Started(plan, processes, environment).nodes()
        finally:
            processes.stop()


@contextmanager
def _noops() -> Iterator[dict[str, str]]:
    """Four processes of benchmarks/noop_model.py."""
    with ExitStack() as stack:
        urls = {}
        for name in NODES:
            http, grpc = _free_ports()
            command = [sys.executable, "-m", "benchmarks.noop_model", "--http_port", str(http), "--grpc_port", str(grpc)]
            stack.enter_context(_running(command))
            urls[name] = f"http://127.0.0.1:{http}/v1/models/noop:predict"
        for url in urls.values():
            _wait_for(url.removesuffix(":predict"))
        yield urls


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


@contextmanager
def _running(command: list[str]) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()  # the router takes half a minute to end when asked
            process.wait()


def _wait_for(url: str) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(url, timeout=5).close()  # noqa: S310 (our own http address)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise PromoliftError(f"{url} did not answer in {START_S:.0f} s.")


def _behind_router(urls: Mapping[str, str], run: Path) -> dict[str, dict[str, float]]:
    steps = [{"name": name, "serviceUrl": url, "data": "$response", "dependency": "Hard"} for name, url in urls.items()]
    graph = {"nodes": {"root": {"routerType": "Sequence", "steps": steps}}}
    with _running([os.environ[ROUTER], "--graph-json", json.dumps(graph)]):
        _wait_for(f"http://127.0.0.1:{PORT}/readyz")
        return {str(callers): asyncio.run(_load(run, callers)) for callers in CALLERS}


async def _load(run: Path, callers: int) -> dict[str, float]:
    took: list[float] = []
    requests, begin = requests_of(run), time.perf_counter() + 1.0

    async def caller(session: aiohttp.ClientSession) -> None:
        while True:
            body, began = dump_bytes(replace(next(requests), deadline_ms=5_000)), time.perf_counter()
            if began > begin + SECONDS:
                return
            async with session.post("/", data=body) as answer:
                await answer.read()
                answer.raise_for_status()
            if began > begin:
                took.append(time.perf_counter() - began)

    async with aiohttp.ClientSession(f"http://127.0.0.1:{PORT}") as session:
        await asyncio.gather(*(caller(session) for _ in range(callers)))
    return {**quantiles(took), "per_s": round(len(took) / SECONDS)}
