import asyncio
import json
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import aiohttp
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from promolift.errors import InputError, UnavailableError
from serving.kserve.go_json import encode
from serving.kserve.graph import bind, header_patterns, propagated
from serving.kserve.inference_graph import parse_graph, read_graph
from serving.kserve.router import NO_MATCH, Response, Router, is_json, matches

OK = {"predictions": [{"message": "SUCCESS"}]}
ERROR = {"detail": "Intentional 404 code"}
CLOSED = "http://127.0.0.1:9/closed"


async def upstream(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """/ok and /err answer fixed documents, /text no JSON, /list an array, /echo the body, /headers the request's headers."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = {k.decode(): v.decode() for k, v in scope["headers"]}
    answers = {"/ok": OK, "/err": ERROR, "/list": [1], "/headers": headers}
    path = scope["path"]
    out = body if path == "/echo" else b"plain" if path == "/text" else json.dumps(answers[path]).encode()
    await send({"type": "http.response.start", "status": 404 if path == "/err" else 200, "headers": [(b"x-step", b"1")]})
    await send({"type": "http.response.body", "body": out})


@contextmanager
def served(app: Any) -> Iterator[str]:
    listener = bind("127.0.0.1:0")
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def steps() -> Iterator[str]:
    with served(upstream) as url:
        yield url


def ask(nodes: dict[str, Any], body: Any, base: str = "", headers: dict[str, str] | None = None, draw: int | None = None) -> Response:
    for node in nodes.values():
        for step in node["steps"]:
            if step.get("serviceUrl", "").startswith("/"):
                step["serviceUrl"] = base + step["serviceUrl"]
    graph = parse_graph({"kind": "InferenceGraph", "metadata": {"name": "g"}, "spec": {"nodes": nodes}}, {})

    async def once() -> Response:
        async with aiohttp.ClientSession() as session:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            return await Router(graph, session, random.Random(draw)).handle(raw, headers or {})

    return asyncio.run(once())


def node(kind: str, *steps: dict[str, Any]) -> dict[str, Any]:
    return {"routerType": kind, "steps": list(steps)}


def to(path: str, **more: Any) -> dict[str, Any]:
    return {"serviceUrl": path, **more}


def test_a_soft_error_at_the_end_is_the_answer(steps: str) -> None:
    answer = ask({"root": node("Sequence", to("/ok"), to("/err"))}, {}, steps)
    assert (answer.status, json.loads(answer.body)) == (404, ERROR)


def test_a_soft_error_is_followed_by_the_next_step_and_a_hard_one_is_not(steps: str) -> None:
    assert ask({"root": node("Sequence", to("/err"), to("/ok"))}, {}, steps).status == 200
    assert ask({"root": node("Sequence", to("/err", dependency="Hard"), to("/ok"))}, {}, steps).status == 404


def test_response_is_the_previous_body_and_anything_else_the_input(steps: str) -> None:
    chained = node("Sequence", to("/ok"), to("/echo", data="$response"))
    assert json.loads(ask({"root": chained}, {"a": 1}, steps).body) == OK
    for data in ("$request", "$response.predictions", ""):
        assert ask({"root": node("Sequence", to("/ok"), to("/echo", data=data))}, b'{"a": 1.0}', steps).body == b'{"a": 1.0}'


def test_response_on_the_first_step_is_the_input(steps: str) -> None:
    assert ask({"root": node("Sequence", to("/echo", data="$response"))}, b"[1,  2]", steps).body == b"[1,  2]"


def test_an_unmet_condition_ends_the_sequence_with_200(steps: str) -> None:
    root = node("Sequence", to("/err"), to("/ok", condition="predictions.0"))
    answer = ask({"root": root}, {}, steps)
    assert (answer.status, json.loads(answer.body)) == (200, ERROR)


def test_a_condition_without_json_before_it_is_a_500(steps: str) -> None:
    first = ask({"root": node("Sequence", to("/ok", condition="@this"))}, {}, steps)
    after_text = ask({"root": node("Sequence", to("/text"), to("/ok", condition="@this"))}, {}, steps)
    assert [json.loads(a.body)["cause"] for a in (first, after_text)] == ["invalid response"] * 2
    assert first.status == after_text.status == 500


def test_a_stopped_inner_sequence_does_not_stop_the_outer_one(steps: str) -> None:
    inner = node("Sequence", to("/echo"), to("/err", condition="nothing"))
    assert ask({"root": node("Sequence", {"nodeName": "inner"}, to("/ok")), "inner": inner}, {}, steps).body == json.dumps(OK).encode()


def switch() -> dict[str, Any]:
    return node("Switch", to("/err", condition='[@this].#(go=="ERROR")'), to("/ok", condition='[@this].#(go=="SUCCESS")'))


@pytest.mark.parametrize(("go", "status"), [("ERROR", 404), ("SUCCESS", 200)])
def test_a_switch_takes_the_first_match(steps: str, go: str, status: int) -> None:
    assert ask({"root": switch()}, {"go": go}, steps).status == status


def test_a_switch_without_match_is_404_at_the_root_and_500_below(steps: str) -> None:
    at_root = ask({"root": switch()}, {"go": "?"}, steps)
    below = ask({"root": node("Sequence", {"nodeName": "s"}), "s": switch()}, {"go": "?"}, steps)
    assert (at_root.status, below.status) == (404, 500)
    assert json.loads(at_root.body) == json.loads(below.body) == {"error": "Failed to process request", "cause": NO_MATCH}


def test_an_ensemble_merges_objects_by_name_and_index(steps: str) -> None:
    answer = ask({"root": node("Ensemble", to("/ok", name="a"), to("/err"))}, {}, steps)
    assert (answer.status, json.loads(answer.body)) == (200, {"a": OK, "1": ERROR})


def test_an_ensemble_stops_at_a_hard_error_and_refuses_what_is_no_object(steps: str) -> None:
    assert ask({"root": node("Ensemble", to("/ok"), to("/err", dependency="Hard"))}, {}, steps).status == 404
    assert ask({"root": node("Ensemble", to("/ok"), to("/list"))}, {}, steps).status == 500


def test_an_ensemble_reencodes_numbers_and_a_sequence_does_not(steps: str) -> None:
    raw = b'{"n":9007199254740993,"f":0.10,"g":2.0,"t":"<&>"}'
    assert ask({"root": node("Sequence", to("/echo"))}, raw, steps).body == raw
    merged = ask({"root": node("Ensemble", to("/echo", name="e"))}, raw, steps).body
    assert merged == b'{"e":{"f":0.1,"g":2,"n":9007199254740992,"t":"\\u003c\\u0026\\u003e"}}'


def test_a_transport_failure_is_a_500_even_when_soft(steps: str) -> None:
    answer = ask({"root": node("Sequence", to(CLOSED), to("/ok"))}, {}, steps)
    assert (answer.status, json.loads(answer.body)["error"]) == (500, "Failed to process request")


def test_an_unknown_node_is_a_500(steps: str) -> None:
    assert json.loads(ask({"root": node("Sequence", {"nodeName": "gone"})}, {}, steps).body)["cause"] == "invalid route type: "


def test_a_splitter_follows_its_weights(steps: str) -> None:
    def statuses(weight: int) -> list[int]:
        root = node("Splitter", to("/ok", weight=weight), to("/err", weight=100 - weight))
        return [ask({"root": json.loads(json.dumps(root))}, {}, steps, draw=seed).status for seed in range(12)]

    assert statuses(100) == [200] * 12
    assert statuses(0) == [404] * 12
    assert set(statuses(50)) == {200, 404}


def test_predictions_become_instances_and_drop_the_rest(steps: str) -> None:
    root = node("Sequence", to("/echo", mapPredictionsToInstances=True))
    assert ask({"root": root}, {"predictions": [1, 2.5], "more": 1}, steps).body == b'{"instances":[1,2.5]}'
    assert ask({"root": root}, b'{"predictions": []}', steps).body == b'{"predictions": []}'


@pytest.mark.parametrize(
    ("document", "condition", "found"),
    [
        ({"a": False}, "a", True),
        ({"a": None}, "a", True),
        ({"a": []}, "a.#", True),
        ({"a": []}, "a.0", False),
        ({"b": 3}, "[@this].#(b<10)", True),
        ({"b": 30}, "[@this].#(b<10)", False),
        ({}, "[@this].#(b<10)", False),
        ({"p": [{"s": 0.7}]}, "p.#(s>0.5)", True),
        ({"p": [{"s": 0.7}]}, "p.0.s>0.5", False),
        ({"p": [{"s": 0.7}]}, "p.#(s>0.6 && s<0.65)", True),  # gjson has no &&; KServe's own example relies on it
        ({"x": 1}, "@this", True),
        ({"x": 1}, "", False),
    ],
)
def test_conditions_mean_what_gjson_means(document: Any, condition: str, found: bool) -> None:
    assert matches(json.dumps(document).encode(), condition) is found


def test_only_matching_canonical_headers_are_propagated(steps: str) -> None:
    sent = [(b"x-request-id", b"7"), (b"authorization", b"no"), (b"traceparent", b"t")]
    found = propagated(sent, header_patterns("(?i)^x-request-id$,Trace,*broken*"))
    assert found == {"X-Request-Id": "7", "Traceparent": "t"}
    seen = json.loads(ask({"root": node("Sequence", to("/headers"))}, {}, steps, headers=found).body)
    assert (seen["x-request-id"], seen["content-type"]) == ("7", "application/json")


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_a_reencoded_number_is_the_same_float(number: float) -> None:
    assert float(encode(number)) == float(number)


@given(st.recursive(st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_a_reencoded_document_is_the_same_document(document: Any) -> None:
    assert json.loads(encode(document)) == document


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"kind": "Deployment"}, "kind is 'Deployment'"),
        ({"kind": "InferenceGraph", "spec": {"nodes": {}}}, "no node 'root'"),
        ({"kind": "InferenceGraph", "spec": {"nodes": {"root": {"routerType": "Loop"}}}}, "routerType 'Loop'"),
        ({"kind": "InferenceGraph", "spec": {"nodes": {"root": node("Sequence", {"name": "t", "serviceName": "svc"})}}}, "--url t="),
    ],
)
def test_a_graph_that_cannot_run_is_refused_in_a_sentence(document: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse_graph(document, {})


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot read the graph"):
        read_graph(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(InputError, match="not valid YAML"):
        read_graph(tmp_path / "bad.yaml")


def test_a_taken_port_and_a_bad_address_are_named() -> None:
    with bind("127.0.0.1:0") as taken:
        taken.listen()
        with pytest.raises(UnavailableError, match="Cannot listen on"):
            bind(f"127.0.0.1:{taken.getsockname()[1]}")
    with pytest.raises(InputError, match="not HOST:PORT"):
        bind("8080")


@pytest.mark.slow
def test_the_command_serves_and_stops(steps: str, tmp_path: Path) -> None:
    manifest = {
        "kind": "InferenceGraph",
        "metadata": {"name": "g"},
        "spec": {"nodes": {"root": node("Sequence", {"name": "a", "serviceName": "s"})}},
    }
    (tmp_path / "graph.yaml").write_text(json.dumps(manifest))
    command = [sys.executable, "-m", "serving.kserve.graph", "run", "--graph", str(tmp_path / "graph.yaml"), "--listen", "127.0.0.1:0"]
    with subprocess.Popen([*command, "--url", f"a={steps}/echo"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1].removeprefix("http://")
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(b"PUT /any?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nConnection: close\r\n\r\n1.50")
            answer = b"".join(iter(lambda: client.recv(4096), b""))
        process.terminate()
        assert process.wait(20) in (0, -15)
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"\r\n\r\n1.50")
    assert is_json(b"1.50") and b"content-type: application/json" in answer
