"""Budgets, caps and the decision log's outbox in one Redis: decide, commit, release, expire, each one Lua script.

Invariant: committed + reserved <= budget at every moment, whatever is retried, duplicated, concurrent or killed. A decision is
stored, its budget reserved and its log record appended in one script, so none of the three can exist without the others; what becomes
of a reservation and of a budget is appended to the same stream. Reserved is the most that a promo can cost, so no redemption can overspend.

Clocks: caps count the request's own `moment` (business time, so that history can be replayed). The caller stamps when a
reservation ends; only Redis' clock judges whether it has ended, so a worker with a wrong clock cannot free another's reservation.
All keys carry one hash tag and live on one shard. Works on Redis 6.2 and later.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from promolift.errors import ConflictError, InputError, UnavailableError
from promolift.policy.constraints import Standing
from promolift.policy.ledger_arms import NEVER, Arm, Packed, capped, packed

DAY_S = 86_400
REFUSALS = {
    "b": "budget", "d": "cap_per_day", "w": "cap_per_week", "D": "shopper_cap_per_day", "W": "shopper_cap_per_week", "c": "cool_down",
    "x": "excluded",
}  # fmt: skip
"""Why an arm cannot be given, by the letter that the script answers."""
SCRIPTS = ("reserve", "commit", "release", "expire", "settle", "budget")
_MOST_ROUNDS = 16


@dataclass(frozen=True)
class Order:
    """Who asks: `fingerprint` is a hash of all parameters, `moment_s` the request's moment, `expires_ms` the reservation's end.

    `cap_per_day`, `cap_per_week`: over all promos together.
    """

    request_id: str
    reservation_id: str
    fingerprint: str
    shopper_id: str
    moment_s: int
    expires_ms: int
    cap_per_day: int | None = None
    cap_per_week: int | None = None


@dataclass(frozen=True)
class Proposal:
    """What to store if the ledger agrees: the arm, the decision's bytes (returned on a retry), the record, and the arm's expected cost."""

    promo_id: str
    decision: bytes
    record: bytes
    cost: float = 0.0


@dataclass(frozen=True)
class Receipt:
    """The stored decision's bytes; `repeated` when an earlier call with the same request_id stored them."""

    decision: bytes
    repeated: bool


@dataclass(frozen=True)
class Budget:
    """A budget in cents: total, committed (spent) and reserved; `price`: lambda, `rate`: cents of cost a decision (0: not paced)."""

    total: int
    committed: int
    reserved: int
    price: float = 0.0
    rate: float = 0.0

    @property
    def headroom(self) -> int:
        """Cents that are neither spent nor reserved."""
        return self.total - self.committed - self.reserved


@dataclass(frozen=True)
class Change:
    """Who changes a budget and why, for the audit."""

    actor: str
    reason: str


