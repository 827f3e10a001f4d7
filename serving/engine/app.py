"""The engine's HTTP surface: routes, limits and problem documents around the door and the ledger."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from pydantic import ValidationError
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from promolift.contracts import engine as api
from promolift.contracts.decisions import Request, adapter
from promolift.errors import PromoliftError
from serving.engine.auth import Authenticator, Principal, Scope
from serving.engine.door import Door
from serving.engine.metrics import Metrics
from serving.engine.openapi import document
from serving.engine.operations import Operations
from serving.kserve.problem import RequestError, of_validation
from serving.traces import span


@dataclass(frozen=True)
class Limits:
    """Of one principal a second, and of one body."""

    requests_per_s: int
    body_bytes: int


class Engine:
    """The handlers of every route."""

    def __init__(self, door: Door, operations: Operations, authenticator: Authenticator, limits: Limits, metrics: Metrics) -> None:
        self._door, self._operations, self._authenticator, self._limits, self._metrics = door, operations, authenticator, limits, metrics
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._rate = RateLimitItemPerSecond(limits.requests_per_s)

    async def decide(self, request: HttpRequest) -> Response:
        """POST /v1/decisions."""
        with span("engine", request.headers.get("traceparent", "")):
            await self._principal(request, "decide")
            answer = await self._door.decide(await self._read(request, Request))
        self._metrics.saw(answer)
        return _json(answer)

    async def decide_all(self, request: HttpRequest) -> Response:
        """POST /v1/decisions/batch."""
        await self._principal(request, "decide")
        batch: api.Batch = await self._read(request, api.Batch)
        answers = await self._door.decide_all(batch.requests)
        results = [self._result(asked.request_id, answer) for asked, answer in zip(batch.requests, answers, strict=True)]
        return _json(api.Results(tuple(results)))

    async def explain(self, request: HttpRequest) -> Response:
        """GET /v1/decisions/{decision_id}."""
        await self._principal(request, "operate")
        return _json(await asyncio.to_thread(self._operations.explain, request.path_params["decision_id"]))

    async def redeem(self, request: HttpRequest) -> Response:
        """POST /v1/redemptions."""
        principal = await self._principal(request, "redeem")
        redemption = await self._read(request, api.Redemption)
        return _json(await asyncio.to_thread(self._operations.redeem, redemption, principal.name))

    async def budgets(self, request: HttpRequest) -> Response:
        """GET /v1/budgets."""
        await self._principal(request, "operate")
        found = await asyncio.to_thread(self._operations.budgets)
        return JSONResponse({"budgets": [adapter(api.BudgetState).dump_python(budget, mode="json") for budget in found]})

    async def set_budget(self, request: HttpRequest) -> Response:
        """PUT /v1/budgets/{name}."""
        principal = await self._principal(request, "operate")
        change = await self._read(request, api.BudgetChange)
        return _json(await asyncio.to_thread(self._operations.set_budget, request.path_params["name"], change, principal.name))

    async def alive(self, _: HttpRequest) -> Response:
        """GET /healthz."""
        return JSONResponse({"live": True})

    async def ready(self, _: HttpRequest) -> Response:
        """GET /readyz: 503 while a dependency is missing; decisions are answered all the same."""
        parts = {"graph": await self._door.ready(), "redis": await asyncio.to_thread(self._operations.reachable)}
        return JSONResponse({"ready": all(parts.values()), **parts}, 200 if all(parts.values()) else 503)

    async def metrics(self, _: HttpRequest) -> Response:
        """GET /metrics."""
        return Response(await asyncio.to_thread(self._metrics.text), media_type="text/plain; version=0.0.4")

    async def openapi(self, _: HttpRequest) -> Response:
        """GET /openapi.json."""
        return JSONResponse(document())

    async def _principal(self, request: HttpRequest, scope: Scope) -> Principal:
        headers = request.headers
        if self._authenticator.asks_issuer(headers):
            principal = await asyncio.to_thread(self._authenticator.principal, headers)
        else:
            principal = self._authenticator.principal(headers)
        principal.need(scope)
        if not await self._limiter.hit(self._rate, principal.name):
            raise RequestError(429, "Too many requests", f"'{principal.name}' may ask {self._rate.amount} times a second; ask more slowly.")
        return principal

    async def _read(self, request: HttpRequest, kind: type[Any]) -> Any:
        """The body as a contract. Raises RequestError 413 or 400."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self._limits.body_bytes:
                raise RequestError(
                    413, "The body is too large", f"The body is larger than {self._limits.body_bytes} bytes; send less at a time."
                )
        try:
            return adapter(kind).validate_json(bytes(body))
        except ValidationError as problem:
            raise of_validation(problem) from problem

    def _result(self, request_id: str, answer: api.Answer | BaseException) -> api.Result:
        if isinstance(answer, api.Answer):
            self._metrics.saw(answer)
            return api.Result(request_id, answer)
        return api.Result(request_id, problem=api.Problem(**_document(answer)))


def application(engine: Engine, close: Callable[[], Awaitable[None]]) -> Starlette:
    """The ASGI application; `close` runs when it stops, with no request in flight."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await close()

    routes = [
        Route("/v1/decisions", engine.decide, methods=["POST"]),
        Route("/v1/decisions/batch", engine.decide_all, methods=["POST"]),
        Route("/v1/decisions/{decision_id}", engine.explain, methods=["GET"]),
        Route("/v1/redemptions", engine.redeem, methods=["POST"]),
        Route("/v1/budgets", engine.budgets, methods=["GET"]),
        Route("/v1/budgets/{name}", engine.set_budget, methods=["PUT"]),
        Route("/healthz", engine.alive),
        Route("/readyz", engine.ready),
        Route("/metrics", engine.metrics),
        Route("/openapi.json", engine.openapi),
    ]
    handlers = {kind: problem_of for kind in (RequestError, PromoliftError, RedisError, Exception)}
    return Starlette(routes=routes, exception_handlers={**handlers, 404: _missing, 405: _missing}, lifespan=lifespan)


async def problem_of(_: HttpRequest, problem: Exception) -> Response:
    """The problem document of an error; nothing of its inside for one that was not meant."""
    body = _document(problem)
    headers = {"Retry-After": "1"} if body["status"] in (429, 503) else {}
    return JSONResponse(body, body["status"], media_type="application/problem+json", headers=headers)


async def _missing(request: HttpRequest, problem: Any) -> Response:
    status = problem.status_code
    detail = f"There is no {request.method} {request.url.path}; /openapi.json lists what there is."
    return JSONResponse(
        _body(status, "Not found" if status == 404 else "Method not allowed", detail), status, media_type="application/problem+json"
    )


def _document(problem: BaseException) -> dict[str, Any]:
    if isinstance(problem, RequestError):
        return problem.document
    if isinstance(problem, PromoliftError):
        return _body(problem.http_status, problem.title, str(problem))
    if isinstance(problem, RedisError):
        return _body(503, "Something that the answer needs cannot be had", "The ledger does not answer; nothing was changed. Try again.")
    return _body(500, "The server failed", "The request was not carried out; the server's log says why.")


def _body(status: int, title: str, detail: str) -> dict[str, Any]:
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, "errors": []}


def _json(value: Any) -> Response:
    return Response(adapter(type(value)).dump_json(value), media_type="application/json")
