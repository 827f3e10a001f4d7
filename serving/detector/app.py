"""The detector's HTTP surface: events in, answers per version, metrics, a page."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import prometheus_client as prometheus
from jinja2 import Environment, FileSystemLoader
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from promolift.errors import UnavailableError
from serving.detector.events import EventError, read_events
from serving.detector.intake import EVENTS, Intake
from serving.detector.page import SHOWN_DAYS, page_of
from serving.detector.store import Store
from serving.detector.watch import Watch, Watched, tell
from serving.kserve.problem import RequestError

MOST_BYTES = 4_194_304
STATUS = {"too_large": 413, "dropped": 503}
"""HTTP status by the reason of a refusal; every other one is 400. The CloudEvents binding asks for no more than that."""


class Detector:
    """The handlers of every route."""

    def __init__(self, store: Store, intake: Intake, watch: Watch, known: Mapping[str, Watched | None]) -> None:
        """`known`: every version that was named; None for one without a reference."""
        self._store, self._intake, self._watch = store, intake, watch
        self._watched = {version: one for version, one in known.items() if one}
        self._unfitted = dict.fromkeys((version for version, one in known.items() if one is None), 0)
        self._pages = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)

    async def take(self, request: Request) -> Response:
        """POST /: one CloudEvent or a batch; 202 when everything was taken."""
        try:
            events = read_events(request.headers, await _body(request))
        except EventError as problem:
            return _refused(request, [problem])
        refused = []
        for event in events:
            try:
                if isinstance(event, EventError):
                    raise event
                self._intake.take(event)
            except EventError as problem:
                refused.append(problem)
        return _refused(request, refused) if refused else Response(status_code=202)

    async def versions(self, _: Request) -> Response:
        """GET /v1/versions."""
        fitted = [await self._answer(version) for version in sorted(self._watched)]
        others = [
            {"version": name, "status": "not fitted", "events": count}
            for name, count in sorted((await self._not_fitted()).items()) if name not in self._watched
        ]  # fmt: skip
        return JSONResponse({"versions": [*fitted, *others]})

    async def version(self, request: Request) -> Response:
        """GET /v1/versions/{version}."""
        version = request.path_params["version"]
        if version in self._watched:
            return JSONResponse(await self._answer(version))
        if version in await self._not_fitted():
            return JSONResponse({"version": version, "status": "not fitted"})
        raise RequestError(404, "Not found", f"No event named the version '{version}', and there is no reference of it.")

    async def looks(self, request: Request) -> Response:
        """GET /v1/versions/{version}/looks: every look, oldest first."""
        return JSONResponse({"looks": await self._store.looks(self._known(request))})

    async def look(self, request: Request) -> Response:
        """POST /v1/versions/{version}/looks: what is due, without waiting for the next round; a day is looked at once.

        `?through=YYYY-MM-DD` (with --moments): that day is over, and those before it.
        """
        version, through = self._known(request), request.query_params.get("through")
        made = await self._watch.look_at(version, None if through is None else _day(through))
        return JSONResponse({"looks": made})

    async def page(self, request: Request) -> Response:
        """GET /versions/{version}: the newest look for people."""
        version = self._known(request)
        days = await self._store.days(version)
        rows = [await self._store.rows(version, self._watched[version].reference.columns, day) for day in days[-SHOWN_DAYS:]]
        found = page_of(self._watched[version].reference, await self._answer(version), await self._store.looks(version), rows)
        return HTMLResponse(self._pages.get_template("page.html.j2").render(found))

    async def alive(self, _: Request) -> Response:
        """GET /healthz."""
        return JSONResponse({"live": True})

    async def metrics(self, _: Request) -> Response:
        """GET /metrics."""
        return Response(prometheus.generate_latest(), media_type="text/plain; version=0.0.4")

    async def _not_fitted(self) -> dict[str, int]:
        """Events by version without a reference."""
        return self._unfitted | await self._store.not_fitted()

    def _known(self, request: Request) -> str:
        version = str(request.path_params["version"])
        if version not in self._watched:
            raise RequestError(404, "Not found", f"The version '{version}' has no reference here.")
        return version

    async def _answer(self, version: str) -> dict[str, Any]:
        """`not looked yet` is no "no drift": nothing has been compared."""
        looks, days = await self._store.looks(version), await self._store.days(version)
        window = {"days": len(days), "rows": sum([await self._store.counted(version, day) for day in days])}
        newest = looks[-1] if looks else {"version": version, "status": "not looked yet"}
        return {**newest, "window": window}

    def routes(self) -> list[Route]:
        """Every route."""
        one = "/v1/versions/{version}"
        return [
            Route("/", self.take, methods=["POST"]), Route("/v1/versions", self.versions), Route(one, self.version),
            Route(f"{one}/looks", self.looks, methods=["GET"]), Route(f"{one}/looks", self.look, methods=["POST"]),
            Route("/versions/{version}", self.page), Route("/healthz", self.alive), Route("/metrics", self.metrics),
        ]  # fmt: skip

    def _work(self) -> tuple[Coroutine[Any, Any, None], ...]:
        return self._intake.write_forever(), self._intake.settle_forever(), self._watch.look_forever()

    @asynccontextmanager
    async def at_work(self, _: Starlette) -> AsyncIterator[None]:
        """Write and look while the server lives; what is queued at its end is written."""
        for version in self._watched:
            for document in (await self._store.looks(version))[-1:]:
                tell(document)
        tasks = [asyncio.create_task(work) for work in self._work()]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._intake.drain()


def application(detector: Detector) -> Starlette:
    """The ASGI application."""
    handlers: dict[Any, Any] = {RequestError: _problem, RedisError: _without_redis}
    return Starlette(routes=detector.routes(), lifespan=detector.at_work, exception_handlers=handlers)


def _problem(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, RequestError)  # noqa: S101 (Starlette calls it for nothing else)
    return JSONResponse(problem.document, problem.status, media_type="application/problem+json")


def _without_redis(request: Request, problem: Exception) -> Response:
    detail = f"Windows and looks are in Redis, which does not answer ({problem}); events are still taken."
    return _problem(request, RequestError(503, UnavailableError.title, detail))


def _refused(request: Request, problems: list[EventError]) -> Response:
    """Every refusal counted, the first one told."""
    for problem in problems:
        EVENTS.labels(problem.reason).inc()
    return _problem(request, RequestError(STATUS.get(problems[0].reason, 400), "The event was not taken", str(problems[0])))


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise EventError("too_large", f"The body is larger than {MOST_BYTES} bytes.")
        parts.append(part)
    return b"".join(parts)


def _day(text: str) -> int:
    try:
        return (date.fromisoformat(text) - date(1970, 1, 1)).days
    except ValueError as problem:
        raise RequestError(400, "The request is wrong", f"'{text}' is no day; write ?through=2026-11-29.") from problem
