"""Documents from the nodes' own schemas, real envelopes with a part changed, and hostile bytes: no node fails, and what it refuses
changes nothing in the ledger."""

import asyncio
import copy
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from promolift.contracts.decisions import NODES, Envelope, Request, adapter, dump_bytes, read_request
from promolift.redis_server import redis_server
from promolift.settings import Settings
from serving.kserve.boxes import Sources, build
from serving.kserve.node import NodeApp
from tests.serving.conftest import HEAVY

pytestmark = HEAVY

QUICK = settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
JUNK: list[Any] = [None, True, -1, 0, 10**30, 1e308, "", "x", "\u0000", [], {}, [[]], {"a": 1}, "2017-13-45T00:00:00Z", [None], [1e308] * 3]
HOSTILE = (
    b"", b"[", b"nul", b"\xff\xfe{\x00}\x00", b"[" * 50_000, b'{"a":' * 20_000, b'{"request_id": NaN}', b'{"request_id": 1e999}',
    b'"\\ud800"', b'{"request_id": "r", "request_id": "s"}', b"9" * 10_000, b"\x00" * 100, b"{}" * 600_000,
)  # fmt: skip


class Nodes:
    """The four nodes, the ledger behind them, and the document that each was sent for one ordinary request."""

    def __init__(self, sources: Sources) -> None:
        config = Settings(token_keys={"k1": SecretStr("x" * 32)}, budget_cents=10**9)
        self.apps = {name: NodeApp(build(name, sources, config)) for name in NODES}
        self._ledger = redis.Redis.from_url(sources.redis_url)
        asked = read_request({"request_id": "r0", "shopper_id": "1", "moment": "2017-12-01T00:00:00Z", "basket": []})
        self.sent = {NODES[0]: dump_bytes(asked)}
        for name, following in pairwise(NODES):
            self.sent[following] = self.post(name, self.sent[name]).content

    def post(self, name: str, body: bytes) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.apps[name])  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
                return await client.post(f"/v1/models/{name}:predict", content=body)

        return asyncio.run(call())

    def state(self) -> dict[bytes, bytes | None]:
        return {key: self._ledger.dump(key) for key in self._ledger.scan_iter("{promolift}*", count=10_000)}

    def check(self, name: str, body: bytes) -> None:
        """No failure; a refusal is a problem document and leaves the ledger as it was."""
        before = self.state()
        answer = self.post(name, body)
        assert answer.status_code in (200, 400, 409, 413), (name, body[:300], answer.status_code, answer.text[:300])
        if answer.status_code != 200:
            assert answer.headers["content-type"] == "application/problem+json" and "Traceback" not in answer.text
            assert self.state() == before


@pytest.fixture(scope="module")
def nodes(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(run_folder / "redis", folder / "redis")
    (folder / "rules.yaml").write_text("{}")
    with redis_server(folder / "redis") as url:
        sources = Sources("", run_folder / "serving_model", run_folder / "registry.db", folder / "rules.yaml", folder / "spill.jsonl")
        yield Nodes(replace(sources, redis_url=url))


def operation(kind: Any) -> Any:
    """A POST of the contract, as schemathesis sees it."""
    schema = adapter(kind).json_schema(ref_template="#/components/schemas/{model}")
    parts = schema.pop("$defs", {})
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    paths = {"/": {"post": {"requestBody": body, "responses": {"200": {"description": "an envelope"}}}}}
    document = {"openapi": "3.1.0", "info": {"title": "node", "version": "1"}, "paths": paths, "components": {"schemas": parts}}
    return schemathesis.openapi.from_dict(document)["/"]["POST"]


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_no_document_of_the_schema_or_beside_it_makes_a_node_fail(nodes: Nodes, name: str, mode: str) -> None:
    @QUICK
    @given(case=operation(Request if name == NODES[0] else Envelope).as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def run(case: Any) -> None:
        nodes.check(name, json.dumps(case.body, default=str).encode())

    run()


@pytest.mark.parametrize("name", NODES)
def test_no_single_change_to_a_real_document_makes_a_node_fail(nodes: Nodes, name: str) -> None:
    real = nodes.sent[name]
    for place in range(len(list(places(json.loads(real))))):
        for junk in JUNK:
            document = json.loads(real)
            holder, key = list(places(document))[place]
            holder[key] = junk
            nodes.check(name, json.dumps(document).encode())


@pytest.mark.parametrize("name", NODES)
def test_no_changes_to_a_real_document_make_a_node_fail(nodes: Nodes, name: str) -> None:
    real = json.loads(nodes.sent[name])

    @QUICK
    @given(seed=st.integers(0, 2**32), changes=st.integers(1, 3))
    def run(seed: int, changes: int) -> None:
        draw, document = random.Random(seed), json.loads(json.dumps(real))
        for _ in range(changes):
            holder, key = draw.choice(list(places(document)))
            if draw.random() < 0.2:
                del holder[key]
            else:
                holder[key] = copy.deepcopy(draw.choice(JUNK))  # a later change may be inside it
            if not document:
                break
        nodes.check(name, json.dumps(document).encode())

    run()


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a document; a placeholder where nothing is left."""
    for key in document if isinstance(document, dict) else range(len(document)):
        yield document, key
        if isinstance(document[key], dict | list):
            yield from places(document[key])


@pytest.mark.parametrize("name", NODES)
def test_no_hostile_bytes_make_a_node_fail(nodes: Nodes, name: str) -> None:
    for body in HOSTILE:
        nodes.check(name, body)
