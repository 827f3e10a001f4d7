"""`python -m serving.kserve.graph run --graph FILE --listen HOST:PORT`: any InferenceGraph whose steps have addresses, served here."""

import argparse
import os
import re
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn

from promolift.errors import InputError, PromoliftError, UnavailableError
from serving.kserve.inference_graph import InferenceGraph, read_graph
from serving.kserve.router import Response, Router, is_json

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

CONNECTIONS_PER_STEP = 64
"""KServe's router keeps two idle connections a host and reconnects under load; there is no reason to copy that."""


def header_patterns(text: str) -> tuple[re.Pattern[str], ...]:
    """Compile PROPAGATE_HEADERS: comma-separated patterns, searched in canonical header names; an invalid one is ignored, as in KServe."""
    patterns = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        try:
            patterns.append(re.compile(part))
        except re.error:
            print(f"graph: PROPAGATE_HEADERS holds '{part}', which is no regular expression; ignored.", file=sys.stderr)
    return tuple(patterns)


def propagated(headers: Sequence[tuple[bytes, bytes]], patterns: Sequence[re.Pattern[str]]) -> dict[str, str]:
    """Request headers whose canonical name (X-Request-Id) matches a pattern."""
    named = {k.decode("latin-1").title(): v.decode("latin-1") for k, v in headers}
    return {name: value for name, value in named.items() if any(p.search(name) for p in patterns)}


def _session(graph: InferenceGraph) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, limit_per_host=CONNECTIONS_PER_STEP),
        timeout=aiohttp.ClientTimeout(total=graph.client_timeout_s),
        auto_decompress=False,
    )


class GraphApp:
    """The ASGI application of one graph: /readyz answers for itself, every other path, method and query is the graph."""

    def __init__(self, graph: InferenceGraph, patterns: Sequence[re.Pattern[str]] = ()) -> None:
        self._graph, self._patterns = graph, patterns
        self._router: Router | None = None

    @asynccontextmanager
    async def running(self) -> Any:
        """Hold the connection pool for as long as the application serves."""
        async with _session(self._graph) as session:
            self._router = Router(self._graph, session)
            yield self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or the server's start and stop."""
        if scope["type"] == "lifespan":
            await _lifespan(self.running(), receive, send)
        elif scope["path"] == "/readyz":
            await _answer(Response(b"", 200), send)
        else:
            await _answer(await self._run(scope, receive), send)

    async def _run(self, scope: Scope, receive: Receive) -> Response:
        if self._router is None:
            return Response(b"", 503)
        return await self._router.handle(await _body(receive), propagated(scope["headers"], self._patterns))


async def _lifespan(running: AbstractAsyncContextManager[Any], receive: Receive, send: Send) -> None:
    await receive()
    async with running:
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _body(receive: Receive) -> bytes:
    chunks, more = [], True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(chunks)


async def _answer(response: Response, send: Send) -> None:
    headers = [(b"content-type", b"application/json")] if is_json(response.body) else []
    headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


def bind(address: str) -> socket.socket:
    """A listening socket for HOST:PORT (port 0: any free one). Raises InputError for a malformed address, UnavailableError when taken."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise InputError(f"The address '{address}' is not HOST:PORT, for example 127.0.0.1:8080.")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise UnavailableError(f"Cannot listen on {address}: {error.strerror}. Choose another with --listen, or port 0 for any.") from error
    return listener


def run(graph: InferenceGraph, listener: socket.socket, patterns: Sequence[re.Pattern[str]] = ()) -> None:
    """Serve the graph on a bound socket until SIGINT or SIGTERM."""
    config = uvicorn.Config(GraphApp(graph, patterns), log_level="warning", access_log=False, lifespan="on")
    host, port = listener.getsockname()
    print(f"graph '{graph.name}' listens on http://{host}:{port}", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


def url_override(text: str) -> tuple[str, str]:
    """Split STEP=URL. Raises InputError when one half is missing."""
    step, _, url = text.partition("=")
    if not step or not url.startswith(("http://", "https://")):
        raise InputError(f"--url takes STEP=http://HOST:PORT/PATH and got '{text}'.")
    return step, url


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m serving.kserve.graph", description=__doc__)
    command = top.add_subparsers(dest="command", required=True).add_parser(
        "run",
        help="serve a graph as KServe's router does",
        description="Serve an InferenceGraph manifest. Request headers reach the steps only if PROPAGATE_HEADERS (comma-separated "
        "regular expressions over canonical names) matches them. Example: run --graph serving/kserve/graph.yaml "
        "--listen 127.0.0.1:8080 --url transformer=http://127.0.0.1:9001/v1/models/transformer:predict ...",
    )
    command.add_argument("--graph", required=True, type=Path, help="InferenceGraph manifest (YAML)")
    command.add_argument("--listen", default="127.0.0.1:8080", help="HOST:PORT; port 0 takes a free one")
    command.add_argument(
        "--url", action="append", default=[], metavar="STEP=URL", help="address of a step that names a service; repeatable"
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status is the error's own."""
    options = parser().parse_args(arguments)
    try:
        graph = read_graph(options.graph, dict(map(url_override, options.url)))
        run(graph, bind(options.listen), header_patterns(os.environ.get("PROPAGATE_HEADERS", "")))
    except PromoliftError as error:
        print(f"graph: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
