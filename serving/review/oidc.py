"""Sign-in by OpenID Connect: the code flow with PKCE and a nonce; who somebody is and what he may do is what the provider's claims say.

Authlib checks state, nonce, issuer, audience, times and the signature by the provider's published keys. A person without any of our roles
is told so and has no session.
"""

import secrets
from typing import Any

from authlib.integrations.starlette_client import OAuth, OAuthError
from httpx2 import HTTPError, InvalidURL
from joserfc.errors import JoseError
from starlette.requests import Request
from starlette.responses import Response

from promolift.errors import UnavailableError
from promolift.promotion.approval import ROLES, Person
from promolift.settings import Settings
from serving.kserve.problem import RequestError

CALLBACK = "/sign-in/oidc/callback"
UNSOUND = (OAuthError, JoseError, HTTPError, InvalidURL, ValueError, KeyError)
"""What Authlib raises for a provider that refuses, does not answer, answers nonsense, or signs with a key that is not its own."""
STATE_S = 600
"""How long somebody may take at the provider."""


class OpenId:
    """One provider. `secure`: we are reached by HTTPS only, whatever the proxy before us says."""

    def __init__(self, settings: Settings, *, secure: bool) -> None:
        self._name, self._roles, self._secure = settings.oidc_name_claim, settings.oidc_roles_claim, secure
        self._client = OAuth().register(
            "provider", client_id=settings.oidc_client_id, client_secret=settings.oidc_client_secret.get_secret_value(),
            server_metadata_url=f"{settings.oidc_issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={"scope": "openid profile email", "code_challenge_method": "S256"},
        )  # fmt: skip

    async def begin(self, request: Request) -> Response:
        """Send the browser to the provider. Raises UnavailableError where it does not answer."""
        back = str(request.base_url.replace(scheme="https") if self._secure else request.base_url).rstrip("/") + CALLBACK
        try:
            answer: Response = await self._client.authorize_redirect(request, back, nonce=secrets.token_urlsafe(16))
        except UNSOUND as problem:
            raise UnavailableError(f"The OpenID provider does not answer ({problem}); sign in by token, or try again.") from problem
        return answer

    async def person(self, request: Request) -> Person:
        """Who came back from the provider. Raises RequestError 401 for a sign-in that is not sound, 403 for a person without a role."""
        try:
            token: dict[str, Any] = await self._client.authorize_access_token(request)
        except UNSOUND as problem:
            raise RequestError(401, "Not signed in", f"The sign-in failed ({problem}); begin it again.") from problem
        claims = token.get("userinfo") or {}
        name, given = claims.get(self._name), claims.get(self._roles, ())
        if not isinstance(name, str) or not name:
            raise RequestError(403, "Nobody", f"The provider did not say '{self._name}'; PROMOLIFT_OIDC_NAME_CLAIM names the claim.")
        roles = frozenset(role for role in (given if isinstance(given, list) else str(given).split()) if role in ROLES)
        if not roles:
            raise RequestError(403, "No role", f"{name} has none of the roles {', '.join(ROLES)} in the claim '{self._roles}'.")
        return Person(name, roles)


def open_id(settings: Settings, *, secure: bool) -> OpenId | None:
    """The provider of the settings; None where none is named."""
    return OpenId(settings, secure=secure) if settings.oidc_issuer else None
