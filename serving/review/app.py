"""The reviewer's pages and their API: routes, sign-in, and the limits around them. Every act goes through `promolift.promotion.actions`."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from promolift.errors import InputError, PromoliftError
from promolift.promotion.actions import Review
from promolift.promotion.approval import Person
from promolift.promotion.stages import PATH, Stage
from serving.kserve.problem import RequestError
from serving.review.oidc import CALLBACK, STATE_S, OpenId
from serving.review.pages import Pages
from serving.review.people import People, Session, Sessions, need_form

COOKIE, TRIES = "review_session", 20
ACTS = ("approve", "refuse", "pause", "resume", "roll_back")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY", "Cache-Control": "no-store",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}  # fmt: skip


class ReviewApp:
    """The handlers. `carry_out(version)` is called after an act that a promotion has to follow; None: somebody else runs promotions."""

    def __init__(
        self, review: Review, pages: Pages, people: People, carry_out: Callable[[str], None] | None, *, secure: bool,
        provider: OpenId | None = None,
    ) -> None:  # fmt: skip
        self._review, self._pages, self._people, self._carry_out, self.secure = review, pages, people, carry_out, secure
        self._provider = provider
        self._sessions, self._limiter = Sessions(), FixedWindowRateLimiter(MemoryStorage())
        loader = PackageLoader("serving.review")
        self._templates = Environment(loader=loader, autoescape=select_autoescape(("j2",)), undefined=StrictUndefined, trim_blocks=True)

    async def home(self, request: Request) -> Response:
        """GET /: candidates, versions on their way, and the champion."""
        return self._page(request, "versions", self._pages.versions())

    async def version(self, request: Request) -> Response:
        """GET /versions/{version}: the dossier, the canary's guardrails, and what may be done."""
        return self._page(request, "version", self._pages.version(request.path_params["version"]))

    async def trail(self, request: Request) -> Response:
        """GET /trail: the audit trail, newest first."""
        return self._page(request, "trail", self._pages.trail(request.query_params.get("before", "")))

    async def lift(self, request: Request) -> Response:
        """GET /lift: what the promos bring, from holdout and randomised traffic."""
        return self._page(request, "lift", self._pages.lift())

    async def image(self, request: Request) -> Response:
        """GET /versions/{version}/{name}.png: a figure of the dossier."""
        self._session(request)
        return Response(self._pages.figure(request.path_params["version"], request.path_params["name"]), media_type="image/png")

    async def sign_in(self, request: Request) -> Response:
        """GET shows the form, POST signs in by a named token."""
        if request.method == "GET":
            return self._sign_in_page()
        await self._limit(f"sign-in {request.client.host if request.client else ''}")
        token = str((await request.form()).get("token", ""))
        try:
            identifier = self._sessions.begin(self._people.person(token))
        except RequestError as problem:
            return self._sign_in_page(problem)
        return self._signed_in(RedirectResponse("/", 303), identifier)

    async def to_provider(self, request: Request) -> Response:
        """GET /sign-in/oidc: to the OpenID provider."""
        await self._limit(f"sign-in {request.client.host if request.client else ''}")
        return await self._open_id().begin(request)

    async def from_provider(self, request: Request) -> Response:
        """GET /sign-in/oidc/callback: back from it.

        A browser follows a redirect from another site without our strict cookie, so a page of ours leads on.
        """
        try:
            identifier = self._sessions.begin(await self._open_id().person(request))
        except RequestError as problem:
            return self._sign_in_page(problem)
        return self._signed_in(HTMLResponse(self._render("signed_in", {"session": None, "wrong": ""})), identifier)

    def _open_id(self) -> OpenId:
        if self._provider is None:
            raise InputError("There is no OpenID provider here; sign in by token, or set PROMOLIFT_OIDC_ISSUER.")
        return self._provider

    def _sign_in_page(self, problem: RequestError | None = None) -> Response:
        found = {"session": None, "wrong": str(problem or ""), "provider": self._provider is not None}
        return HTMLResponse(self._render("sign_in", found), problem.status if problem else 200)

    def _signed_in(self, answer: Response, identifier: str) -> Response:
        answer.set_cookie(COOKIE, identifier, httponly=True, secure=self.secure, samesite="strict")
        return answer

    async def sign_out(self, request: Request) -> Response:
        """POST /sign-out."""
        session = self._session(request)
        need_form(session, str((await request.form()).get("csrf", "")))
        self._sessions.end(request.cookies.get(COOKIE, ""))
        return RedirectResponse("/sign-in", 303)

    async def act(self, request: Request) -> Response:
        """POST /versions/{version}/{act}: the form of the page."""
        session, form = self._session(request), await request.form()
        need_form(session, str(form.get("csrf", "")))
        given = {name: str(form.get(name, "")) for name in ("reason", "up_to", "evidence")}
        version = request.path_params["version"]
        try:
            await self._do(session.person, version, request.path_params["act"], given)
        except PromoliftError as problem:
            found = self._pages.version(version) | {"wrong": str(problem)}
            return HTMLResponse(self._render("version", found | {"session": session}), problem.http_status)
        return RedirectResponse(f"/versions/{version}", 303)

    async def api_versions(self, request: Request) -> Response:
        """GET /v1/versions."""
        self._bearer(request)
        return JSONResponse(_plain(self._pages.versions()))

    async def api_trail(self, request: Request) -> Response:
        """GET /v1/trail."""
        self._bearer(request)
        return JSONResponse(_plain(self._pages.trail(request.query_params.get("before", ""))))

    async def api_lift(self, request: Request) -> Response:
        """GET /v1/lift."""
        self._bearer(request)
        return JSONResponse(_plain(self._pages.lift()))

    async def api_act(self, request: Request) -> Response:
        """POST /v1/versions/{version}/{act}: {"reason", and for approve "up_to" and "evidence"}."""
        person = self._bearer(request)
        try:
            body = await request.json()
            given = {name: str(body.get(name, "")) for name in ("reason", "up_to", "evidence")}
        except (ValueError, AttributeError) as problem:
            raise InputError("The body must be a JSON object with a reason.") from problem
        entry = await self._do(person, request.path_params["version"], request.path_params["act"], given)
        return JSONResponse(_plain(asdict(entry)))

    async def alive(self, _: Request) -> Response:
        """GET /healthz."""
        return JSONResponse({"live": True})

    async def style(self, _: Request) -> Response:
        """GET /style.css."""
        return Response(Path(__file__).with_name("style.css").read_text(encoding="utf-8"), media_type="text/css")

    async def _do(self, person: Person, version: str, act: str, given: dict[str, str]) -> Any:
        await self._limit(f"act {person.name}")
        if act not in ACTS:
            raise InputError(f"There is no act '{act}'; there are {', '.join(ACTS)}.")
        if act == "approve":
            up_to = cast("Stage", given["up_to"] or PATH[-1])
            entry = self._review.approve(person, version, given["reason"], up_to, given["evidence"])
        else:
            entry = getattr(self._review, act)(person, version, given["reason"])
        if self._carry_out and act in ("approve", "resume", "roll_back"):
            self._carry_out(version)
        return entry

    async def _limit(self, who: str) -> None:
        if not await self._limiter.hit(RateLimitItemPerMinute(TRIES), who):
            raise RequestError(429, "Too many requests", f"More than {TRIES} a minute; wait a minute.")

    def _session(self, request: Request) -> Session:
        found = self._sessions.find(request.cookies.get(COOKIE, ""))
        if found is None:
            raise RequestError(401, "Not signed in", "Sign in first; a sign-in ends after a while.")
        return found

    def _bearer(self, request: Request) -> Person:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            raise RequestError(401, "Not signed in", "Send your token as Authorization: Bearer TOKEN.")
        return self._people.person(token.strip())

    def _page(self, request: Request, name: str, found: dict[str, Any]) -> Response:
        try:
            session = self._session(request)
        except RequestError:
            return RedirectResponse("/sign-in", 303)
        return HTMLResponse(self._render(name, {"wrong": ""} | found | {"session": session}))

    def _render(self, name: str, found: dict[str, Any]) -> str:
        return self._templates.get_template(f"{name}.html.j2").render(**found)


