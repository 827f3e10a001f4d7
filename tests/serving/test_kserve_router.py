"""Differential test: random graphs and requests, our runner against KServe's own router (the program that KSERVE_ROUTER names)."""

import json
import os
import random
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.serving.conftest import listening

ROUTER = os.environ.get("KSERVE_ROUTER", "")
PORT, GRAPHS, REQUESTS, HEADERS = 8080, 60, 12, "(?i)^(x-request-id|ce-),^Traceparent$,*Trace-Id*,Content-Language"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ROUTER, reason="set KSERVE_ROUTER to the program of KServe's own router"),
]
BODIES: dict[str, tuple[int, bytes]] = {
    "/scores": (200, b'{"predictions": [{"score": 0.10, "id": 9007199254740993}, {"score": 7}], "extra": "<&>\\u00e9"}'),
    "/none": (200, b'{"predictions": []}'),
    "/flag": (201, b'{"flag": false, "n": 2.0, "e": 1e21, "t": 1e-7, "z": null, "s": "\\u2028\\ud83d\\ude00/"}'),
    "/list": (200, b"[1, 2]"),
    "/text": (200, b"no JSON"),
    "/empty": (204, b""),
    "/missing": (404, b'{"detail":"not here"}'),
    "/sick": (503, b'{"error": "sick"}'),
    "/plain": (500, b"sick"),
    "/cut": (200, b'{"predictions": [1'),
}
PATHS = ["/echo", "/echo", "/headers", *BODIES, "down"]
CONDITIONS = ["", "@this", "predictions", "predictions.0", "predictions.#(score>0.5)", "flag", "z", "absent", "[@this].#(n==2)", "body.n"]
REQUESTS_SENT = [
    b'{"flag": true, "predictions": [{"score": 0.9}]}', b'{"n": 2, "big": 9007199254740993, "f": 0.10}', b"{}", b"[1]", b"no JSON", b"",
    b'{"predictions": [1, 2], "keep": 1}', b'{"predictions": "text"}', b' {"n" : 2 , "predictions":[[]]} ', b"null", b'{"n":1,"n":2}',
]  # fmt: skip


@contextmanager
def steps() -> Iterator[str]:
    """Every step of every graph: it answers by path; /echo gives the body back, /headers what reached it."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        status, answer = BODIES.get(scope["path"], (200, body))
        if scope["path"] == "/headers":
            told = sorted((n.decode(), v.decode()) for n, v in scope["headers"] if n.startswith((b"x-", b"ce-", b"trace", b"content-t")))
            answer = json.dumps({"method": scope["method"], "query": scope["query_string"].decode(), "headers": dict(told)}).encode()
        await send({"type": "http.response.start", "status": status, "headers": [(b"x-step", b"1")]})
        await send({"type": "http.response.body", "body": answer})

    with listening(application) as url:
        yield url


def random_step(draw: random.Random, index: int, kind: str, base: str, below: list[str]) -> dict[str, Any]:
    step: dict[str, Any] = {}
    path = draw.choice(PATHS)
    target = {"serviceUrl": "http://127.0.0.1:9/down" if path == "down" else f"{base}{path}"}
    step |= {"nodeName": draw.choice(below)} if below and draw.random() < 0.4 else target
    if draw.random() < 0.6:
        step["name"] = f"s{index}"
    if draw.random() < 0.7:
        step["data"] = draw.choice(["$response", "$response", "$request", "$response.predictions"])
    if draw.random() < (0.9 if kind == "Switch" else 0.25):
        step["condition"] = draw.choice(CONDITIONS)
    if draw.random() < 0.3:
        step["dependency"] = draw.choice(["Soft", "Hard"])
    if draw.random() < 0.2:
        step["mapPredictionsToInstances"] = True
    return step


def random_graph(draw: random.Random, base: str) -> dict[str, Any]:
    """Up to four nodes, each leading only to later ones (or, seldom, to one that does not exist)."""
    names = ["root", "b", "c", "d"][: draw.randint(1, 4)]
    nodes = {}
    for place, name in enumerate(names):
        kind = draw.choice(["Sequence", "Sequence", "Switch", "Ensemble", "Splitter"])
        below = names[place + 1 :] + (["nowhere"] if draw.random() < 0.05 else [])
        count = 1 if kind == "Splitter" else draw.randint(1, 4)
        made = [random_step(draw, index, kind, base, below) for index in range(count)]
        if kind == "Splitter":  # one step has all the weight: chance is compared in test_graph_router.py, by its frequencies
            made[0]["weight"] = 100
        nodes[name] = {"routerType": kind, "steps": made}
    return document(**nodes)


@contextmanager
def running(command: list[str], url: str, log: Path) -> Iterator[str]:
    """The program, as soon as it is ready, and dead afterwards. One that ends by itself fails with what it said last."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, env={**os.environ, "PROPAGATE_HEADERS": HEADERS}, stdout=file, stderr=file)
    try:
        wait_ready(process, url)
        yield url
        assert process.poll() is None, f"{command[0]} ended by itself:\n{log.read_text()[-4000:]}"
    finally:
        process.kill()
        process.wait()


