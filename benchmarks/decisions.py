"""Decisions in one process, the ledger against its bare script, the engine over HTTP; on a run of `make demo`, made when it is missing."""

import asyncio
import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from pydantic import SecretStr

from loadtests.run import baskets
from promolift.contracts.artifacts import read_source_card
from promolift.contracts.decisions import Request, read_request
from promolift.errors import PromoliftError
from promolift.policy.constraints import Standing
from promolift.policy.ledger import Ledger, Order, Proposal
from promolift.policy.ledger_arms import Arm
from promolift.redis_server import redis_server
from promolift.settings import Settings
from serving.kserve.boxes import Sources
from serving.kserve.fused import FusedGraph, fused
from serving.kserve.redis_client import Line, client

DECISIONS, CLIENTS, RESERVE_S, HTTP_S = 6_000, 20, 4.0, 8.0
ARMS = tuple(Arm(f"promo_{number}", 300, 1, 2) for number in range(6))


def measure(run: Path) -> dict[str, Any]:
    """All figures; `run` is a demo's folder."""
    if not (run / "summary.json").is_file():
        subprocess.run([sys.executable, "-m", "pipelines.demo", "--out", str(run)], check=True, stdout=sys.stderr)
    return {
        "fused": in_process(run),
        "ledger": reservations(),
        "http_fused": over_http(run, fused_boxes=True),
        "http_graph": over_http(run),
    }


@contextmanager
def redis_with_features(run: Path) -> Iterator[tuple[str, Path]]:
    """A Redis with the run's online features, and a folder."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(run / "redis", Path(folder) / "redis", ignore=shutil.ignore_patterns(".lock"))
        with redis_server(Path(folder) / "redis") as url:
            yield url, Path(folder)


def requests_of(run: Path) -> Iterator[Request]:
    """Real baskets, each with an id of its own, without end."""
    moment, known = read_source_card(run / "lake").as_of, baskets(run / "lake")
    for number in count():
        basket = known[number % len(known)]
        fields = {"request_id": uuid.uuid4().hex, "shopper_id": basket["shopper_id"], "moment": moment, "basket": basket["lines"]}
        yield read_request(fields)


def in_process(run: Path) -> dict[str, Any]:
    """One client, one decision after another, all four boxes and a real Redis; without caps, which the few shoppers would soon reach."""
    with redis_with_features(run) as (url, folder):
        (folder / "rules.yaml").write_text("{}")
        settings = Settings(token_keys={"k": SecretStr("x" * 32)}, budget_cents=10**12)
        sources = Sources(url, run / "serving_model", run / "registry.db", folder / "rules.yaml", folder / "spill.jsonl")
        graph: FusedGraph = fused(sources, settings)
        requests = requests_of(run)
        asked = [next(requests) for _ in range(DECISIONS)]
        for request in asked[:500]:
            graph(request)
        took = [_timed(graph, request) for request in asked[500:]]
    return {**quantiles(took), "per_s": round(1 / float(np.mean(took)))}


def _timed(work: Callable[[Request], Any], request: Request) -> float:
    began = time.perf_counter()
    work(request)
    return time.perf_counter() - began


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Milliseconds."""
    p50, p95, p99 = np.percentile(np.array(seconds) * 1000, [50, 95, 99])
    return {"p50_ms": round(float(p50), 3), "p95_ms": round(float(p95), 3), "p99_ms": round(float(p99), 3)}


def reservations() -> dict[str, Any]:
    """Reservations a second of CLIENTS processes through `Ledger`, and of the same script called with arguments made once."""
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as url:
        Ledger(client(url, 5)).set_budget_if_unset(10**12)
        found = {name: _together(work, url) for name, work in (("bare", _bare), ("ledger", _reserve), ("bare again", _bare))}
    bare = (found["bare"] + found["bare again"]) / 2
    return {"ledger_per_s": round(found["ledger"]), "bare_script_per_s": round(bare), "ratio": round(found["ledger"] / bare, 2)}


