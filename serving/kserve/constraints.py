"""Envelope with scores -> envelope with the final Decision, reserved in the ledger and recorded for the log in the same script."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from redis.exceptions import RedisError

from promolift.contracts.decisions import Decision, Envelope, Reason, Request, dump_bytes, read_bytes
from promolift.contracts.promos import NO_PROMO, Promo
from promolift.errors import UnavailableError
from promolift.policy.constraints import Arms, Policy, Standing, arms_of, choose, decision_id, no_promo
from promolift.policy.ledger import Ledger, Order, Proposal
from promolift.policy.ledger_arms import Arm
from promolift.policy.rules import Rules
from promolift.policy.token import Keys
from serving.kserve.redis_client import Breaker
from serving.kserve.stamp import stamped

Spill = Callable[[bytes], None]


@dataclass(frozen=True)
class Pace:
    """How a budget begins: total (cents), and how lambda is moved: `rate` cents of expected cost a decision (0: not), `step`."""

    total: int
    rate: float = 0.0
    step: float = 0.0


@dataclass(frozen=True)
class Terms:
    """What a decision is made by: parameters, rules, catalogue, life of a reservation, keys of the tokens, how budgets begin."""

    policy: Policy
    rules: Rules
    promos: Sequence[Promo]
    ttl_s: int
    keys: Keys
    pace: Pace


class Constraints:
    """The last box. `spill` takes the record of a decision that the ledger could not store."""

    name = "constraints"

    def __init__(self, terms: Terms, ledger: Ledger, spill: Spill) -> None:
        self._terms = terms
        self._arms = {promo.promo_id: _arm(promo, terms.rules) for promo in terms.promos}
        self._ledger = ledger
        self._spill = spill
        self._breaker = Breaker()
        self._prepared = False

    def __call__(self, envelope: Envelope) -> Envelope:
        """The envelope with its decision. Without the ledger it is no_promo: a promo that no budget covers is never given.

        Raises ConflictError when the request id was used with other parameters.
        """
        started = perf_counter()
        try:
            final = self._breaker(self._decide, envelope, started)
        except (RedisError, OSError, UnavailableError) as problem:
            return without_ledger(envelope, self._terms.policy, "budget_unavailable", self._spill, f"{type(problem).__name__}: {problem}")
        token = self._terms.keys.sign(final.decision, final.request) if final.decision else None
        return self._stamped(final, started, token=token)

    def _decide(self, envelope: Envelope, started: float) -> Envelope:
        order = order_of(envelope.request, self._terms)
        self._prepare()
        left = self._left(envelope)
        arms = Arms("scored", {}) if isinstance(left, Decision) else left
        drafts: list[Envelope] = []

        def propose(standing: Standing) -> Proposal:
            terms = self._terms
            decision = left if isinstance(left, Decision) else choose(envelope.request, arms, standing, terms.rules, terms.policy)
            degraded = (*envelope.degraded, "rules_only") if arms.kind == "rules" else envelope.degraded
            drafts.append(self._stamped(envelope, started, decision=self._granted(decision, order), degraded=degraded))
            promo_id = "" if decision.promo_id == NO_PROMO else decision.promo_id
            decided = drafts[-1].decision
            return Proposal(promo_id, dump_bytes(decided), dump_bytes(drafts[-1]), arms.cost.get(promo_id, 0.0))

        receipt = self._ledger.decide(order, [self._arms[promo_id] for promo_id in arms.worth], propose)
        return replace(envelope, decision=read_bytes(Decision, receipt.decision), repeated=True) if receipt.repeated else drafts[-1]

    def _prepare(self) -> None:
        """Budgets that were never set begin with the settings' total: at the first decision, since Redis may be down at the start."""
        if not self._prepared:
            pace, price = self._terms.pace, self._terms.policy.lambda_cost
            for name in dict.fromkeys(arm.budget for arm in self._arms.values()):
                self._ledger.set_budget_if_unset(pace.total, name, rate=pace.rate, step=pace.step, price=price)
            self._prepared = True

    def _left(self, envelope: Envelope) -> Arms | Decision:
        request, terms = envelope.request, self._terms
        if late(envelope):
            return no_promo(request, "deadline", terms.policy)
        return arms_of(request, envelope.candidates, envelope.scores, terms.rules, terms.policy)

    def _granted(self, decision: Decision, order: Order) -> Decision:
        if decision.promo_id == NO_PROMO:
            return decision
        ends = datetime.fromtimestamp(order.expires_ms / 1000, UTC).isoformat()
        arm = self._arms[decision.promo_id]
        return replace(
            decision, reserved_cents=arm.cents, reservation_id=order.reservation_id, budget=arm.budget, expires_at=ends,
            key_id=self._terms.keys.signing,
        )  # fmt: skip

    def _stamped(self, envelope: Envelope, started: float, **changes: Any) -> Envelope:
        # While rules are read anew this box may decide by others than those that made the candidates.
        versions, timings = {"rules": self._terms.rules.version}, {"total": total_ms(envelope)}
        return stamped(envelope, self.name, self._terms.policy.version, started, versions=versions, timings_ms=timings, **changes)


