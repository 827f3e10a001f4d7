"""Decision -> a signed promo token that a till verifies offline: which promo, how much at most, for whom, where, until when.

A JSON Web Token (RFC 7519) with HMAC-SHA256 and a key id, so that keys can be rotated: sign with the first key of the ring, verify
with any. The same decision and key give the same token.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import jwt

from promolift.contracts.decisions import Decision, Request
from promolift.errors import InputError

ISSUER = "promolift"
LEAST_KEY_BYTES = 32


@dataclass(frozen=True)
class Offer:
    """What a token says: `cents` is the most that it pays; `store_id` "" is any store; `expires_at` ISO 8601 UTC."""

    reservation_id: str
    promo_id: str
    cents: int
    shopper_hash: str
    store_id: str
    expires_at: str
    key_id: str


class Keys:
    """A ring of secrets by key id; the first one signs. Raises InputError for an empty ring or a short secret."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        if not secrets:
            raise InputError("There is no key to sign tokens with; give one as PROMOLIFT_TOKEN_KEYS={'k1': '<32 bytes or more>'}.")
        short = [key_id for key_id, secret in secrets.items() if len(secret.encode()) < LEAST_KEY_BYTES]
        if short:
            raise InputError(f"Token key '{short[0]}' is shorter than {LEAST_KEY_BYTES} bytes; make a longer one.")
        # As JSON Web Keys, since PyJWT looks a plain secret over at every use.
        self._secrets = {key_id: _key(secret) for key_id, secret in secrets.items()}
        self._heads = {key_id: (_head(key_id), secret.encode()) for key_id, secret in secrets.items()}

    @property
    def signing(self) -> str:
        """The id of the key that signs."""
        return next(iter(self._secrets))

    def sign(self, decision: Decision, request: Request) -> str | None:
        """The token of a decision that gives a promo; None for one that gives none."""
        if decision.reservation_id is None or decision.expires_at is None or decision.key_id not in self._secrets:
            return None
        claims = {
            "iss": ISSUER, "jti": decision.reservation_id, "promo": decision.promo_id, "cents": decision.reserved_cents,
            "sub": shopper_hash(request.shopper_id), "store": request.store_id,
            "exp": int(datetime.fromisoformat(decision.expires_at).timestamp()),
        }  # fmt: skip
        # RFC 7515's compact form, verified by PyJWT below, whose own signer looks header, key and claims over for every token.
        head, secret = self._heads[decision.key_id]
        signed = head + b"." + _base64(json.dumps(claims, separators=(",", ":")).encode())
        return (signed + b"." + _base64(hmac.digest(secret, signed, "sha256"))).decode()

    def verify(self, token: str, *, store_id: str = "", shopper_id: str | None = None, now_s: float | None = None) -> Offer:
        """What the token says, checked by the till of `store_id` for whoever shows it; `now_s` replaces the clock.

        Raises InputError with the reason: no token of ours, unknown key, changed, expired, another store's or another shopper's.
        """
        try:
            key_id = str(jwt.get_unverified_header(token).get("kid"))
            if key_id not in self._secrets:
                raise InputError(f"The token is signed with key '{key_id}', which is not on the ring ({', '.join(self._secrets)}).")
            options = {"require": ["exp", "jti", "sub", "iss"], "verify_exp": False}
            claims = jwt.decode(token, self._secrets[key_id], algorithms=["HS256"], issuer=ISSUER, options=options)  # type: ignore[arg-type]
        except jwt.InvalidSignatureError as problem:
            raise InputError("The token was changed: its signature does not fit.") from problem
        except (jwt.InvalidTokenError, ValueError) as problem:
            raise InputError(f"This is no promo token ({problem}).") from problem
        offer = _offer(claims, key_id)
        _check(offer, float(claims["exp"]), store_id, shopper_id, now_s)
        return offer


def _key(secret: str) -> jwt.PyJWK:
    return jwt.PyJWK({"kty": "oct", "k": _base64(secret.encode()).decode(), "alg": "HS256"})


def _head(key_id: str) -> bytes:
    return _base64(json.dumps({"alg": "HS256", "typ": "JWT", "kid": key_id}, separators=(",", ":")).encode())


def _base64(text: bytes) -> bytes:
    return base64.urlsafe_b64encode(text).rstrip(b"=")


def shopper_hash(shopper_id: str) -> str:
    """How a token names a shopper without saying who it is."""
    return hashlib.sha256(f"shopper:{shopper_id}".encode()).hexdigest()[:32]


def _offer(claims: Mapping[str, object], key_id: str) -> Offer:
    try:
        expires = datetime.fromtimestamp(int(str(claims["exp"])), UTC).isoformat()
        return Offer(
            str(claims["jti"]), str(claims["promo"]), int(str(claims["cents"])), str(claims["sub"]), str(claims["store"]), expires, key_id
        )  # fmt: skip
    except (KeyError, ValueError, OverflowError) as problem:
        raise InputError(f"This is no promo token: its claim {problem} is missing or wrong.") from problem


def _check(offer: Offer, expires_s: float, store_id: str, shopper_id: str | None, now_s: float | None) -> None:
    now = datetime.now(UTC).timestamp() if now_s is None else now_s
    if now >= expires_s:
        raise InputError(f"The token expired at {offer.expires_at}.")
    if offer.store_id and store_id != offer.store_id:
        raise InputError(f"The token is for store '{offer.store_id}', not for '{store_id}'.")
    if shopper_id is not None and shopper_hash(shopper_id) != offer.shopper_hash:
        raise InputError("The token is another shopper's.")
