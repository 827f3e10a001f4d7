"""An InferenceGraph YAML -> a server that executes it as KServe's router does, on a machine without a cluster.

    python -m serving.kserve.graph run --graph FILE --listen HOST:PORT [--url STEP=URL ...] [--urls FILE]
    python -m serving.kserve.graph lint FILE

A step given by `serviceName` needs `--url STEP=URL`, or its place in the JSON object of `--urls`. SIGHUP reads the files anew: requests
in flight end in the graph that they began in, and a wrong file changes nothing. PROPAGATE_HEADERS is read as the router reads it. GET
/readyz says when it serves; every other path, query and method is the graph.
"""

import argparse
import errno
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pygjson
import uvicorn
import uvloop

from promolift.errors import InputError, PromoliftError
from serving.kserve.graph_file import Graph, read_graph
from serving.kserve.graph_lint import lint
from serving.kserve.listen import bind
from serving.kserve.renewal import renewed_by_hangup
from serving.kserve.router import Answer, Router, compile_patterns

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class HttpCaller:
    """Posts over a pool of kept-alive connections (no limit per host: the router's limit of 2 idle ones costs a connection a call)."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """The answer of one step; any failure to get one is an OSError or TimeoutError."""
        try:
            async with self._session.post(url, data=body, headers=headers) as response:
                return Answer(response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError) as problem:
            raise OSError(_go_error(problem)) from problem


def _go_error(problem: Exception) -> str:
    """The words of Go's HTTP client, which the router passes on to its caller."""
    if isinstance(problem, aiohttp.ClientConnectorError) and problem.os_error.errno == errno.ECONNREFUSED:
        return f"dial tcp {problem.host}:{problem.port}: connect: connection refused"
    if isinstance(problem, TimeoutError):
        return "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    if isinstance(problem, aiohttp.ServerDisconnectedError):
        return "EOF"
    return str(problem)


class GraphApp:
    """The ASGI application of one graph; its HTTP session lives as long as the application."""

    def __init__(self, graph: Graph, patterns: str = "") -> None:
        self._graph = graph
        self._patterns = compile_patterns(patterns)
        self._session: aiohttp.ClientSession | None = None
        self._router: Router | None = None

    def replace(self, graph: Graph) -> None:
        """Execute another graph from the next request on; its time limit stays that of the first one."""
        self._graph = graph
        if self._session is not None:
            self._router = Router(graph, HttpCaller(self._session), self._patterns)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry point."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await _reply(send, await self._answer(scope, receive))

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        timeout = aiohttp.ClientTimeout(total=self._graph.timeout_s)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            self._session = session
            self.replace(self._graph)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self._session = self._router = None
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        if self._router is None:
            return Answer(503, b"shutting down\n")
        if scope["path"] == "/readyz":
            return Answer(200, b"")
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        return await self._router.handle(await _body(receive), headers)


async def _body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _reply(send: Send, answer: Answer) -> None:
    kind = b"application/json" if pygjson.validate(answer.body) else b"text/plain; charset=utf-8"
    headers = [(b"content-type", kind)] if answer.body else []
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def serve_graph(read: Callable[[], Graph], listener: socket.socket, patterns: str) -> None:
    """Serve what `read` gives until SIGINT or SIGTERM; SIGHUP reads again, or says why not and goes on."""
    app = GraphApp(read(), patterns)
    config = uvicorn.Config(app, http="httptools", lifespan="on", access_log=False, log_level="warning", timeout_keep_alive=180)

    async def run() -> None:
        renewed_by_hangup(app.replace, read)
        await uvicorn.Server(config).serve(sockets=[listener])

    uvloop.run(run())


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; the exit status is that of the error's kind, with one sentence on stderr."""
    options = _parser().parse_args(arguments)
    if options.command == "lint":
        return _lint(options.file)
    try:
        read = partial(_read, options)
        graph = read()
        listener = bind(options.listen)
    except PromoliftError as problem:
        print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
        return problem.exit_status
    host, port = listener.getsockname()[:2]
    print(f"graph {graph.name} listens on http://{host}:{port}", flush=True)
    serve_graph(read, listener, os.environ.get("PROPAGATE_HEADERS", ""))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.kserve.graph", description="Run an InferenceGraph locally.")
    commands = parser.add_subparsers(required=True, dest="command")
    check = commands.add_parser("lint", help="say what no cluster refuses and the router will not do as meant; exit status 1 for errors")
    check.add_argument("file", type=Path, metavar="FILE", help="an InferenceGraph of serving.kserve.io/v1alpha1")
    run = commands.add_parser("run", help="serve a graph file")
    run.add_argument("--graph", type=Path, required=True, metavar="FILE", help="an InferenceGraph of serving.kserve.io/v1alpha1")
    run.add_argument("--listen", required=True, metavar="HOST:PORT", help="where to listen; port 0 takes a free one")
    run.add_argument("--urls", type=Path, metavar="FILE", help="JSON object of further URLs by step, read anew with the graph")
    run.add_argument("--url", action="append", default=[], metavar="STEP=URL", help="URL of a step that is given by serviceName")
    return parser


def _read(options: argparse.Namespace) -> Graph:
    return read_graph(options.graph, _urls(options.url) | (_urls_of(options.urls) if options.urls else {}))


def _urls_of(file: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise InputError(f"The file of URLs {file} cannot be read ({problem}); write a JSON object of URLs by step.") from problem
    return found


def _lint(path: Path) -> int:
    try:
        findings = lint(path)
    except PromoliftError as problem:
        print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
        return problem.exit_status
    for finding in findings:
        print(f"{path}:{finding.line or 1}: {finding.level}: {finding.sentence}")
    errors = sum(finding.level == "error" for finding in findings)
    print(f"{errors} errors, {len(findings) - errors} warnings")
    return 1 if errors else 0


def _urls(pairs: Sequence[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise InputError(f"--url {pair!r} must have the form STEP=URL.")
    return dict(pair.split("=", 1) for pair in pairs)


if __name__ == "__main__":
    sys.exit(main())