def late(envelope: Envelope) -> bool:
    """Whether the caller has stopped waiting."""
    deadline = envelope.request.deadline_ms
    return deadline is not None and total_ms(envelope) >= deadline


def without_ledger(envelope: Envelope, policy: Policy, reason: Reason, spill: Spill, cause: str) -> Envelope:
    """The envelope with a complete no_promo that no ledger knows of; its record goes to `spill`, from where it reaches log and ledger."""
    # Its own id: both this answer and what the ledger may have stored meanwhile belong in the log.
    decision = replace(no_promo(envelope.request, reason, policy), decision_id=decision_id(envelope.request.request_id, reason))
    code = "ledger_unavailable" if reason == "budget_unavailable" else reason
    final = stamped(
        envelope, Constraints.name, policy.version, perf_counter(), decision=decision, versions={"cause": cause[:200]},
        timings_ms={"total": total_ms(envelope)}, degraded=(*envelope.degraded, code),
    )  # fmt: skip
    spill(dump_bytes(final))
    return final


def order_of(request: Request, terms: Terms) -> Order:
    """What the ledger is told of a request."""
    return Order(
        request_id=request.request_id,
        reservation_id=decision_id(request.request_id),
        fingerprint=fingerprint(request),
        shopper_id=request.shopper_id,
        moment_s=int(datetime.fromisoformat(request.moment).timestamp()),
        expires_ms=int((time.time() + terms.ttl_s) * 1000),
        cap_per_day=terms.rules.shopper.cap_per_day,
        cap_per_week=terms.rules.shopper.cap_per_week,
    )


def fingerprint(request: Request) -> str:
    """A hash of everything that the request asks; how long the caller waits is no part of it."""
    return hashlib.sha256(dump_bytes(replace(request, deadline_ms=None))).hexdigest()


def total_ms(envelope: Envelope) -> float:
    """Milliseconds since the request arrived."""
    if envelope.received_at is None:
        return 0.0
    return max(0.0, round((time.time() - datetime.fromisoformat(envelope.received_at).timestamp()) * 1000, 3))


def _arm(promo: Promo, rules: Rules) -> Arm:
    rule = rules.by_promo[promo.promo_id]
    return Arm(
        promo.promo_id,
        # The most it can cost, so that no redemption can overspend.
        promo.most_cents,
        rule.cap_per_day,
        rule.cap_per_week,
        rule.budget,
        rule.cool_down_days * 86_400,
        _excluded(promo.promo_id, rules),
        rule.exclusion_days * 86_400,
    )


def _excluded(promo_id: str, rules: Rules) -> tuple[str, ...]:
    """Promos that exclude it or that it excludes."""
    own = rules.by_promo[promo_id].excludes
    return tuple(name for name, rule in rules.by_promo.items() if name in own or promo_id in rule.excludes)
