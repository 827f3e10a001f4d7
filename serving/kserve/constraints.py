"""Envelope with scores -> envelope with the final Decision, reserved in the ledger and recorded for the log in the same script."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from time import perf_counter

from redis.exceptions import RedisError

from promolift.contracts.decisions import Decision, Envelope, Request, dump
from promolift.contracts.promos import NO_PROMO, Promo
from promolift.errors import UnavailableError
from promolift.policy.constraints import Harmless, Policy, choose, decision_id, forced, harmless, no_promo
from promolift.policy.ledger import Arm, Ledger, Order, Proposal
from promolift.policy.rules import Rules
from serving.kserve.stamp import stamped

Spill = Callable[[bytes], None]


class Constraints:
    """The last box. `ttl_s`: life of a reservation; `spill` takes the record of a decision that the ledger could not store."""

    name = "constraints"

    def __init__(self, policy: Policy, rules: Rules, promos: Sequence[Promo], *, ledger: Ledger, ttl_s: int, spill: Spill) -> None:
        self._policy = policy
        self._priority = {promo_id: rule.priority for promo_id, rule in rules.by_promo.items()}
        self._arms = {promo.promo_id: _arm(promo, rules) for promo in promos}
        self._ledger = ledger
        self._ttl_s = ttl_s
        self._spill = spill

    def __call__(self, envelope: Envelope) -> Envelope:
        """The envelope with its decision. Without the ledger it is no_promo: a promo that no budget covers is never given.

        Raises ConflictError when the request id was used with other parameters.
        """
        started = perf_counter()
        try:
            return self._decide(envelope, started)
        except (RedisError, OSError, UnavailableError) as problem:
            return self._without_ledger(envelope, started, problem)

    def _decide(self, envelope: Envelope, started: float) -> Envelope:
        order = _order(envelope.request, self._ttl_s)
        fixed = forced(envelope.request, envelope.candidates, envelope.scores, self._policy)
        arms = Harmless({}, {}) if fixed else self._harmless(envelope)
        drafts: list[Envelope] = []

        def propose(refused: Mapping[str, str]) -> Proposal:
            decision = fixed or self._granted(choose(envelope.request, arms, refused, self._priority, self._policy), order)
            drafts.append(self._stamped(envelope, started, decision, json.dumps(dict(refused))))
            return Proposal(decision.promo_id, _bytes(dump(decision)), _bytes(dump(drafts[-1])))

        receipt = self._ledger.decide(order, [self._arms[promo_id] for promo_id in arms.net], propose)
        if not receipt.repeated:
            return self._stamped(drafts[-1], started)
        return self._stamped(envelope, started, Decision(**json.loads(receipt.decision)), '"repeated"')

    def _harmless(self, envelope: Envelope) -> Harmless:
        if envelope.candidates is None or envelope.scores is None:
            raise UnavailableError("The envelope has no candidates or scores.")
        return harmless(envelope.candidates, envelope.scores, self._policy)

    def _granted(self, decision: Decision, order: Order) -> Decision:
        if decision.promo_id == NO_PROMO:
            return decision
        ends = datetime.fromtimestamp(order.expires_ms / 1000, UTC).isoformat()
        cents = self._arms[decision.promo_id].cents
        return replace(decision, reserved_cents=cents, reservation_id=order.reservation_id, expires_at=ends)

    def _stamped(self, envelope: Envelope, started: float, decision: Decision | None = None, ledger: str | None = None) -> Envelope:
        changes = {} if decision is None else {"decision": decision}
        versions = {} if ledger is None else {"ledger": ledger}
        return stamped(
            envelope, self.name, self._policy.version, started, versions=versions, timings_ms={"total": _total_ms(envelope)}, **changes
        )

    def _without_ledger(self, envelope: Envelope, started: float, problem: Exception) -> Envelope:
        # Its own id: a retry once the ledger is back may well be granted a promo, and both answers belong in the log.
        own_id = decision_id(envelope.request.request_id, "unavailable")
        decision = replace(no_promo(envelope.request, "budget_unavailable", self._policy), decision_id=own_id)
        final = self._stamped(envelope, started, decision, json.dumps(f"{type(problem).__name__}: {problem}"))
        self._spill(_bytes(dump(final)))
        return final


def replay(envelope: Envelope, policy: Policy, rules: Rules) -> Decision:
    """The decision of a logged envelope, computed again: same arm, reason, bucket and propensities (without its reservation)."""
    fixed = forced(envelope.request, envelope.candidates, envelope.scores, policy)
    if envelope.decision is not None and envelope.decision.reason == "budget_unavailable":
        return no_promo(envelope.request, "budget_unavailable", policy)
    if fixed is not None or envelope.candidates is None or envelope.scores is None:
        return fixed or no_promo(envelope.request, "model_error", policy)
    priority = {promo_id: rule.priority for promo_id, rule in rules.by_promo.items()}
    refused = json.loads(envelope.versions["ledger"])
    return choose(envelope.request, harmless(envelope.candidates, envelope.scores, policy), refused, priority, policy)


def _arm(promo: Promo, rules: Rules) -> Arm:
    rule = rules.by_promo[promo.promo_id]
    # The most it can cost, so that no redemption can overspend.
    return Arm(promo.promo_id, promo.cap_cents + promo.contact_cents, rule.cap_per_day, rule.cap_per_week)


def _order(request: Request, ttl_s: int) -> Order:
    return Order(
        request_id=request.request_id,
        reservation_id=decision_id(request.request_id),
        fingerprint=hashlib.sha256(json.dumps(dump(request), sort_keys=True).encode()).hexdigest(),
        shopper_id=request.shopper_id,
        moment_s=int(datetime.fromisoformat(request.moment).timestamp()),
        expires_ms=int((time.time() + ttl_s) * 1000),
    )


def _bytes(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _total_ms(envelope: Envelope) -> float:
    if envelope.received_at is None:
        return 0.0
    return max(0.0, round((datetime.now(UTC) - datetime.fromisoformat(envelope.received_at)).total_seconds() * 1000, 3))
