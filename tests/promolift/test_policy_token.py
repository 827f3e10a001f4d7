"""Promo tokens: what a till accepts, and the reason for everything that it refuses."""

from dataclasses import replace
from typing import Any

import jwt
import pytest

from promolift.contracts.decisions import Decision, read_request
from promolift.errors import InputError
from promolift.policy.token import Keys, shopper_hash

OLD, NEW = "o" * 32, "n" * 32
REQUEST = read_request({"request_id": "r", "shopper_id": "s", "moment": "2030-01-01T00:00:00Z", "store_id": "7"})
DECISION = Decision(
    "d", "meat_20", "best_profit", "policy", {"meat_20": 1.0}, 5.0, 300, "res", "main", "2030-01-08T00:00:00+00:00", key_id="k1"
)
NOW = 1_893_456_000.0  # 2030-01-01


def token(**changes: Any) -> str:
    found = Keys({"k1": OLD}).sign(replace(DECISION, **changes), REQUEST)
    assert found is not None
    return found


def test_a_till_reads_promo_amount_and_end_and_the_same_decision_has_the_same_token():
    offer = Keys({"k1": OLD}).verify(token(), store_id="7", shopper_id="s", now_s=NOW)
    assert (offer.promo_id, offer.cents, offer.reservation_id, offer.store_id) == ("meat_20", 300, "res", "7")
    assert (offer.shopper_hash, offer.expires_at, offer.key_id) == (shopper_hash("s"), "2030-01-08T00:00:00+00:00", "k1")
    assert token() == token()
    assert Keys({"k1": OLD}).sign(replace(DECISION, reservation_id=None), REQUEST) is None


def test_keys_rotate():
    ring = Keys({"k2": NEW, "k1": OLD})
    assert ring.signing == "k2"
    assert ring.verify(token(), store_id="7", now_s=NOW).key_id == "k1"
    with pytest.raises(InputError, match=r"signed with key 'k1', which is not on the ring \(k2\)"):
        Keys({"k2": NEW}).verify(token(), store_id="7", now_s=NOW)


def tampered() -> str:
    head, body, end = token().split(".")
    other = token(reserved_cents=30_000).split(".")[1]
    return ".".join((head, other if other != body else body[::-1], end))


@pytest.mark.parametrize(
    ("shown", "store", "shopper", "now_s", "reason"),
    [
        (tampered(), "7", None, NOW, "was changed"),
        (jwt.encode({"iss": "promolift"}, OLD, headers={"kid": "k1"}), "7", None, NOW, "no promo token"),
        (jwt.encode({"iss": "promolift", "exp": 1, "jti": "x", "sub": "y"}, OLD, headers={"kid": "k1"}), "7", None, NOW, "claim 'promo'"),
        (jwt.encode({"iss": "promolift"}, None, algorithm="none", headers={"kid": "k1"}), "7", None, NOW, "no promo token"),
        ("no.token", "7", None, NOW, "no promo token"),
        ("", "7", None, NOW, "no promo token"),
        (token(), "7", None, NOW + 7 * 86_400, "expired at 2030-01-08"),
        (token(), "8", None, NOW, "for store '7', not for '8'"),
        (token(), "7", "t", NOW, "another shopper's"),
    ],
)
def test_a_refused_token_has_its_reason(shown: str, store: str, shopper: str | None, now_s: float, reason: str):
    with pytest.raises(InputError, match=reason):
        Keys({"k1": OLD}).verify(shown, store_id=store, shopper_id=shopper, now_s=now_s)


@pytest.mark.parametrize(("secrets", "words"), [({}, "no key to sign"), ({"k": "short"}, "'k' is shorter than 32")])
def test_a_ring_that_cannot_sign_is_refused(secrets: dict[str, str], words: str):
    with pytest.raises(InputError, match=words):
        Keys(secrets)