def _together(work: Callable[[str, float], int], url: str) -> float:
    context = multiprocessing.get_context("spawn")
    with context.Pool(CLIENTS) as pool:
        start = time.time() + 8.0
        return sum(pool.starmap(work, [(url, start)] * CLIENTS)) / RESERVE_S


def _order() -> Order:
    name = uuid.uuid4().hex
    return Order(name, name, "f" * 64, name, 1_512_086_400, 10**14)


def _reserve(url: str, start: float) -> int:
    ledger, proposal = Ledger(client(url, 5), call=Line(url, 5)), Proposal("promo_1", b"d" * 400, b"r" * 3_000, 1.0)

    def choose(_: Standing) -> Proposal:
        return proposal

    return _loop(start, lambda: ledger.decide(_order(), ARMS, choose))


def _bare(url: str, start: float) -> int:
    """The very command that the ledger sends, but for the ids."""
    sent: list[tuple[Any, ...]] = []
    line = Line(url, 5)

    def record(*command: Any) -> Any:
        sent.append(command)
        return line(*command)

    order = _order()
    Ledger(client(url, 5), call=record).decide(order, ARMS, lambda _: Proposal("promo_1", b"d" * 400, b"r" * 3_000, 1.0))
    template = [part.replace(order.request_id, "{}") if isinstance(part, str) else part for part in sent[-1]]
    if template[0] == "EVAL":
        template[:2] = ["EVALSHA", line("SCRIPT", "LOAD", sent[-1][1]).decode()]

    def call() -> None:
        name = uuid.uuid4().hex
        line(*[part.replace("{}", name) if isinstance(part, str) and "{}" in part else part for part in template])

    return _loop(start, call)


def _loop(start: float, call: Callable[[], Any]) -> int:
    """Calls within RESERVE_S from `start` on, at which all processes begin."""
    time.sleep(max(0.0, start - time.time()))
    calls, end = 0, time.perf_counter() + RESERVE_S
    while time.perf_counter() < end:
        call()
        calls += 1
    return calls


def over_http(run: Path, *, fused_boxes: bool = False) -> dict[str, Any]:
    """Four callers of the engine on loopback, each waiting for its answer, with the boxes in its process or behind the graph."""
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "run"
        shutil.copytree(run, copied, symlinks=True, ignore=shutil.ignore_patterns("mlruns", "logs", ".lock", "serving.json"))
        command = [sys.executable, "-m", "serving.kserve", "serve", "--run", str(copied), "--listen", "127.0.0.1:0"]
        with subprocess.Popen([*command, *(["--fused"] if fused_boxes else [])], stdout=subprocess.PIPE, text=True) as service:
            for line in service.stdout or ():
                if line.startswith("ready:"):
                    break
            else:
                raise PromoliftError(f"The service did not come up; its logs are in {copied / 'logs'}.")
            try:
                served = json.loads((copied / "serving.json").read_text(encoding="utf-8"))
                took = asyncio.run(_ask(served, requests_of(run)))
            finally:
                service.terminate()
                service.wait(60)
    return {**quantiles(took), "per_s": round(len(took) / HTTP_S), "callers": 4}


async def _ask(served: dict[str, Any], requests: Iterator[Request]) -> list[float]:
    took: list[float] = []
    headers = {"X-API-Key": served["api_key"]}

    async def caller(session: aiohttp.ClientSession) -> None:
        begin, end = time.perf_counter() + 1.0, time.perf_counter() + 1.0 + HTTP_S
        while time.perf_counter() < end:
            request = next(requests)
            body = {"request_id": request.request_id, "shopper_id": request.shopper_id, "moment": request.moment, "deadline_ms": 5_000}
            began = time.perf_counter()
            async with session.post("/v1/decisions", json=body) as answer:
                await answer.read()
                answer.raise_for_status()
            if began > begin:
                took.append(time.perf_counter() - began)

    async with aiohttp.ClientSession(served["url"], headers=headers) as session:
        await asyncio.gather(*(caller(session) for _ in range(4)))
    return took
