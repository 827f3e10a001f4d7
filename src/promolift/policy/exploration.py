"""Shopper and request ids -> holdout membership, and one arm of the final feasible set with its closed-form propensity.

Nothing is drawn from a random generator: the same salt and ids give the same arm, so a retry or a replay repeats the decision.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

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


def in_holdout(shopper_id: str, share: float, salt: str) -> bool:
    """True for a fixed `share` of all shoppers, always the same ones under one salt."""
    return uniforms(salt, "holdout", shopper_id)[0] < share


def propensities(arms: Sequence[str], best: str, epsilon: float) -> dict[str, float]:
    """Epsilon-uniform probabilities: (1 - epsilon) on `best` plus epsilon / len(arms) on every arm."""
    uniform = epsilon / len(arms)
    return {arm: uniform + (1.0 - epsilon if arm == best else 0.0) for arm in arms}


def draw(arms: Sequence[str], best: str, epsilon: float, salt: str, request_id: str) -> Draw:
    """One arm of `arms` (which holds `best`): uniform with probability `epsilon`, else `best`."""
    first, second = uniforms(salt, "explore", request_id)
    explored = first < epsilon
    arm = arms[int(second * len(arms))] if explored else best
    return Draw(arm, explored, propensities(arms, best, epsilon))
