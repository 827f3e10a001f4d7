"""Shopper and request ids -> group of the shopper, and one arm of the final feasible set with its closed-form propensity.

Nothing is drawn from a random generator: the same salt and ids give the same arm, so a retry or a replay repeats the decision.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Group = Literal["holdout", "randomised", "policy"]
HASH_VERSION = "sha256-1"
"""Version of the assignment of shoppers to groups; another way of hashing would deal everybody anew and needs another name."""
PROBE = "probe:"
"""How ids of shoppers begin who are nobody: they are never given a promo."""
_UNIT = 2.0**-53  # 53 bits fill a float's mantissa; with 64 the largest digest would round to 1.0


@dataclass(frozen=True)
class Draw:
    """The arm drawn, whether exploration chose it, and the probability of every feasible arm (they sum to 1)."""

    arm: str
    explored: bool
    propensities: dict[str, float]


def uniforms(salt: str, purpose: str, key: str) -> tuple[float, float]:
    """Two numbers in [0, 1) from sha256 of salt, purpose and key; independent for different purposes."""
    # Lengths are part of the text, so that ("a", "bc") and ("ab", "c") hash apart.
    text = "".join(f"{len(part)}:{part}" for part in (salt, purpose, key))
    digest = hashlib.sha256(text.encode()).digest()
    first, second = (int.from_bytes(digest[i : i + 8], "big") >> 11 for i in (0, 8))
    return first * _UNIT, second * _UNIT


def group_of(shopper_id: str, holdout_share: float, randomised_share: float, salt: str) -> Group:
    """The shopper's group, the same under one salt: never a promo, a promo at random among the eligible, or what the policy says.

    A shopper whose id begins with PROBE is held out: whoever tries out what is served spends nothing. The two shares have uniforms of
    their own, so that a change of one moves nobody in or out of the other.
    """
    if shopper_id.startswith(PROBE) or uniforms(salt, "holdout", shopper_id)[0] < holdout_share:
        return "holdout"
    return "randomised" if uniforms(salt, "randomised", shopper_id)[0] < randomised_share else "policy"


def rollout_bucket(shopper_id: str, salt: str) -> int:
    """The shopper's bucket in 0..9999 for gradual changes, independent of the groups above."""
    return int(uniforms(salt, "rollout", shopper_id)[0] * 10_000)


def epsilon_greedy(arms: Sequence[str], best: str, epsilon: float) -> dict[str, float]:
    """Epsilon-uniform probabilities: (1 - epsilon) on `best` plus epsilon / len(arms) on every arm."""
    uniform = epsilon / len(arms)
    return {arm: uniform + (1.0 - epsilon if arm == best else 0.0) for arm in arms}


def softmax(arms: Sequence[str], net: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Probabilities in proportion to exp(net / temperature); `net` and `temperature` in one unit. An arm without net has 0."""
    worth = [net.get(arm, 0.0) for arm in arms]
    weights = [math.exp((w - max(worth)) / temperature) for w in worth]
    return {arm: weight / math.fsum(weights) for arm, weight in zip(arms, weights, strict=True)}


def draw_greedy(arms: Sequence[str], best: str, epsilon: float, salt: str, request_id: str) -> Draw:
    """One arm of `arms` (which holds `best`): uniform with probability `epsilon`, else `best`."""
    first, second = uniforms(salt, "explore", request_id)
    explored = first < epsilon
    return Draw(arms[int(second * len(arms))] if explored else best, explored, epsilon_greedy(arms, best, epsilon))


def draw_by(propensities: dict[str, float], best: str, salt: str, request_id: str) -> Draw:
    """One arm with its probability; explored when it is not the best one."""
    point, arm = uniforms(salt, "explore", request_id)[1], best
    for name, probability in propensities.items():
        point -= probability
        if point < 0:
            arm = name
            break
    return Draw(arm, arm != best, propensities)
