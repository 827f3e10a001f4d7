"""Candidates, scores and what the ledger can give -> one Decision: most profit, no harm, exploration, holdout.

What the ledger says comes in as `Standing`, so the same function decides, decides again after budget or caps have changed, and replays
a logged decision.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from promolift.contracts.decisions import Bucket, Candidates, Decision, Reason, Request, Scores
from promolift.contracts.promos import NO_PROMO
from promolift.policy import exploration
from promolift.policy.depth import monotone_in_depth
from promolift.policy.rules import Rules

RankBy = Literal["estimate", "lower_bound"]


@dataclass(frozen=True)
class Policy:
    """Parameters of the decision, as in Settings.

    `lambda_cost`: price of a cent of cost where a budget has no price of its own. `temperature_cents`: of softmax exploration; 0 explores
    epsilon-greedily with `explore_share`. `rank_by`: what the best arm has most of, the estimated profit uplift or its lower bound.
    """

    lambda_cost: float
    explore_share: float
    holdout_share: float
    hash_salt: str
    do_no_harm: bool
    randomised_share: float = 0.0
    temperature_cents: float = 0.0
    rank_by: RankBy = "estimate"

    @cached_property
    def version(self) -> str:
        """Every parameter in words (the salt only as a digest), so that a logged decision can be computed again."""
        salt = hashlib.sha256(self.hash_salt.encode()).hexdigest()[:12]
        return (
            f"lambda_cost={self.lambda_cost!r} explore_share={self.explore_share!r} temperature_cents={self.temperature_cents!r} "
            f"rank_by={self.rank_by} "
            f"holdout_share={self.holdout_share!r} randomised_share={self.randomised_share!r} do_no_harm={self.do_no_harm} "
            f"hash={exploration.HASH_VERSION} salt_sha256={salt}"
        )

    def group(self, shopper_id: str) -> exploration.Group:
        """Which group the shopper is in."""
        return exploration.group_of(shopper_id, self.holdout_share, self.randomised_share, self.hash_salt)


@dataclass(frozen=True)
class Standing:
    """What the ledger says: arms that it cannot give now, with the reason, and lambda by budget."""

    refused: Mapping[str, str] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Arms:
    """Promos that may be given as far as rules and scores say, in candidate order.

    `scored`: `worth` is the profit uplift that ranks them, before the price of its cost. `uniform`: the
    shopper is in the randomised group and each is as likely as no_promo. `rules`: nothing could be scored and the first by priority wins.
    """

    kind: Literal["scored", "uniform", "rules"]
    worth: Mapping[str, float]
    value: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)


def decision_id(request_id: str, kind: str = "decision") -> str:
    """The id of a request's decision: a retry has the same one. `kind` tells apart answers of one request that differ in nature."""
    return hashlib.sha256(f"{kind}:{request_id}".encode()).hexdigest()[:32]


def no_promo(request: Request, reason: Reason, policy: Policy) -> Decision:
    """A complete decision for `no_promo` that leaves no choice: its propensity is 1."""
    return Decision(decision_id(request.request_id), NO_PROMO, reason, policy.group(request.shopper_id), {NO_PROMO: 1.0})


def arms_of(request: Request, candidates: Candidates | None, scores: Scores | None, rules: Rules, policy: Policy) -> Arms | Decision:
    """What is left to choose from, or the decision where nothing is: no candidate, holdout, nothing scored and no fallback."""
    candidates, scores = _known(candidates or Candidates((), {}, ""), scores, rules)
    if not candidates.promo_ids:
        return no_promo(request, "no_eligible_promo", policy)
    group = policy.group(request.shopper_id)
    if group == "holdout":
        return no_promo(request, "holdout", policy)
    if group == "randomised":
        cost = dict(zip(candidates.promo_ids, scores.cost, strict=True)) if scores is not None else {}
        return Arms("uniform", dict.fromkeys(candidates.promo_ids, 0.0), cost=cost)
    if scores is not None:
        return harmless(candidates, scores, rules, policy)
    fallback = [promo_id for promo_id in candidates.promo_ids if rules.by_promo[promo_id].fallback]
    return Arms("rules", dict.fromkeys(fallback, 0.0)) if fallback else no_promo(request, "model_error", policy)


def _known(candidates: Candidates, scores: Scores | None, rules: Rules) -> tuple[Candidates, Scores | None]:
    """Candidates of these rules' catalogue, and their scores if they are complete.

    While a catalogue is read anew, the box that found the candidates and the one that decides may hold different ones.
    """
    if scores is not None and not _complete(candidates, scores):
        scores = None
    kept = [place for place, promo_id in enumerate(candidates.promo_ids) if promo_id in rules.by_promo]
    if len(kept) == len(candidates.promo_ids):
        return candidates, scores
    if scores is not None:
        value, lower, cost = (tuple(column[place] for place in kept) for column in (scores.value, scores.lower, scores.cost))
        scores = replace(scores, value=value, lower=lower, cost=cost)
    return replace(candidates, promo_ids=tuple(candidates.promo_ids[place] for place in kept)), scores


