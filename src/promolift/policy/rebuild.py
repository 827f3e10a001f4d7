"""The decision log -> what the ledger must hold: its counters held against the log, and an empty Redis filled from it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from promolift.contracts.decisions import Decision, Envelope, dump_bytes
from promolift.errors import ConflictError
from promolift.policy.ledger import DAY_S, Budget, Ledger

FORGET_S = 15 * DAY_S
"""How long the ledger remembers what a shopper was given: twice the longest cap and a day."""


@dataclass(frozen=True)
class Event:
    """One row of `ledger_events`, in their order."""

    event: str
    reservation_id: str
    budget: str
    cents: int
    rate: float = 0.0
    step: float = 0.0


@dataclass
class Books:
    """What the log says: totals and pace by budget, the decision that stands by request, what became of each reservation.

    `ends`: by reservation the last event and its cents; a reservation without is still held.
    """

    budgets: dict[str, Event] = field(default_factory=dict)
    standing: dict[str, Envelope] = field(default_factory=dict)
    granted: dict[str, Envelope] = field(default_factory=dict)
    ends: dict[str, tuple[str, int]] = field(default_factory=dict)

    def counters(self) -> dict[str, Budget]:
        """Total, committed and reserved by budget."""
        sums = {name: [event.cents, 0, 0] for name, event in self.budgets.items()}
        for reservation_id, envelope in self.granted.items():
            decision = _decided(envelope)
            row = sums.setdefault(str(decision.budget), [0, 0, 0])
            state, cents = self.ends.get(reservation_id, ("reserved", decision.reserved_cents))
            if state in ("committed", "reserved"):
                row[1 if state == "committed" else 2] += cents
        return {name: Budget(*row) for name, row in sums.items()}


def books(decisions: Iterable[Envelope], events: Iterable[Event]) -> Books:
    """Both tables, each in the order of the stream."""
    found = Books()
    for envelope in decisions:
        decision = _decided(envelope)
        found.standing[envelope.request.request_id] = envelope
        if decision.reservation_id is not None:
            found.granted[decision.reservation_id] = envelope
    for event in events:
        if event.event == "budget":
            found.budgets[event.budget] = event
        else:
            found.ends[event.reservation_id] = (event.event, event.cents)
    return found


def differences(found: Books, held: Mapping[str, Budget]) -> list[str]:
    """A sentence for every counter of the ledger that the log does not confirm."""
    said = found.counters()
    lines = []
    for name in sorted({*said, *held}):
        for what in ("total", "committed", "reserved"):
            log, ledger = (getattr(side.get(name, Budget(0, 0, 0)), what) for side in (said, held))
            if log != ledger:
                lines.append(f"budget '{name}': {what} is {ledger} cents in the ledger and {log} in the log")
    return lines


def rebuild(ledger: Ledger, found: Books, fingerprints: Mapping[str, str], keep_s: int = 8 * DAY_S) -> int:
    """Fill an empty ledger; returns how many decisions it knows again. `fingerprints` by request id.

    Raises ConflictError for a ledger that holds a budget already: what it knows would be counted twice.
    """
    if ledger.budgets():
        raise ConflictError("The ledger is not empty, so it cannot be filled from the log; give an empty Redis, or reconcile.")
    pipe = ledger.client.pipeline(transaction=True)
    _budgets(pipe, ledger, found)
    for reservation_id, envelope in found.granted.items():
        _reservation(pipe, ledger, envelope, found.ends.get(reservation_id), keep_s)
    for request_id, envelope in found.standing.items():
        answer = fingerprints[request_id].encode() + b" " + dump_bytes(_decided(envelope))
        pipe.set(ledger.key("request", request_id), answer, ex=keep_s)
    pipe.execute()
    return len(found.standing)


def _budgets(pipe: Any, ledger: Ledger, found: Books) -> None:
    prices: dict[str, float] = {}
    for envelope in found.standing.values():
        prices.update(_decided(envelope).prices)
    for name, budget in found.counters().items():
        pace = found.budgets[name] if name in found.budgets else Event("budget", "", name, 0)
        row = {"total": budget.total, "committed": budget.committed, "reserved": budget.reserved}
        row |= {"lambda": prices.get(name, 0.0), "rate": pace.rate, "step": pace.step}  # type: ignore[dict-item]
        pipe.hset(ledger.key("budget", name), mapping=row)
        pipe.sadd(ledger.key("budgets"), name)


def _reservation(pipe: Any, ledger: Ledger, envelope: Envelope, end: tuple[str, int] | None, keep_s: int) -> None:
    decision, request = _decided(envelope), envelope.request
    reservation_id = str(decision.reservation_id)
    key, given = ledger.key("reservation", reservation_id), ledger.key("given", request.shopper_id)
    row: dict[str, Any] = {
        "state": end[0] if end else "reserved", "cents": decision.reserved_cents, "promo": decision.promo_id, "budget": decision.budget,
        "budget_key": ledger.key("budget", str(decision.budget)), "given": given,
    }  # fmt: skip
    if end and end[0] == "committed":
        row["spent"] = end[1]
    pipe.hset(key, mapping=row)
    if end:
        pipe.expire(key, keep_s)
    else:
        pipe.zadd(ledger.key("reservations"), {reservation_id: _ms(str(decision.expires_at))})
    if not end or end[0] != "released":
        pipe.zadd(given, {f"{reservation_id} {decision.promo_id}": int(_ms(request.moment) / 1000)})
        pipe.expire(given, FORGET_S)


def _ms(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)


def _decided(envelope: Envelope) -> Decision:
    if envelope.decision is None:
        raise ConflictError(f"The logged envelope of request '{envelope.request.request_id}' has no decision.")
    return envelope.decision


def in_order(entries: Sequence[tuple[str, Any]], last: str | None = None) -> list[Any]:
    """Values of (entry id, value) in the order of the stream, up to the entry `last`."""

    def place(identifier: str) -> tuple[int, int]:
        first, _, second = identifier.partition("-")
        return int(first), int(second or 0)

    end = place(last) if last else (2**63, 0)
    return [value for identifier, value in sorted(entries, key=lambda entry: place(entry[0])) if place(identifier) <= end]
