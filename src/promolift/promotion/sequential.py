"""Tests that may be looked at after every decision: the probability that one of them ever alarms without cause is at most alpha.

`mean_bound`: one-sided asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, 2021, arXiv 2103.06476).
`mismatch`: exact, the beta mixture of Lindon and Malek (2020, arXiv 2011.03567). Asymptotic means: right for large counts;
`python -m benchmarks.guardrails` measures the false alarms at the counts that we look at.
"""

import math
from dataclasses import dataclass

import numpy as np

from promolift.uplift.clusters import Floats, Integers, cluster_sums


@dataclass(frozen=True)
class Gap:
    """Mean of the canary less that of the control: estimate, one row's standard deviation, and how many independent rows it is worth."""

    value: float
    deviation: float
    rows: float


def gap(canary: tuple[Floats, Integers], control: tuple[Floats, Integers], floor: float = 0.0) -> Gap:
    """The gap of two groups of rows: values [n] and the cluster of each row [n]. `floor`: least variance of a row.

    Rows of one shopper count as one observation (cluster-robust variance).
    """
    sides = [_mean(values, codes, floor) for values, codes in (canary, control)]
    spread = sum(side[1] for side in sides) / 2
    error = sum(side[2] for side in sides)
    return Gap(sides[0][0] - sides[1][0], math.sqrt(spread), spread / error if error > 0 else 0.0)


def _mean(values: Floats, codes: Integers, floor: float) -> tuple[float, float, float]:
    """Mean, variance of a row, and squared standard error of the mean."""
    mean, spread = float(values.mean()), max(float(values.var()), floor)
    clusters = int(codes.max()) + 1
    sums = cluster_sums(values - mean, codes, clusters)
    present = max(2, int(np.count_nonzero(np.bincount(codes, minlength=clusters))))
    robust = float(np.sum(sums**2)) * present / (present - 1) / len(values) ** 2
    return mean, spread, max(robust, spread / len(values))


def mean_bound(found: Gap, alpha: float, planned: float) -> float:
    """Lower end of the one-sided 1 - alpha confidence sequence of a gap; tightest at `planned` rows (in Gap.rows)."""
    if found.deviation == 0.0:
        return found.value
    goal = -2.0 * math.log(2.0 * alpha)
    rho2 = (goal + math.log(goal) + 1.0) / planned
    t = found.rows
    width = math.sqrt(2.0 * (t * rho2 + 1.0) / (t * t * rho2) * math.log1p(math.sqrt(t * rho2 + 1.0) / (2.0 * alpha)))
    return found.value - found.deviation * width


def mismatch(inside: int, outside: int, share: float) -> float:
    """Anytime-valid p-value that a share of `share` gave these two counts: one over the Bayes factor of a uniform prior, at most 1."""
    if not 0.0 < share < 1.0:
        return 1.0 if (inside == 0 and share <= 0.0) or (outside == 0 and share >= 1.0) else 0.0
    beta = math.lgamma(inside + 1) + math.lgamma(outside + 1) - math.lgamma(inside + outside + 2)
    null = inside * math.log(share) + outside * math.log1p(-share)
    return math.exp(min(0.0, null - beta))
