"""Budget, caps and the decision log's outbox in one Redis: decide, commit, expire, each one Lua script.

Invariant: committed + reserved <= budget at every moment, whatever is retried, duplicated, concurrent or killed. A decision is
stored, its budget reserved and its log record appended in one script, so none of the three can exist without the others.
Reserved is the most that a promo can cost, so no redemption can overspend.

Clocks: caps count the request's own `moment` (business time, so that history can be replayed). The caller stamps when a
reservation ends; only Redis' clock judges whether it has ended, so a worker with a wrong clock cannot free another's reservation.
All keys carry one hash tag and live on one shard. Works on Redis 6.2 and later.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from promolift.errors import ConflictError, InputError, UnavailableError

DAY_S = 86_400
_MOST_ROUNDS = 16


@dataclass(frozen=True)
class Arm:
    """A promo that the ledger must be able to afford: most cents it can cost, and its caps per shopper (None: no cap)."""

    promo_id: str
    cents: int
    cap_per_day: int | None = None
    cap_per_week: int | None = None


@dataclass(frozen=True)
class Order:
    """Who asks: `fingerprint` is a hash of all parameters, `moment_s` the request's moment, `expires_ms` the reservation's end."""

    request_id: str
    reservation_id: str
    fingerprint: str
    shopper_id: str
    moment_s: int
    expires_ms: int


@dataclass(frozen=True)
class Proposal:
    """What to store if the ledger agrees: the arm, the decision's bytes (returned on a retry) and the record for the log."""

    promo_id: str
    decision: bytes
    record: bytes


@dataclass(frozen=True)
class Receipt:
    """The stored decision's bytes; `repeated` when an earlier call with the same request_id stored them."""

    decision: bytes
    repeated: bool


@dataclass(frozen=True)
class State:
    """Budget in cents: total, committed (spent) and reserved."""

    total: int
    committed: int
    reserved: int


class Ledger:
    """The ledger on a Redis client that returns bytes. `keep_s`: how long a finished request answers a retry."""

    def __init__(self, client: Any, namespace: str = "promolift", keep_s: int = 8 * DAY_S) -> None:
        self._client = client
        self._tag = f"{{{namespace}}}"
        self._keep_s = keep_s
        self._reserve, self._commit, self._expire = (
            client.register_script(files("promolift.policy").joinpath(f"{name}.lua").read_text("utf-8"))
            for name in ("reserve", "commit", "expire")
        )

    @property
    def stream(self) -> str:
        """The Redis stream that holds one record per decision until it is in the decision log."""
        return self._key("decisions")

    def set_budget_if_unset(self, cents: int) -> State:
        """Give the ledger its budget once; later calls change nothing."""
        self._client.hsetnx(self._key("budget"), "total", cents)
        return self.state()

    def state(self) -> State:
        """The budget now; zeros when none was set."""
        row = self._client.hmget(self._key("budget"), "total", "committed", "reserved")
        return State(*(int(value or 0) for value in row))

    def decide(self, order: Order, arms: Sequence[Arm], choose: Callable[[Mapping[str, str]], Proposal]) -> Receipt:
        """Store the decision of `choose(refused)`, where `refused` says which arms the ledger cannot give now ("budget", "cap").

        If budget or caps changed meanwhile nothing is written and `choose` is asked again with what holds, so a stored decision was
        drawn over exactly the arms that were affordable when it was stored. Raises ConflictError when the request_id was used with
        other parameters, UnavailableError when no budget was set or it changes faster than we can decide.
        """
        refused: dict[str, str] = {}
        for _ in range(_MOST_ROUNDS):
            proposal = choose(refused)
            answer = self._reserve(keys=self._reserve_keys(order, arms), args=self._reserve_args(order, arms, proposal, refused))
            if answer[0] == b"changed":
                refused = {arm.promo_id: why.decode() for arm, why in zip(arms, answer[1:], strict=True) if why}
            else:
                return _receipt(order, proposal, answer)
        raise UnavailableError(f"The budget changed {_MOST_ROUNDS} times while request '{order.request_id}' was decided; ask again.")

    def commit(self, reservation_id: str, cents: int) -> None:
        """Turn a reservation into `cents` spent; the rest returns to the budget. A repeat with the same cents changes nothing.

        Raises ConflictError for an unknown or expired reservation, for more cents than reserved, and for a second, different amount.
        """
        if cents < 0:
            raise InputError(f"Reservation '{reservation_id}' cannot be committed with {cents} cents; give 0 or more.")
        keys = [self._key("budget"), self._key("reservations"), self._key("reservation", reservation_id)]
        word, *detail = self._commit(keys=keys, args=[reservation_id, cents, self._keep_s])
        if word != b"committed":
            raise ConflictError(_commit_refusal(word.decode(), reservation_id, cents, *detail))

    def expire(self, now_ms: int = 0, most: int = 1000) -> tuple[int, int]:
        """Return due reservations to the budget: (count, cents). `now_ms` 0 asks Redis' clock; `most` bounds one script's time."""
        args = [now_ms, most, self._key("reservation", ""), self._keep_s]
        count, cents = self._expire(keys=[self._key("budget"), self._key("reservations")], args=args)
        return int(count), int(cents)

    def _key(self, *parts: str) -> str:
        return ":".join((self._tag, *parts))

    def _reserve_keys(self, order: Order, arms: Sequence[Arm]) -> list[str]:
        own = (("budget",), ("request", order.request_id), ("reservations",), ("reservation", order.reservation_id), ("decisions",))
        # JSON keeps apart ids that hold the separator.
        given = (("given", json.dumps([order.shopper_id, arm.promo_id])) for arm in arms)
        return [self._key(*parts) for parts in (*own, *given)]

    def _reserve_args(self, order: Order, arms: Sequence[Arm], proposal: Proposal, refused: Mapping[str, str]) -> list[Any]:
        args: list[Any] = [order.fingerprint, order.moment_s, order.expires_ms, self._keep_s]
        args += [proposal.promo_id, order.reservation_id, proposal.decision, proposal.record]
        for arm in arms:
            args += [arm.promo_id, arm.cents, _cap(arm.cap_per_day), _cap(arm.cap_per_week), refused.get(arm.promo_id, "")]
        return args


def _cap(cap: int | None) -> int:
    return -1 if cap is None else cap


def _receipt(order: Order, proposal: Proposal, answer: Sequence[bytes]) -> Receipt:
    word = answer[0].decode()
    if word == "conflict":
        raise ConflictError(f"Request id '{order.request_id}' was used before with other parameters; use a new id for a new request.")
    if word == "no_budget":
        raise UnavailableError("The ledger has no budget; set one before the first decision.")
    return Receipt(answer[1], True) if word == "stored" else Receipt(proposal.decision, False)


def _commit_refusal(word: str, reservation_id: str, cents: int, detail: bytes = b"") -> str:
    reasons = {
        "unknown": "is unknown",
        "expired": "has expired and its budget was returned",
        "over": f"holds {detail.decode()} cents, less than the {cents} to commit",
        "conflict": f"was committed before with {detail.decode()} cents, not {cents}",
    }
    return f"Reservation '{reservation_id}' {reasons[word]}; nothing was committed."
