"""A box -> a server of KServe's V1 and V2 endpoints: the container of one InferenceService, one process, one thread.

Bare ASGI on uvicorn: of a step's time KServe's own server takes the most (notes: kserve.md 1.9), and the protocol is what counts to the
router. `model.py` has the same box as a `kserve.Model`.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import prometheus_client as prometheus
import uvicorn
import uvloop
from pydantic import ValidationError

from promolift.contracts.decisions import NODES, Envelope, Request, dump_bytes, read_bytes
from promolift.errors import PromoliftError
from serving.kserve.payload_log import PayloadLog
from serving.kserve.problem import RequestError, of_validation
from serving.kserve.renewal import renewed_by_hangup
from serving.kserve.stamp import Box
from serving.traces import span, start

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
MOST_BYTES = 1_048_576
SECONDS = prometheus.Histogram(
    "promolift_box_seconds",
    "Time of one call of the box.",
    ["box"],
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.016, 0.06, 0.25),
)
CALLS = prometheus.Counter("promolift_box_calls", "Calls of the box by HTTP status.", ["box", "status"])


class NodeApp:
    """The ASGI application of one box, in URLs the model `name` (default: the box's). `replace` exchanges the box between two calls."""

    def __init__(self, box: Box, name: str = "", log: PayloadLog | None = None) -> None:
        name = name or box.name
        self._box, self._log = box, log
        self._seconds = SECONDS.labels(box.name)
        self._first = box.name == NODES[0]
        self._documents = _documents(name)
        self._predict = {f"/v1/models/{name}:predict", f"/v2/models/{name}/infer"}

    def replace(self, box: Box) -> None:
        """Answer with another box from the next call on."""
        self._box = box

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry point."""
        if scope["type"] == "http":
            status, kind, body = await self._answer(scope, receive)
            await send({"type": "http.response.start", "status": status, "headers": [
                (b"content-type", kind), (b"content-length", str(len(body)).encode()),
            ]})  # fmt: skip
            await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, bytes, bytes]:
        path, method = scope["path"], scope["method"]
        if path in self._predict and method == "POST":
            return await self._decide(scope, receive)
        if method == "GET" and path in self._documents:
            return 200, b"application/json", self._documents[path]
        if method == "GET" and path == "/metrics":
            return 200, b"text/plain; version=0.0.4", prometheus.generate_latest()
        known = path in self._predict or path in self._documents
        detail = f"There is no {method} {path}; this node serves {', '.join(sorted(self._predict))}."
        return _problem(RequestError(405 if known else 404, "Method not allowed" if known else "Not found", detail))

    async def _decide(self, scope: Scope, receive: Receive) -> tuple[int, bytes, bytes]:
        try:
            body = await _body(receive)
            parent = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"), "")
            started = perf_counter()
            with span(self._box.name, parent):
                answer = dump_bytes(self._box(self._read(body)))
            self._seconds.observe(perf_counter() - started)
        except ValidationError as problem:
            return _problem(of_validation(problem), self._box.name)
        except RequestError as problem:
            return _problem(problem, self._box.name)
        except PromoliftError as problem:
            return _problem(RequestError(problem.http_status, problem.title, str(problem)), self._box.name)
        CALLS.labels(self._box.name, 200).inc()
        if self._log:
            self._log(body, answer)
        return 200, b"application/json", answer

    def _read(self, body: bytes) -> Envelope:
        """The first box of the graph takes a request document, every other one an envelope."""
        return Envelope(read_bytes(Request, body)) if self._first else read_bytes(Envelope, body)


def serve(box: Box, name: str, listener: socket.socket, renew: Callable[[], Box], log_url: str = "") -> None:
    """Serve a box as the model `name` until SIGINT or SIGTERM; SIGHUP puts `renew()` in its place, or says why not and goes on.

    `log_url`: where copies of requests and answers go, as KServe's payload logger sends them; "" for nowhere.
    """
    start(f"promolift-{box.name}")
    log = PayloadLog(log_url, name) if log_url else None
    app = NodeApp(box, name, log)
    config = uvicorn.Config(
        app, http="httptools", lifespan="off", access_log=False, log_config=None, timeout_keep_alive=180,
        timeout_graceful_shutdown=20,
    )  # fmt: skip

    async def run() -> None:
        renewed_by_hangup(app.replace, renew)
        sender = asyncio.create_task(log.work()) if log else None
        await uvicorn.Server(config).serve(sockets=[listener])
        if sender:
            sender.cancel()

    uvloop.run(run())


async def _body(receive: Receive) -> bytes:
    parts, more, size = [], True, 0
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > MOST_BYTES:
            raise RequestError(413, "The body is too large", f"The body is larger than {MOST_BYTES} bytes.")
    return b"".join(parts)


def _problem(problem: RequestError, box: str = "") -> tuple[int, bytes, bytes]:
    if box:
        CALLS.labels(box, problem.status).inc()
    return problem.status, b"application/problem+json", json.dumps(problem.document).encode()


def _documents(name: str) -> dict[str, bytes]:
    """What KServe answers to a GET, by path."""
    found: dict[str, Any] = {
        "/": {"status": "alive"},
        "/v1/models": {"models": [name]},
        f"/v1/models/{name}": {"name": name, "ready": True},
        "/v2": {"name": "promolift", "version": "1", "extensions": []},
        "/v2/health/live": {"live": True},
        "/v2/health/ready": {"ready": True},
        "/v2/models": {"models": [name]},
        f"/v2/models/{name}": {"name": name, "versions": None, "platform": "", "inputs": [], "outputs": []},
        f"/v2/models/{name}/ready": {"name": name, "ready": True},
    }
    return {path: json.dumps(document).encode() for path, document in found.items()}
