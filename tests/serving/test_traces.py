"""One trace from the caller's traceparent through the engine, the router and every box; and in the log lines."""

import asyncio
import io
import json
import logging
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from promolift.contracts.decisions import NODES, Envelope
from serving import traces
from serving.kserve.graph_file import read_graph
from serving.kserve.node import NodeApp
from serving.kserve.router import Answer, Router, compile_patterns
from serving.kserve.serve import GRAPH
from serving.logs import JsonFormatter

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


class Nothing:
    """A box that changes nothing and says something."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, envelope: Envelope) -> Envelope:
        """The envelope."""
        logging.getLogger("promolift.test").warning("decided")
        return envelope


class InProcess:
    """Posts to the node of a URL."""

    def __init__(self) -> None:
        self.nodes = {name: NodeApp(Nothing(name)) for name in NODES}

    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """One POST."""
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.nodes[url]), base_url="http://n") as client:  # type: ignore[arg-type]
            answer = await client.post(f"/v1/models/{url}:predict", content=body, headers=dict(headers))
            return Answer(answer.status_code, answer.content)


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """A process has one provider of tracers."""
    found = InMemorySpanExporter()
    traces.start("test", SimpleSpanProcessor(found))
    return found


def test_every_box_belongs_to_the_callers_trace(exporter: InMemorySpanExporter):
    exporter.clear()
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setFormatter(JsonFormatter())
    logging.getLogger("promolift.test").addHandler(handler)
    router = Router(read_graph(GRAPH, {name: name for name in NODES}), InProcess(), compile_patterns(traces.FORWARDED))
    body = json.dumps({"request_id": "r", "shopper_id": "s", "moment": "2017-12-01T00:00:00Z"}).encode()

    async def run() -> Answer:
        with traces.span("engine", PARENT):
            return await router.handle(body, list(traces.headers().items()))

    assert asyncio.run(run()).status == 200
    spans: tuple[Any, ...] = exporter.get_finished_spans()
    assert [span.name for span in spans] == [*NODES, "engine"]
    assert {format(span.context.trace_id, "032x") for span in spans} == {TRACE_ID}
    engine = spans[-1].context.span_id
    assert {span.parent.span_id for span in spans[:-1]} == {engine}
    assert [json.loads(line)["trace"] for line in said.getvalue().splitlines()] == [TRACE_ID] * 4
    logging.getLogger("promolift.test").removeHandler(handler)


def test_a_caller_without_a_trace_gets_one(exporter: InMemorySpanExporter):
    exporter.clear()
    with traces.span("engine"):
        sent = traces.headers()["traceparent"]
    [made] = exporter.get_finished_spans()
    assert sent.split("-")[1] == format(made.context.trace_id, "032x") != TRACE_ID


def test_a_log_line_is_one_json_object():
    record = logging.LogRecord("a", logging.ERROR, "f", 1, "it failed with %s", ("x",), None)
    assert json.loads(JsonFormatter().format(record))["message"] == "it failed with x"