def application(app: ReviewApp) -> Starlette:
    """The ASGI application."""
    act = ["POST"]
    routes = [
        Route("/", app.home), Route("/trail", app.trail), Route("/lift", app.lift),
        Route("/style.css", app.style), Route("/healthz", app.alive),
        Route("/sign-in", app.sign_in, methods=["GET", "POST"]),
        Route("/sign-in/oidc", app.to_provider), Route(CALLBACK, app.from_provider), Route("/sign-out", app.sign_out, methods=act),
        Route("/versions/{version}", app.version), Route("/versions/{version}/{name}.png", app.image),
        Route("/versions/{version}/{act}", app.act, methods=act),
        Route("/v1/versions", app.api_versions), Route("/v1/trail", app.api_trail), Route("/v1/lift", app.api_lift),
        Route("/v1/versions/{version}/{act}", app.api_act, methods=act),
    ]  # fmt: skip
    handlers: Any = {RequestError: _problem, PromoliftError: _problem}
    # Holds what the provider must send back, for as long as a sign-in takes; lax, since the browser comes back from another site.
    pending = Middleware(
        SessionMiddleware, secret_key=secrets.token_urlsafe(32), session_cookie="review_sign_in", max_age=STATE_S, same_site="lax",
        https_only=app.secure,
    )  # fmt: skip
    return Starlette(routes=routes, exception_handlers=handlers, middleware=[Middleware(BaseHTTPMiddleware, dispatch=_secured), pending])


async def _secured(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
    answer = await call(request)
    for name, value in HEADERS.items():
        answer.headers.setdefault(name, value)
    return answer


async def _problem(_: Request, problem: Exception) -> Response:
    if isinstance(problem, RequestError):
        return JSONResponse(problem.document, problem.status, media_type="application/problem+json")
    ours = cast("PromoliftError", problem)
    document = {"type": "about:blank", "title": ours.title, "status": ours.http_status, "detail": str(ours)}
    return JSONResponse(document, ours.http_status, media_type="application/problem+json")


def _plain(value: Any) -> Any:
    """The value with moments as text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return _plain(asdict(value))
    return value.isoformat() if hasattr(value, "isoformat") else value
