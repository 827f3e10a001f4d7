"""Headers -> who calls and what they may do: API keys, of which only the hash is kept, or OAuth2 bearer tokens against a JWKS."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jwt

from serving.key_file import KeyFile, hash_of
from serving.kserve.problem import RequestError

Scope = Literal["decide", "redeem", "operate"]
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True)
class Principal:
    """Who calls, and what they may do."""

    name: str
    scopes: frozenset[str]

    def need(self, scope: Scope) -> None:
        """Raises RequestError 403 without the scope."""
        if scope not in self.scopes:
            raise RequestError(403, "The scope is missing", f"'{self.name}' may not {scope}; ask for a key with the scope '{scope}'.")


@dataclass(frozen=True)
class Issuer:
    """Who issues bearer tokens: where its keys are, and what `iss` and `aud` must say."""

    jwks_url: str
    issuer: str
    audience: str


class Authenticator:
    """Keys from a file, and at most one issuer of bearer tokens."""

    def __init__(self, keys_file: Path | None, issuer: Issuer | None) -> None:
        self._keys = keys_in(keys_file).read() if keys_file else {}
        self._issuer = issuer
        self._jwks = jwt.PyJWKClient(issuer.jwks_url, cache_keys=True, timeout=2) if issuer else None

    def principal(self, headers: Mapping[str, str]) -> Principal:
        """Who sent these headers (names in lower case). Raises RequestError 401; may ask the issuer for its keys, which takes time."""
        key, bearer = headers.get("x-api-key"), headers.get("authorization", "")
        if key is not None:
            found = self._keys.get(hash_of(key))
            if found is None:
                raise RequestError(401, "Not authenticated", "The API key is unknown; make one with `python -m serving.engine key`.")
            return Principal(found.name, found.grants)
        kind, _, token = bearer.partition(" ")
        if kind.lower() == "bearer" and self._jwks is not None and self._issuer is not None:
            return self._of_token(token.strip())
        raise RequestError(401, "Not authenticated", "Send an API key as X-API-Key, or a bearer token where the engine has an issuer.")

    def asks_issuer(self, headers: Mapping[str, str]) -> bool:
        """Whether `principal` may wait for the issuer."""
        return "x-api-key" not in headers and self._jwks is not None

    def _of_token(self, token: str) -> Principal:
        assert self._jwks is not None and self._issuer is not None  # noqa: S101 (principal has looked)
        try:
            key = self._jwks.get_signing_key_from_jwt(token)
            claims: dict[str, Any] = jwt.decode(
                token, key, algorithms=["RS256", "ES256"], issuer=self._issuer.issuer, audience=self._issuer.audience,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )  # fmt: skip
        except (jwt.PyJWTError, ValueError) as problem:
            raise RequestError(401, "Not authenticated", f"The bearer token is refused ({problem}).") from problem
        return Principal(str(claims["sub"]), frozenset(str(claims.get("scope", "")).split()))


def keys_in(path: Path) -> KeyFile:
    """The file of API keys at `path`."""
    return KeyFile(path, SCOPES, "Scope", "python -m serving.engine key")
