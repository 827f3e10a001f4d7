"""Scores and effects of rows -> targeting operator characteristic (TOC), AUTOC and QINI, equal scores averaged.

Yadlowsky et al. (2021, as in grf): TOC(q) is the mean effect in the top q less the mean effect of all; AUTOC is the integral of
TOC(q) dq, QINI that of q TOC(q) dq. With k the rank of n rows they are weighted sums of the effects: row k weighs
(1/2 - (k - 1/2)/n)/n in QINI and (sum_{j >= k} 1/j - 1)/n in AUTOC; rows of equal score share the mean of their weights, so the
answer does not depend on the order of the rows.
"""

from dataclasses import dataclass

import numpy as np

from promolift.errors import InputError
from promolift.uplift.bootstrap import Estimate, HalfSamples
from promolift.uplift.clusters import Floats, Integers


@dataclass(frozen=True)
class Ranking:
    """Rows from the highest score down: `order` [n], and the tie group [n] of each row in that order, numbered from 0."""

    order: Integers
    group: Integers

    @property
    def groups(self) -> int:
        """Number of distinct scores."""
        return int(self.group[-1]) + 1

    @property
    def tied(self) -> bool:
        """Whether any two rows have the same score."""
        return self.groups < len(self.group)


def rank(score: Floats) -> Ranking:
    """Sort `score` [n] from the highest down. Raises InputError on an empty or non-finite score."""
    if not len(score) or not np.all(np.isfinite(score)):
        row = int(np.flatnonzero(~np.isfinite(score))[0]) if len(score) else 0
        raise InputError(f"Scores must be finite numbers, at least one; row {row} is {score[row] if len(score) else 'missing'}.")
    order = np.argsort(-score, kind="stable")
    group = np.concatenate([[0], np.cumsum(np.diff(score[order]) != 0)])
    return Ranking(order.astype(np.int64), group.astype(np.int64))


def harmonic(n: int) -> Floats:
    """Weight of each rank k = 1..n in AUTOC, times n: sum_{j >= k} 1/j, less 1."""
    tail = np.cumsum(1.0 / np.arange(n, 0, -1))[::-1]
    return np.asarray(tail - 1.0, dtype=np.float64)


def linear(n: int) -> Floats:
    """Weight of each rank 1..n in QINI, times n."""
    return 0.5 - (np.arange(n) + 0.5) / n


def tie_means(weights: Floats, group: Integers) -> Floats:
    """Replace each weight by the mean weight of its tie group; `group` [n] ascends."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    counts = np.diff(np.append(starts, len(group)))
    return np.repeat(np.add.reduceat(weights, starts) / counts, counts)


def rate(ranking: Ranking, effect: Floats, samples: HalfSamples) -> dict[str, Estimate]:
    """`qini` and `autoc` of `effect` [n] (unit of the effect) under the ranking, with their half-sample draws."""
    ordered = effect[ranking.order]
    full = _weighted(ordered, ranking.group if ranking.tied else None)
    draws = np.empty((len(samples.chosen), 2))
    codes = samples.codes[ranking.order]
    for i, chosen in enumerate(samples.chosen):
        kept = np.flatnonzero(chosen[codes])
        draws[i] = _weighted(ordered[kept], ranking.group[kept] if ranking.tied else None)
    return {name: Estimate(full[i], draws[:, i]) for i, name in enumerate(("qini", "autoc"))}


def _weighted(effect: Floats, group: Integers | None) -> tuple[float, float]:
    n = len(effect)
    weights = (linear(n), harmonic(n))
    if group is not None:
        weights = (tie_means(weights[0], group), tie_means(weights[1], group))
    return float(effect @ weights[0]) / n, float(effect @ weights[1]) / n


def toc_curve(ranking: Ranking, effect: Floats, points: int = 50) -> tuple[Floats, Floats]:
    """Shares q [points] in (0, 1] and q TOC(q): the gain of the top q over the same share of rows drawn at random, per row."""
    n = len(effect)
    ordered = tie_means(effect[ranking.order], ranking.group)
    gain = np.cumsum(ordered - ordered.mean()) / n
    last = np.maximum(np.round(np.linspace(0, 1, points + 1)[1:] * n).astype(np.int64), 1)
    return last / n, gain[last - 1]
