"""The four services behind the router and the four boxes in one process decide the same, byte for byte; and every decision replays."""

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from pydantic import SecretStr

from promolift.contracts.decisions import NODES, Decision, Envelope, Request, dump_bytes, read_bytes, read_request
from promolift.contracts.promos import CATEGORY_NAMES
from promolift.policy.ledger import Ledger
from promolift.redis_server import redis_server
from promolift.settings import Settings
from serving.kserve.boxes import Sources, build
from serving.kserve.fused import fused
from serving.kserve.graph_file import read_graph
from serving.kserve.node import NodeApp
from serving.kserve.replay import Replay
from serving.kserve.router import Answer, Router
from serving.kserve.serve import GRAPH
from serving.kserve.versions import keep
from tests.serving.conftest import HEAVY

pytestmark = HEAVY

COUNT = 2_000
RULES = """
defaults: {cap_per_day: 1, cap_per_week: 2}
shopper: {cap_per_week: 3}
promos:
  meat_20: {weekdays: [fri, sat], segments: {area: [a, unknown]}}
  deli_10: {min_basket_cents: 500, budget: deli, cool_down_days: 2, excludes: [bakery_5]}
  bakery_5: {channels: [app, web], fallback: true}
"""
SETTINGS = Settings(
    token_keys={"k1": SecretStr("x" * 32)}, budget_cents=100_000, explore_share=0.3, randomised_share=0.1, pace_decisions=1_000,
    redis_timeout_ms=10_000,  # on a busy machine it answers late, which is a case of its own
)  # fmt: skip


def requests() -> Iterator[Request]:
    """Shoppers known and unknown, moments of two weeks and of a year later, whole baskets and none."""
    draws = random.Random(7)
    for number in range(COUNT):
        day = draws.choice(["2017-12-01", "2017-12-02", "2017-12-09", "2018-12-01"])
        lines = [{"category": draws.choice(CATEGORY_NAMES), "amount_cents": draws.randrange(900)} for _ in range(draws.randrange(4))]
        yield read_request({
            "request_id": f"r{number}", "shopper_id": str(draws.randrange(400) if draws.random() < 0.7 else draws.randrange(10)),
            "moment": f"{day}T{draws.randrange(24):02}:00:00Z", "channel": draws.choice(["app", "web", "pos"]), "basket": lines,
            "context": {"area": "a"} if draws.random() < 0.3 else {},
        })  # fmt: skip


class InProcess:
    """Posts to the node that a URL names, through its ASGI interface."""

    def __init__(self, nodes: Mapping[str, NodeApp]) -> None:
        self._clients = {
            name: httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node")  # type: ignore[arg-type]
            for name, app in nodes.items()
        }

    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """One POST."""
        answer = await self._clients[url].post(f"/v1/models/{url}:predict", content=body, headers=dict(headers))
        return Answer(answer.status_code, answer.content)


@pytest.fixture
def sources(run_folder: Path, tmp_path: Path) -> Sources:
    (tmp_path / "rules.yaml").write_text(RULES)
    return Sources("", run_folder / "serving_model", run_folder / "registry.db", tmp_path / "rules.yaml", tmp_path / "spill.jsonl")


def kept(decision: Decision | None) -> bytes:
    """What must be equal: everything but the wall clock's end of the reservation."""
    return dump_bytes(replace(decision, expires_at=None)) if decision else b""


def test_the_graph_and_the_fused_service_decide_the_same_bytes_and_replay(run_folder: Path, tmp_path: Path, sources: Sources):
    async def through(router: Router) -> list[Any]:
        return [await router.handle(dump_bytes(request), []) for request in requests()]

    shutil.copytree(run_folder / "redis", tmp_path / "one")
    shutil.copytree(run_folder / "redis", tmp_path / "two")
    with redis_server(tmp_path / "one") as one, redis_server(tmp_path / "two") as two:
        nodes = {name: NodeApp(build(name, replace(sources, redis_url=one), SETTINGS)) for name in NODES}
        answers = asyncio.run(through(Router(read_graph(GRAPH, {name: name for name in NODES}), InProcess(nodes))))
        together = fused(replace(sources, redis_url=two), SETTINGS)
        fused_envelopes = [together(request) for request in requests()]
        with redis.Redis.from_url(two) as client:
            logged = [
                read_bytes(Envelope, row[b"record"])
                for _, row in client.xrange(Ledger(client).stream) if row[b"kind"] == b"decision"
            ]  # fmt: skip
    assert {answer.status for answer in answers} == {200}
    graph_envelopes = [read_bytes(Envelope, answer.body) for answer in answers]
    for ours, theirs in zip(graph_envelopes, fused_envelopes, strict=True):
        assert kept(ours.decision) == kept(theirs.decision)
        assert (ours.candidates, ours.scores, ours.degraded) == (theirs.candidates, theirs.scores, theirs.degraded)
    seen = Counter(envelope.decision.reason for envelope in fused_envelopes if envelope.decision)
    assert {"best_profit", "explored", "randomised", "holdout", "cap_reached", "no_eligible_promo"} <= set(seen), seen
    keep(sources, SETTINGS, tmp_path)
    report = Replay(tmp_path, SETTINGS.hash_salt).run(logged)
    assert (report.equal, report.count, report.differences) == (COUNT, COUNT, [])


def test_a_replay_with_another_model_or_a_changed_record_is_seen(run_folder: Path, tmp_path: Path, sources: Sources):
    shutil.copytree(run_folder / "redis", tmp_path / "one")
    with redis_server(tmp_path / "one") as url:
        together = fused(replace(sources, redis_url=url), SETTINGS)
        envelopes = [together(request) for _, request in zip(range(60), requests(), strict=False)]
    keep(sources, SETTINGS, tmp_path)
    granted = next(e for e in envelopes if e.decision and e.decision.reason == "best_profit")
    assert granted.scores is not None and granted.decision is not None
    forged = replace(granted, scores=replace(granted.scores, value=tuple(v + 1e-9 for v in granted.scores.value)))
    other = replace(granted, decision=replace(granted.decision, promo_id="no_promo"))
    report = Replay(tmp_path, SETTINGS.hash_salt).run([forged, other, granted])
    assert (report.equal, report.count) == (1, 3)
    assert ": scores was" in report.differences[0] and ": decision was" in report.differences[1]