def wait_ready(process: subprocess.Popen[bytes], url: str) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            if process.poll() is not None or time.monotonic() > until:
                raise
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answer(client: httpx.Client, url: str, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes, str]:
    """What a caller can see: status, type, body, and whether anything of a step's headers came through."""
    try:
        response = client.request("PUT", f"{url}/any/path?x=1", content=body, headers=headers)
    except httpx.RemoteProtocolError as problem:
        return 0, "", str(problem).encode(), ""
    return response.status_code, response.headers.get("content-type", ""), response.content, response.headers.get("x-step", "")


@contextmanager
def both(graph: dict[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
    """The URLs of the router and of our runner, both serving the graph."""
    file, port = folder / "graph.yaml", free_port()
    file.write_text(yaml.safe_dump(graph))
    ours = [sys.executable, "-m", "serving.kserve.graph", "run", "--graph", str(file), "--listen", f"127.0.0.1:{port}"]
    theirs = [ROUTER, "--graph-json", json.dumps(graph["spec"])]
    with (
        running(theirs, f"http://127.0.0.1:{PORT}", folder / "router.log") as router,
        running(ours, f"http://127.0.0.1:{port}", folder / "runner.log") as runner,
    ):
        yield router, runner


def differences(graph: dict[str, Any], folder: Path, bodies: list[bytes]) -> list[str]:
    """What the two answered differently. KServe's router has been seen to die between two requests; it is started once more then."""
    try:
        return compared(graph, folder, bodies)
    except httpx.ConnectError as problem:
        if problem.request.url.port != PORT:
            raise
        print(f"KServe's router has died: {(folder / 'router.log').read_text()[-4000:]}")
        return compared(graph, folder, bodies)


def compared(graph: dict[str, Any], folder: Path, bodies: list[bytes]) -> list[str]:
    found = []
    with both(graph, folder) as (router, runner), httpx.Client() as client:
        for number, body in enumerate(bodies):
            headers = {"X-Request-Id": f"r{number}", "ce-id": "1", "X-Trace-Id": "no", "traceparent": "00-1"}
            expected, got = (answer(client, url, body, headers) for url in (router, runner))
            # The first of several failing members of an Ensemble speaks, which is chance: the router is asked for it again.
            if expected != got and all(answer(client, router, body, headers) != got for _ in range(40)):
                found.append(f"{json.dumps(graph['spec'])}\n  request {body!r}\n  router  {expected}\n  runner  {got}")
    return found


def document(**nodes: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "InferenceGraph", "metadata": {"name": "g"}, "spec": {"nodes": nodes}}


def test_random_graphs_and_requests_get_the_routers_answers_to_the_byte(tmp_path: Path) -> None:
    draw, found = random.Random(20), []
    with steps() as base:
        for _ in range(GRAPHS):
            found += differences(random_graph(draw, base), tmp_path, draw.choices(REQUESTS_SENT, k=REQUESTS))
    assert not found, f"{len(found)} answers differ:\n" + "\n".join(found[:8])


def broken(draw: random.Random) -> bytes:
    """JSON in which up to two bytes were replaced, added or left out; every other one is cut."""
    body = bytearray(
        b'{"a": [1, -2.5e+3, 0.0, true, false, null, {"b": "\\u00e9\\n\\"x\\"\\ud800"}], "k\xc3\xa9": {}, "l": [], "n": -0, "e": 1E5}'
    )
    for _ in range(draw.randint(0, 2)):
        place = draw.randrange(len(body))
        body[place : place + draw.randint(0, 2)] = bytes(draw.choices(b'{}[]",:\\0-+.eEtfnu /x\n\x01\x7f\xe9', k=draw.randint(0, 2)))
    return bytes(body[: draw.randrange(len(body))] if draw.random() < 0.5 else body)


def test_what_is_no_json_is_said_in_gos_words(tmp_path: Path) -> None:
    draw = random.Random(3)
    with steps() as base:
        ensemble = document(root={"routerType": "Ensemble", "steps": [{"serviceUrl": f"{base}/echo"}]})
        found = differences(ensemble, tmp_path, [broken(draw) for _ in range(3_000)])
    assert not found, f"{len(found)} answers differ:\n" + "\n".join(found[:8])


class Closing(socketserver.BaseRequestHandler):
    """Reads the request and hangs up, or says nothing for three seconds."""

    def handle(self) -> None:
        if b"POST /slow" in self.request.recv(65536):
            time.sleep(3)


def test_a_step_that_hangs_up_or_says_nothing_is_told_in_gos_words(tmp_path: Path) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Closing) as server:
        threading.Thread(target=server.serve_forever).start()
        base = f"http://127.0.0.1:{server.server_address[1]}"
        for path in ("closed", "slow"):
            graph = document(root={"routerType": "Sequence", "steps": [{"serviceUrl": f"{base}/{path}"}]})
            graph["spec"]["routerTimeouts"] = {"serviceClient": 1}
            with both(graph, tmp_path) as urls, httpx.Client() as client:
                expected, got = (answer(client, url, b"{}", {}) for url in urls)
            assert expected == got
        server.shutdown()
