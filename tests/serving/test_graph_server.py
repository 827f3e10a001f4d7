"""The graph runner as a program: a real server before real steps, and one sentence for everything that cannot be run."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from promolift.contracts.decisions import NODES
from serving.kserve.graph import main
from serving.kserve.graph_file import read_graph
from serving.kserve.listen import bind
from tests.serving.conftest import listening

GRAPH = Path("serving/kserve/graph.yaml")


def document(*steps: dict[str, Any], **spec: Any) -> dict[str, Any]:
    nodes = {"root": {"routerType": "Sequence", "steps": list(steps)}}
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "InferenceGraph",
        "metadata": {"name": "g"},
        "spec": {"nodes": nodes, **spec},
    }


@contextmanager
def echo_step() -> Iterator[str]:
    """A server that answers with what it was sent: body and headers; it waits 3 s on /slow."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/slow":
            await asyncio.sleep(3)
        body = (await receive())["body"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        answer = json.dumps({"method": scope["method"], "body": body.decode(), "headers": headers}).encode()
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x-step", b"1")]})
        await send({"type": "http.response.body", "body": answer})

    with listening(application) as url:
        yield url


Served = Callable[..., Any]


@contextmanager
def served(path: Path, *arguments: str, **environment: str) -> Iterator[str]:
    command = [sys.executable, "-m", "serving.kserve.graph", "run", "--graph", str(path), "--listen", "127.0.0.1:0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PATH": "/usr/bin", **environment}) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield line.split(" listens on ")[1].strip()
        finally:
            process.terminate()
    assert process.returncode in (0, -15)


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "graph.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_any_path_and_method_is_the_graph_and_step_headers_do_not_come_back(tmp_path: Path):
    with echo_step() as step:
        path = written(tmp_path, document({"name": "a", "serviceName": "svc"}))
        with served(path, "--url", f"a={step}/x", PROPAGATE_HEADERS="X-Request-Id") as url, httpx.Client() as client:
            assert client.get(f"{url}/readyz").status_code == 200
            answer = client.put(f"{url}/any/path?q=1", content=b"raw \xc3\xa9", headers={"x-request-id": "7", "authorization": "no"})
    seen = answer.json()
    assert (answer.status_code, seen["method"], seen["body"]) == (201, "POST", "raw é")
    assert seen["headers"]["x-request-id"] == "7"
    assert seen["headers"]["content-type"] == "application/json"
    assert "authorization" not in seen["headers"]
    assert "x-step" not in answer.headers
    assert answer.headers["content-type"] == "application/json"


def test_a_refused_and_a_late_step_are_errors_of_the_graph(tmp_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with served(written(tmp_path, document({"name": "a", "serviceUrl": nobody}))) as url:
            refused = httpx.post(url, content=b"{}")
    with echo_step() as step:
        slow = document({"name": "a", "serviceUrl": f"{step}/slow"}, routerTimeouts={"serviceClient": 1})
        with served(written(tmp_path, slow)) as url:
            late = httpx.post(url, content=b"{}")
    for answer in (refused, late):
        assert (answer.status_code, answer.json()["error"]) == (500, "Failed to process request")


@pytest.mark.parametrize(
    ("content", "listen", "status", "words"),
    [
        ("a: [", "127.0.0.1:0", 2, "is not YAML"),
        ({"kind": "Pod"}, "127.0.0.1:0", 2, "'Pod'"),
        (document({"name": "a", "serviceName": "svc"}), "127.0.0.1:0", 2, "--url a=URL"),
        (document({"name": "a", "serviceUrl": "http://x"}), "nowhere", 2, "HOST:PORT"),
        (document({"name": "a", "serviceUrl": "http://x"}), "127.0.0.1:99999", 2, "127.0.0.1:99999"),
    ],
)
def test_what_cannot_be_run_gets_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, content: Any, listen: str, status: int, words: str
):
    assert main(["run", "--graph", str(written(tmp_path, content)), "--listen", listen]) == status
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_missing_file_and_a_taken_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["run", "--graph", str(tmp_path / "no.yaml"), "--listen", "127.0.0.1:0"]) == 2
    assert "no.yaml cannot be read" in capsys.readouterr().err
    path = written(tmp_path, document({"name": "a", "serviceUrl": "http://x"}))
    with bind("127.0.0.1:0") as taken:
        port = taken.getsockname()[1]
        assert main(["run", "--graph", str(path), "--listen", f"127.0.0.1:{port}"]) == 4
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_our_graph_is_the_four_boxes_in_order_and_never_stops_before_the_log():
    graph = read_graph(GRAPH, {name: f"http://{name}" for name in NODES})
    steps = graph.nodes["root"].steps
    assert tuple(step.name for step in steps) == NODES
    assert [step.data for step in steps] == ["", *["$response"] * 3]
    assert not any(step.condition for step in steps)
    assert all(step.hard for step in steps)
