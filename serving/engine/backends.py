"""A request with its deadline -> a decided envelope, from the graph over HTTP or from the four boxes in this process."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any, Protocol

import aiohttp

from promolift.contracts.decisions import Envelope, Request, dump_bytes, read_bytes
from serving.kserve.fused import FusedGraph
from serving.kserve.problem import RequestError
from serving.traces import headers

AGAIN_S = 0.01
"""Before a graph that failed is asked once more."""
RENEWED_S = 5.0
"""How long connections to the graph are used. Kubernetes balances connections, not requests: a router on its way out goes on answering on
those that it has, for half a minute, and a new one gets none."""


class Backend(Protocol):
    """Where decisions come from."""

    async def decide(self, request: Request, received_at: str, left_s: float) -> Envelope:
        """The decided envelope. Raises TimeoutError after `left_s`, OSError when it cannot be had, RequestError for a refused request."""
        ...

    async def ready(self) -> bool:
        """Whether it can decide."""
        ...

    async def close(self) -> None:
        """Finish what is in flight and let go."""
        ...


class FusedBackend:
    """Decides on worker threads, each with boxes of its own: a model's interpreter serves one thread, and Redis may make one wait."""

    def __init__(self, make: Callable[[], FusedGraph], threads: int) -> None:
        self._threads = threads
        self._free: SimpleQueue[FusedGraph] = SimpleQueue()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decide")
        self._generation: frozenset[int] = frozenset()
        self.replace(make)

    def replace(self, make: Callable[[], FusedGraph]) -> None:
        """Decide with new boxes from now on; those at work end their decision first. Raises what cannot be made, and changes nothing."""
        graphs = [make() for _ in range(self._threads)]
        self._generation = frozenset(map(id, graphs))
        for graph in graphs:
            self._free.put(graph)

    async def decide(self, request: Request, received_at: str, left_s: float) -> Envelope:
        """See Backend."""
        # What is late goes on in its thread: the ledger may be storing it, and the relay settles what was answered instead.
        work = asyncio.get_running_loop().run_in_executor(self._pool, self._run, request, received_at)
        return await asyncio.wait_for(asyncio.shield(work), left_s)

    async def ready(self) -> bool:
        """See Backend."""
        return True

    async def close(self) -> None:
        """See Backend."""
        await asyncio.to_thread(self._pool.shutdown)

    def _run(self, request: Request, received_at: str) -> Envelope:
        graph = self._free.get()
        while id(graph) not in self._generation:  # replaced: it is dropped, and there are as many new ones
            graph = self._free.get()
        try:
            return graph(request, received_at)
        finally:
            self._free.put(graph)


class GraphBackend:
    """Decides through an InferenceGraph, whose router turns any transport failure into a 500.

    What failed is asked once more while there is time: a pod that is replaced refuses a connection or two before its Service forgets it
    (neither KServe's router nor kube-proxy asks again), and a request id that was decided after all gets its decision.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._line: _Line | None = None

    async def decide(self, request: Request, received_at: str, left_s: float) -> Envelope:
        """See Backend."""
        until = time.perf_counter() + left_s
        try:
            return await self._asked(request, received_at, left_s)
        except TimeoutError:
            raise
        except OSError:
            left_s = until - time.perf_counter() - AGAIN_S
            if left_s <= 0:
                raise
        await asyncio.sleep(AGAIN_S)
        return await self._asked(request, received_at, left_s)

    async def _asked(self, request: Request, received_at: str, left_s: float) -> Envelope:
        """One call; the graph is told how much of the deadline is left."""
        body = dump_bytes(replace(request, deadline_ms=max(1, int(left_s * 1000))))
        timeout = aiohttp.ClientTimeout(total=left_s)
        try:
            async with self._connected() as session, session.post(self._url, data=body, headers=headers(), timeout=timeout) as answer:
                content = await answer.read()
        except aiohttp.ClientError as problem:
            raise OSError(str(problem)) from problem
        if answer.status in (400, 409):
            raise _refused(answer.status, content)
        if answer.status != 200:
            raise OSError(f"the graph answered {answer.status}: {content[:200].decode(errors='replace')}")
        try:
            return replace(read_bytes(Envelope, content), request=request, received_at=received_at)
        except ValueError as problem:
            raise OSError(f"the graph's answer is no envelope: {content[:200].decode(errors='replace')}") from problem

    async def ready(self) -> bool:
        """See Backend."""
        try:
            async with self._connected() as session, session.get(f"{self._url}/readyz", timeout=aiohttp.ClientTimeout(total=1)) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def close(self) -> None:
        """See Backend."""
        if self._line is not None:
            await self._line.session.close()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Connections for one call. Those that are too old are closed once nobody waits for an answer on them."""
        line, now = self._line, time.monotonic()
        if line is None or now > line.until:
            former, line = line, _Line(_session(), now + RENEWED_S)
            self._line = line
            if former is not None and not former.calls:
                await former.session.close()
        line.calls += 1
        try:
            yield line.session
        finally:
            line.calls -= 1
            if not line.calls and line is not self._line:
                await line.session.close()


@dataclass
class _Line:
    """Connections that are used until a moment of the monotonic clock, and how many calls use them now."""

    session: aiohttp.ClientSession
    until: float
    calls: int = 0


def _session() -> aiohttp.ClientSession:
    always = {"Content-Type": "application/json"}
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), headers=always)


def _refused(status: int, content: bytes) -> Exception:
    """What a box said of the request, passed on."""
    try:
        document: dict[str, Any] = json.loads(content)
        return RequestError(status, str(document["title"]), str(document["detail"]), document.get("errors"))
    except (ValueError, KeyError, TypeError):
        return OSError(f"the graph answered {status}: {content[:200].decode(errors='replace')}")


def now_iso() -> str:
    """The present moment, ISO 8601 UTC."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat()
