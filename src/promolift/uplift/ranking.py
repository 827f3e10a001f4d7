"""Scores and effects of rows -> targeting operator characteristic (TOC), AUTOC and QINI, equal scores averaged.

Yadlowsky et al. (2021, as in grf): TOC(q) is the mean effect in the top q less the mean effect of all; AUTOC is the integral of
TOC(q) dq, QINI that of q TOC(q) dq. With k the rank of n rows they are weighted sums of the effects: row k weighs
(1/2 - (k - 1/2)/n)/n in QINI and (sum_{j >= k} 1/j - 1)/n in AUTOC; rows of equal score share the mean of their weights, so the
answer does not depend on the order of the rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from promolift.errors import InputError
from promolift.uplift.bootstrap import Estimate, HalfSamples, Mask
from promolift.uplift.clusters import Floats, Integers

Measure = Callable[[Mask], tuple[float, float]]


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
    """`qini` and `autoc` of `effect` [n] (unit of the effect) under the ranking, with their half-sample draws.

    No half sample is sorted: its rows keep the order of all rows. Time is linear in rows for each draw, 3 arrays of rows are held.
    """
    ordered = effect[ranking.order]
    full = _weighted(ordered, ranking.group if ranking.tied else None)
    measure = _tied(ordered, ranking.group) if ranking.tied else _untied(ordered)
    draws = np.array([measure(rows) for rows in HalfSamples(samples.chosen, samples.codes[ranking.order]).rows()])
    return {name: Estimate(full[i], draws[:, i]) for i, name in enumerate(("qini", "autoc"))}


def _tables(n: int) -> Floats:
    """Of each rank k = 1..n: k and H(k - 1), the sum of 1/j for j < k. Both weights are a constant less one of these, over n."""
    return np.stack([np.arange(1.0, n + 1), np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, n))])])


def _from_sums(total: float, by_rank: float, by_harmonic: float, n: int, last: float) -> tuple[float, float]:
    """QINI and AUTOC from the sums of effects, of effects times k, of effects times H(k - 1); `last` is H(n)."""
    return ((0.5 + 0.5 / n) * total - by_rank / n) / n, ((last - 1.0) * total - by_harmonic) / n


def _untied(ordered: Floats) -> Measure:
    centred = ordered - ordered.mean()  # the weights sum to zero, so this changes rounding only
    tables = _tables(len(ordered) + 1)

    def measure(rows: Mask) -> tuple[float, float]:
        kept = centred.compress(rows)  # a quarter of the time of centred[rows]
        n = len(kept)
        by_rank, by_harmonic = tables[:, :n] @ kept
        return _from_sums(float(kept.sum()), float(by_rank), float(by_harmonic), n, float(tables[1, n]))

    return measure


def _tied(ordered: Floats, group: Integers) -> Measure:
    """Ranks a + 1..b of a tie group have the mean rank (a + b + 1)/2 and the mean H(k - 1) of H(a) - 1 + b (H(b) - H(a))/(b - a)."""
    centred = ordered - ordered.mean()
    harmonics = _tables(len(ordered) + 1)[1]
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    ends = np.append(starts[1:], len(group)) - 1

    def measure(rows: Mask) -> tuple[float, float]:
        last = np.cumsum(rows, dtype=np.int32)[ends]
        first = np.concatenate([[0], last[:-1]])
        sums = np.add.reduceat(centred * rows, starts)
        low, high = harmonics[first], harmonics[last]
        mean = low - 1.0 + last * (high - low) / np.maximum(last - first, 1)
        by_rank = float(sums @ (first + last + 1.0)) / 2
        return _from_sums(float(sums.sum()), by_rank, float(sums @ mean), int(last[-1]), float(harmonics[last[-1]]))

    return measure


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