def harmless(candidates: Candidates, scores: Scores, rules: Rules, policy: Policy) -> Arms:
    """Candidates whose lower bound is not negative (all of them with do-no-harm off), worth what ADR 8 says, monotone along depth."""
    value, lower, cost = (dict(zip(candidates.promo_ids, column, strict=True)) for column in (scores.value, scores.lower, scores.cost))
    worth = monotone_in_depth(lower if policy.rank_by == "lower_bound" else value, cost, rules.depth_ladders)
    kept = [arm for arm in candidates.promo_ids if lower[arm] >= 0 or not policy.do_no_harm]
    return Arms("scored", *({arm: column[arm] for arm in kept} for column in (worth, value, cost)))


def choose(request: Request, arms: Arms, standing: Standing, rules: Rules, policy: Policy) -> Decision:
    """Draw over the final feasible set: arms that the ledger does not refuse, and no_promo.

    The best arm has the highest worth less lambda * cost, then the highest priority, then the earliest place; no_promo (0) wins a tie.
    """
    net = {arm: worth - _price(arm, standing, rules, policy) * arms.cost.get(arm, 0.0) for arm, worth in arms.worth.items()}
    feasible = (NO_PROMO, *(arm for arm in net if arm not in standing.refused))
    best = _best(feasible, net, arms, rules)
    drawn = _draw(_Choice(arms.kind, feasible, best, net), policy, request.request_id)
    explored = drawn.explored and arms.kind == "scored"
    buckets: dict[str, Bucket] = {"uniform": "randomised", "rules": "policy", "scored": "explore" if explored else "policy"}
    return Decision(
        decision_id=decision_id(request.request_id),
        promo_id=drawn.arm,
        reason="explored" if explored else _reason(best, net, arms, standing),
        bucket=buckets[arms.kind],
        propensities=drawn.propensities,
        expected_value=arms.value.get(drawn.arm, 0.0),
        refused={arm: standing.refused[arm] for arm in net if arm in standing.refused},
        prices=dict(standing.prices),
    )


def _best(feasible: tuple[str, ...], net: Mapping[str, float], arms: Arms, rules: Rules) -> str:
    def rank(arm: str) -> tuple[float, bool, int]:
        return net.get(arm, 0.0), (arm == NO_PROMO) != (arms.kind == "rules"), rules.by_promo[arm].priority if arm != NO_PROMO else 0

    return max(feasible, key=rank)


@dataclass(frozen=True)
class _Choice:
    """The final feasible set, its best arm and what each arm is worth after the price of its cost."""

    kind: str
    feasible: tuple[str, ...]
    best: str
    net: Mapping[str, float]


def _draw(choice: _Choice, policy: Policy, request_id: str) -> exploration.Draw:
    arms, best, salt = choice.feasible, choice.best, policy.hash_salt
    if choice.kind == "uniform":
        return exploration.draw_by(dict.fromkeys(arms, 1.0 / len(arms)), best, salt, request_id)
    if choice.kind == "rules":
        return exploration.draw_greedy(arms, best, 0.0, salt, request_id)
    if policy.temperature_cents:
        return exploration.draw_by(exploration.softmax(arms, choice.net, policy.temperature_cents), best, salt, request_id)
    return exploration.draw_greedy(arms, best, policy.explore_share, salt, request_id)


def _price(arm: str, standing: Standing, rules: Rules, policy: Policy) -> float:
    return standing.prices.get(rules.by_promo[arm].budget, policy.lambda_cost)


def _complete(candidates: Candidates, scores: Scores) -> bool:
    columns = (scores.value, scores.lower, scores.cost)
    return all(len(c) == len(candidates.promo_ids) and all(map(math.isfinite, c)) for c in columns)


def _reason(best: str, net: Mapping[str, float], arms: Arms, standing: Standing) -> Reason:
    if arms.kind == "uniform":
        return "randomised"
    if best != NO_PROMO:
        return "rules_only" if arms.kind == "rules" else "best_profit"
    if not net:
        return "would_harm"
    # Only an arm that would have been chosen makes the ledger's refusal the reason.
    missed = [standing.refused[arm] for arm, worth in net.items() if (worth > 0 or arms.kind == "rules") and arm in standing.refused]
    if not missed:
        return "not_profitable"
    return "budget_exhausted" if "budget" in missed else "cap_reached"
