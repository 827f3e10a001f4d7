"""Decisions asked of a graph over HTTP: once more where it failed, on connections that are renewed."""

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from promolift.contracts.decisions import Envelope, Request, read_bytes
from serving.engine import backends
from serving.engine.backends import GraphBackend, now_iso
from tests.serving.conftest import listening

REQUEST = read_bytes(Request, json.dumps({"request_id": "r1", "shopper_id": "7", "moment": "2017-12-01T00:00:00Z"}).encode())


async def answer(send: Any, status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize(("failures", "asked"), [(0, 1), (1, 2), (2, 2)])
def test_a_graph_that_failed_is_asked_once_more_and_no_more(failures: int, asked: int):
    calls: list[bytes] = []

    async def graph(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        calls.append(body)
        status, content = (500, b"{}") if len(calls) <= failures else (200, b'{"request": ' + body + b"}")
        await answer(send, status, content)

    async def decided(url: str) -> Envelope:
        backend = GraphBackend(url)
        try:
            return await backend.decide(REQUEST, now_iso(), 5.0)
        finally:
            await backend.close()

    with listening(graph) as url:
        if failures < 2:
            assert asyncio.run(decided(url)).request.request_id == REQUEST.request_id
        else:
            with pytest.raises(OSError, match="the graph answered 500"):
                asyncio.run(decided(url))
    assert len(calls) == asked


def open_to(url: str) -> int:
    """Connections of this process to the address."""
    found = psutil.Process().connections("tcp")
    return sum(1 for one in found if one.raddr and one.raddr.port == urlsplit(url).port and one.status == psutil.CONN_ESTABLISHED)


def test_connections_are_renewed_and_what_waits_on_an_old_one_gets_its_answer(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends, "RENEWED_S", 0.2)
    met: list[int] = []

    async def graph(scope: Any, receive: Any, send: Any) -> None:
        met.append(scope["client"][1])
        body = (await receive())["body"]
        await asyncio.sleep(0.7 if len(met) == 1 else 0)
        await answer(send, 200, b'{"request": ' + body + b"}")

    async def asked(url: str) -> list[int]:
        backend = GraphBackend(url)
        slow = asyncio.create_task(backend.decide(REQUEST, now_iso(), 5.0))
        for _ in range(40):
            await asyncio.sleep(0.02)
            await backend.decide(REQUEST, now_iso(), 5.0)
        waiting = open_to(url)
        await slow
        await backend.decide(REQUEST, now_iso(), 5.0)
        found = [waiting, open_to(url)]
        await backend.close()
        return [*found, open_to(url)]

    with listening(graph) as url:
        waiting, idle, closed = asyncio.run(asked(url))
    assert len(met) == 42 and len(set(met)) > 3
    assert (waiting <= 2, idle, closed) == (True, 1, 0)
