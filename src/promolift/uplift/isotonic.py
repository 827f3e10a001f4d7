"""Scores and pseudo-outcomes -> non-decreasing knots of the calibrated effect, data only, that keep the order of the scores.

Causal isotonic calibration (van der Laan, Ulloa-Perez, Carone and Luedtke, 2023, arXiv 2302.14011): isotonic regression of doubly
robust pseudo-outcomes on the score. Where a model is fitted anew without each fold, its out-of-fold scores are pooled for one fit,
and a new row gets the median of what the folds' models say after calibration.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from promolift.errors import InputError
from promolift.uplift.clusters import Floats, Integers, encode

Knots = tuple[tuple[float, float], ...]
"""Ascending scores, each with a value that never falls: the lowest and the highest score of every pool of equal value."""
Between = Literal["constant", "linear"]


def isotonic(values: Floats, weights: Floats) -> Floats:
    """The non-decreasing sequence nearest to `values` [n] in weighted least squares (pool adjacent violators); `weights` > 0 [n]."""
    means: list[float] = []
    totals: list[float] = []
    lengths: list[int] = []
    for one, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, total, length = one, weight, 1
        while means and means[-1] >= mean:
            before = totals.pop()
            mean = (means.pop() * before + mean * total) / (before + total)
            total, length = total + before, length + lengths.pop()
        means.append(mean)
        totals.append(total)
        lengths.append(length)
    return np.repeat(np.array(means, dtype=np.float64), lengths)


def fit_knots(score: Floats, effect: Floats) -> Knots:
    """Isotonic regression of `effect` [n] (AIPW pseudo-outcome, any unit) on `score` [n]; equal scores get one value.

    The mean of the fitted values is the mean of the effects, and so it is within every pool. The scores must come from a model that
    did not see these rows, or from `out_of_fold`. Raises InputError on unequal lengths, no rows, or values that are not finite.
    """
    check_pairs("fit_knots", score, effect)
    order = np.argsort(score, kind="stable")
    distinct, starts, counts = np.unique(score[order], return_index=True, return_counts=True)
    size = counts.astype(np.float64)
    return pools(distinct, distinct, isotonic(np.add.reduceat(effect[order], starts) / size, size))


def pools(first: Floats, last: Floats, value: Floats) -> Knots:
    """Knots of steps [m]: from score `first` to score `last` the curve is `value`, non-decreasing; equal neighbours become one step."""
    changes = np.flatnonzero(np.diff(value) != 0)
    steps = zip(first[np.append(0, changes + 1)], last[np.append(changes, len(last) - 1)], value[np.append(0, changes + 1)], strict=True)
    ends = ((low, high, v) for low, high, v in steps)
    return tuple((float(s), float(v)) for low, high, v in ends for s in ((low, high) if low < high else (low,)))


def apply_knots(knots: Knots, score: Floats, between: Between = "constant") -> Floats:
    """The calibrated effect of `score` (any shape): that of the nearest knot not above it, or linear between knots.

    Non-decreasing in the score, so rows may become ties but never change places. Outside the knots the end values hold.
    """
    at, value = np.array(knots, dtype=np.float64).T
    low = np.clip(np.searchsorted(at, score, side="right") - 1, 0, len(at) - 1)
    if between == "constant":
        return np.asarray(value[low], dtype=np.float64)
    high = np.minimum(low + 1, len(at) - 1)
    gap = np.where(high > low, at[high] - at[low], 1.0)
    share = np.clip((score - at[low]) / gap, 0.0, 1.0)
    return np.asarray(np.minimum(value[low] + share * (value[high] - value[low]), value[high]), dtype=np.float64)


def shopper_folds(clusters: NDArray[np.generic], folds: int = 5, seed: int = 0) -> Integers:
    """Fold 0..`folds`-1 of each row [n]: all rows of a shopper in one fold, folds of equally many shoppers, one seed one answer.

    Raises InputError with fewer than two folds or fewer shoppers than folds.
    """
    codes, count = encode(clusters)
    if folds < 2 or count < folds:
        raise InputError(f"Cross-calibration needs 2 folds or more and a shopper for each; got {folds} folds and {count} shoppers.")
    dealt = np.arange(count) % folds
    return np.asarray(np.random.default_rng(seed).permutation(dealt)[codes], dtype=np.int64)


def out_of_fold(scores: Floats, fold: Integers) -> Floats:
    """The score [n] of each row by the model that was fitted without the row's fold; `scores` [n, F], `fold` [n]."""
    return np.asarray(scores[np.arange(len(fold)), fold], dtype=np.float64)


def cross_calibrated(scores: Floats, knots: Knots, between: Between = "constant") -> Floats:
    """Calibrated effect [n] of new rows: the median over the F folds' models of their calibrated `scores` [n, F].

    `knots` are those of all out-of-fold scores together (cross-calibration in the paper). If no model's score falls, neither does this.
    """
    return np.asarray(np.median(apply_knots(knots, scores, between), axis=1), dtype=np.float64)


def held_out(score: Floats, effect: Floats, fold: Integers, between: Between = "constant") -> Floats:
    """Each row's effect [n] as calibrated by the other folds only: for an honest check of the calibration itself.

    One score from one model. Every fold has its own knots, so the order of rows holds within a fold, not across folds.
    """
    check_pairs("held_out", score, effect)
    found = np.empty(len(score))
    for one in np.unique(fold):
        inside = fold == one
        if inside.all():
            raise InputError(
                f"held_out: all {len(score)} rows are in fold {one}, which leaves no row to calibrate by; use 2 folds or more."
            )
        found[inside] = apply_knots(fit_knots(score[~inside], effect[~inside]), score[inside], between)
    return found


def check_pairs(caller: str, score: Floats, effect: Floats, clusters: NDArray[np.generic] | None = None) -> None:
    """Raise InputError, naming row and value, unless the inputs are equally many (at least one) and finite."""
    lengths = [len(score), len(effect), *([len(clusters)] if clusters is not None else [])]
    if len(set(lengths)) > 1 or not lengths[0]:
        counts = ", ".join(map(str, lengths))
        raise InputError(f"{caller} needs as many effects and clusters as scores, at least one: got {counts}.")
    for name, values in (("score", score), ("effect", effect)):
        if not np.all(np.isfinite(values)):
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise InputError(f"{caller}: {name} of row {row} is {values[row]}; drop or repair rows that are not finite.")