class Ledger:
    """The ledger on a Redis client that returns bytes. `keep_s`: how long a finished request answers a retry.

    `call` sends one command in the client's place; a connection of one's own is faster than the client's pool.
    """

    def __init__(
        self, client: Any, namespace: str = "promolift", keep_s: int = 8 * DAY_S, call: Callable[..., Any] | None = None
    ) -> None:  # fmt: skip
        self.client = client
        self._call = call or client.execute_command
        self._tag = f"{{{namespace}}}"
        self._keep_s = keep_s
        self._prices: dict[str, float] = {}
        texts = {name: files("promolift.policy").joinpath(f"{name}.lua").read_bytes() for name in ("shared", *SCRIPTS)}
        self._scripts = {name: texts["shared"] + texts[name] for name in SCRIPTS}
        self._digests = {name: hashlib.sha1(text).hexdigest() for name, text in self._scripts.items()}  # noqa: S324 (Redis' own name for it)

    @property
    def stream(self) -> str:
        """The Redis stream that holds what is not yet in the log: a record a decision, an event a change."""
        return self.key("outbox")

    def key(self, *parts: str) -> str:
        """The Redis key of something of this ledger."""
        return ":".join((self._tag, *parts))

    def set_budget(self, name: str, cents: int, change: Change, *, rate: float = 0.0, step: float = 0.0, price: float = 0.0) -> Budget:
        """Give a budget its total and its pace: `rate` cents of expected cost a decision, `step` of lambda, which begins at `price`.

        Raises ConflictError for a total below what is spent and reserved.
        """
        return self._budget(name, cents, (rate, step, price), change, only_new=False)

    def set_budget_if_unset(self, cents: int, name: str = "main", *, rate: float = 0.0, step: float = 0.0, price: float = 0.0) -> Budget:
        """The same once; later calls change nothing."""
        return self._budget(name, cents, (rate, step, price), Change("start", "first start"), only_new=True)

    def budget(self, name: str = "main") -> Budget:
        """The budget now; zeros when none was set."""
        row = self.client.hmget(self.key("budget", name), "total", "committed", "reserved", "lambda", "rate")
        return Budget(*(int(value or 0) for value in row[:3]), *(float(value or 0) for value in row[3:]))

    def budgets(self) -> dict[str, Budget]:
        """Every budget by name."""
        return {name: self.budget(name) for name in sorted(name.decode() for name in self.client.smembers(self.key("budgets")))}

    def decide(self, order: Order, arms: Sequence[Arm], choose: Callable[[Standing], Proposal]) -> Receipt:
        """Store the decision of `choose(standing)`: which arms the ledger cannot give now and why, and lambda by budget.

        If budget or caps changed meanwhile nothing is written and `choose` is asked again with what holds, so a stored decision was
        drawn over exactly the arms that could be given when it was stored. Raises ConflictError when the request_id was used with
        other parameters, UnavailableError when a budget was never set or changes faster than we can decide.
        """
        table = packed(tuple(arms))
        names, keys, letters = table.budgets, self._reserve_keys(order, table.budgets), "-" * len(arms)
        for _ in range(_MOST_ROUNDS):
            proposal = choose(self._standing(arms, letters, names))
            word, *rest = self._run("reserve", keys, self._reserve_args(order, table, letters, proposal))
            if word in (b"changed", b"done"):
                letters = rest[0].decode()
                self._prices.update({name: float(price) for name, price in zip(names, rest[1:], strict=True) if price})
            if word != b"changed":
                return _receipt(order, proposal, word, rest, names)
        raise UnavailableError(f"The budget changed {_MOST_ROUNDS} times while request '{order.request_id}' was decided; ask again.")

    def commit(self, reservation_id: str, cents: int, actor: str = "till") -> None:
        """Turn a reservation into `cents` spent; the rest returns to the budget. A repeat with the same cents changes nothing.

        Raises ConflictError for an unknown, expired or released reservation, for more cents than reserved, and for a second, different
        amount.
        """
        if cents < 0:
            raise InputError(f"Reservation '{reservation_id}' cannot be committed with {cents} cents; give 0 or more.")
        keys = [self.key("reservations"), self.key("reservation", reservation_id), self.stream]
        word, *detail = self._run("commit", keys, [reservation_id, cents, self._keep_s, actor])
        if word != b"committed":
            raise ConflictError(_refusal(word.decode(), reservation_id, f"the {cents} to commit", *detail))

    def release(self, reservation_id: str, change: Change) -> int:
        """Return a reservation to its budget before its time; the cents returned. A repeat changes nothing.

        Raises ConflictError when it is unknown, expired or committed.
        """
        keys = [self.key("reservations"), self.key("reservation", reservation_id), self.stream]
        word, *detail = self._run("release", keys, [reservation_id, self._keep_s, change.actor, change.reason])
        if word != b"released":
            raise ConflictError(_refusal(word.decode(), reservation_id, "a release", *detail))
        return int(detail[0])

    def expire(self, now_ms: int = 0, most: int = 1000) -> tuple[int, int]:
        """Return due reservations to their budgets: (count, cents). `now_ms` 0 asks Redis' clock; `most` bounds one script's time."""
        args = [now_ms, most, self.key("reservation", ""), self._keep_s]
        count, cents = self._run("expire", [self.key("reservations"), self.stream], args)
        return int(count), int(cents)

    def settle(self, request_id: str, fingerprint: str, decision: bytes, record: bytes) -> bytes | None:
        """Make `decision`, which the shopper was given without the ledger, the request's; the one that stood there, if another did."""
        keys = [self.key("request", request_id), self.stream]
        before: bytes = self._run("settle", keys, [fingerprint, decision, record, self._keep_s])
        return before or None

    def _run(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """The script's answer; Redis is given the script when it does not know it."""
        try:
            return self._call("EVALSHA", self._digests[name], len(keys), *keys, *args)
        except NoScriptError:
            return self._call("EVAL", self._scripts[name], len(keys), *keys, *args)

    def _budget(self, name: str, cents: int, pace: tuple[float, float, float], change: Change, *, only_new: bool) -> Budget:
        if cents < 0 or min(pace) < 0:
            raise InputError(f"Budget '{name}' cannot have {cents} cents and pace {pace}; give 0 or more.")
        keys = [self.key("budget", name), self.stream, self.key("budgets")]
        rate, step, price = pace
        args = [name, cents, rate, step, price, change.actor, change.reason, "1" if only_new else ""]
        word, *detail = self._run("budget", keys, args)
        if word == b"under":
            raise ConflictError(f"Budget '{name}' cannot be set to {cents} cents: {detail[0]} are spent or reserved. Set at least that.")
        found = self.budget(name)
        self._prices[name] = found.price
        return found

    def _standing(self, arms: Sequence[Arm], letters: str, names: Sequence[str]) -> Standing:
        refused = {arm.promo_id: REFUSALS[letter] for arm, letter in zip(arms, letters, strict=True) if letter != "-"}
        return Standing(refused, {name: self._prices[name] for name in names if name in self._prices})

    def _reserve_keys(self, order: Order, budgets: Sequence[str]) -> list[str]:
        own = [
            self.key("request", order.request_id), self.key("reservations"), self.key("reservation", order.reservation_id), self.stream,
            self.key("given", order.shopper_id),
        ]  # fmt: skip
        return own + [self.key("budget", name) for name in budgets]

    def _reserve_args(self, order: Order, arms: Packed, letters: str, proposal: Proposal) -> list[Any]:
        cents, place = arms.chosen.get(proposal.promo_id, (0, 0))
        most = [NEVER] * len(arms.most) if 0 in (order.cap_per_day, order.cap_per_week) else arms.most
        return [
            order.fingerprint, order.moment_s, order.expires_ms, self._keep_s, proposal.promo_id, order.reservation_id, proposal.decision,
            proposal.record, proposal.cost, capped(order.cap_per_day), capped(order.cap_per_week), arms.text, letters,
            self.key("reservation", ""), cents, place, *most,
        ]  # fmt: skip


def _receipt(order: Order, proposal: Proposal, word: bytes, rest: Sequence[Any], names: Sequence[str]) -> Receipt:
    if word == b"conflict":
        raise ConflictError(f"Request id '{order.request_id}' was used before with other parameters; use a new id for a new request.")
    if word == b"no_budget":
        raise UnavailableError(f"The ledger has no budget '{names[int(rest[0]) - 1]}'; set it before the first decision.")
    return Receipt(rest[0], True) if word == b"stored" else Receipt(proposal.decision, False)


def _refusal(word: str, reservation_id: str, wanted: str, detail: bytes = b"") -> str:
    reasons = {
        "unknown": "is unknown",
        "expired": "has expired and its budget was returned",
        "released": "was released and its budget was returned",
        "over": f"holds {detail.decode()} cents, less than {wanted}",
        "conflict": f"was committed before with {detail.decode()} cents, not {wanted}",
        "committed": f"was committed with {detail.decode()} cents",
    }
    return f"Reservation '{reservation_id}' {reasons[word]}; nothing was changed."
