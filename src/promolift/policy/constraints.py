"""Candidates, scores and what the ledger can afford -> one Decision: most profit, no harm, exploration, holdout.

The ledger's refusals come in as `refused` (arm -> "budget" or "cap"), so the same function decides, decides again after the
budget has changed, and replays a logged decision.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

from promolift.contracts.decisions import Bucket, Candidates, Decision, Reason, Request, Scores
from promolift.contracts.promos import NO_PROMO
from promolift.policy import exploration


@dataclass(frozen=True)
class Policy:
    """Parameters of the decision, as in Settings: shadow price of a cent, exploration and holdout shares, salt, do-no-harm."""

    lambda_cost: float
    explore_share: float
    holdout_share: float
    hash_salt: str
    do_no_harm: bool

    @property
    def version(self) -> str:
        """Every parameter in words (the salt only as a digest), so that a logged decision can be computed again."""
        salt = hashlib.sha256(self.hash_salt.encode()).hexdigest()[:12]
        return (
            f"lambda_cost={self.lambda_cost!r} explore_share={self.explore_share!r} holdout_share={self.holdout_share!r} "
            f"do_no_harm={self.do_no_harm} salt_sha256={salt}"
        )


@dataclass(frozen=True)
class Harmless:
    """Arms that may be given as far as the scores say, in candidate order: `net` is value less lambda * cost."""

    net: Mapping[str, float]
    value: Mapping[str, float]


def decision_id(request_id: str, kind: str = "decision") -> str:
    """The id of a request's decision: a retry has the same one. `kind` tells apart answers of one request that differ in nature."""
    return hashlib.sha256(f"{kind}:{request_id}".encode()).hexdigest()[:32]


def no_promo(request: Request, reason: Reason, policy: Policy) -> Decision:
    """A complete decision for `no_promo` that leaves no choice: its propensity is 1."""
    bucket: Bucket = "holdout" if exploration.in_holdout(request.shopper_id, policy.holdout_share, policy.hash_salt) else "policy"
    return Decision(decision_id(request.request_id), NO_PROMO, reason, bucket, {NO_PROMO: 1.0})


def forced(request: Request, candidates: Candidates | None, scores: Scores | None, policy: Policy) -> Decision | None:
    """The decision where nothing is left to choose: no candidate, holdout, model failure; else None."""
    if not candidates or not candidates.promo_ids:
        return no_promo(request, "no_eligible_promo", policy)
    if exploration.in_holdout(request.shopper_id, policy.holdout_share, policy.hash_salt):
        return no_promo(request, "holdout", policy)
    if scores is None or scores.error is not None or not _complete(candidates, scores):
        return no_promo(request, "model_error", policy)
    return None


def harmless(candidates: Candidates, scores: Scores, policy: Policy) -> Harmless:
    """Candidates whose lower bound is not negative (all of them when do-no-harm is off)."""
    rows = zip(candidates.promo_ids, scores.value, scores.lower, scores.cost, strict=True)
    kept = [(arm, value, cost) for arm, value, lower, cost in rows if lower >= 0 or not policy.do_no_harm]
    net = {arm: value - policy.lambda_cost * cost for arm, value, cost in kept}
    return Harmless(net, {arm: value for arm, value, _ in kept})


def choose(request: Request, arms: Harmless, refused: Mapping[str, str], priority: Mapping[str, int], policy: Policy) -> Decision:
    """Draw over the final feasible set: harmless arms that the ledger does not refuse (`refused`: why, by arm) and no_promo.

    The best arm has the highest net value, then the highest priority, then the earliest place; no_promo (net value 0) wins a tie.
    """
    feasible = (NO_PROMO, *(arm for arm in arms.net if arm not in refused))
    best = max(feasible, key=lambda arm: (arms.net.get(arm, 0.0), arm == NO_PROMO, priority.get(arm, 0)))
    drawn = exploration.draw(feasible, best, policy.explore_share, policy.hash_salt, request.request_id)
    return Decision(
        decision_id=decision_id(request.request_id),
        promo_id=drawn.arm,
        reason="explored" if drawn.explored else _reason(best, arms, refused),
        bucket="explore" if drawn.explored else "policy",
        propensities=drawn.propensities,
        expected_value=arms.value.get(drawn.arm, 0.0),
    )


def _complete(candidates: Candidates, scores: Scores) -> bool:
    columns = (scores.value, scores.lower, scores.cost)
    return all(len(c) == len(candidates.promo_ids) and all(map(math.isfinite, c)) for c in columns)


def _reason(best: str, arms: Harmless, refused: Mapping[str, str]) -> Reason:
    if best != NO_PROMO:
        return "best_profit"
    if not arms.net:
        return "would_harm"
    # Only an arm that would have been chosen makes the ledger's refusal the reason.
    missed = [refused[arm] for arm, net in arms.net.items() if net > 0 and arm in refused]
    if not missed:
        return "not_profitable"
    return "budget_exhausted" if "budget" in missed else "cap_reached"
