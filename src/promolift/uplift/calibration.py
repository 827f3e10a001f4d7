"""Scores and measured effects of the validation split -> knots of a lower bound that serving interpolates to do no harm."""

import numpy as np
from numpy.typing import NDArray

from promolift.errors import InputError
from promolift.uplift.clusters import Floats, encode, mean_error
from promolift.uplift.distributions import normal_quantile

MIN_PAIRS_A_BIN = 100


def harm_bound(
    score: Floats, gamma_diff: Floats, clusters: NDArray[np.generic], bins: int = 10, confidence: float = 0.95
) -> tuple[tuple[float, float], ...]:
    """Ascending (score, lower) knots: a one-sided `confidence` lower bound of the mean effect of promos scored so.

    `score` [n]: predicted incremental value of shopper-promo pairs; `gamma_diff` [n]: the pair's AIPW effect against no_promo, same
    unit; `clusters` [n]: the pair's shopper. Pairs are cut into equal-count bins (equal scores stay together); each bin's bound is
    its mean less z times its clustered standard error; pool-adjacent-violators makes the bounds monotone, and a pool's average bound
    lies below the bound of the pooled mean, so pooling is conservative. Raises InputError on unequal lengths or non-finite values.
    """
    _check(score, gamma_diff, clusters)
    codes, count = encode(clusters)
    cells = _bins(score, min(bins, max(1, len(score) // MIN_PAIRS_A_BIN)))
    z = normal_quantile(confidence)
    rows = [np.flatnonzero(cells == cell) for cell in np.unique(cells)]
    centre = np.array([score[r].mean() for r in rows])
    lower = np.array([gamma_diff[r].mean() - z * mean_error(gamma_diff[r], codes[r], count) for r in rows])
    if not np.all(np.isfinite(lower)):
        raise InputError(
            f"harm_bound: a bin of {len(score)} pairs holds one shopper only; a standard error needs two or more, use fewer bins."
        )
    lower = isotonic(lower, np.array([float(len(r)) for r in rows]))
    return tuple((float(s), float(b)) for s, b in zip(centre, lower, strict=True))


def isotonic(values: Floats, weights: Floats) -> Floats:
    """The non-decreasing sequence nearest to `values` [n] in weighted least squares (pool adjacent violators)."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        pool = (float(value), float(weight), 1)
        while pools and pools[-1][0] >= pool[0]:
            pool = _merge(pools.pop(), pool)
        pools.append(pool)
    return np.concatenate([np.full(length, value) for value, _, length in pools])


def _merge(left: tuple[float, float, int], right: tuple[float, float, int]) -> tuple[float, float, int]:
    weight = left[1] + right[1]
    return ((left[0] * left[1] + right[0] * right[1]) / weight, weight, left[2] + right[2])


def _bins(score: Floats, bins: int) -> NDArray[np.int64]:
    edges = np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1])) if bins > 1 else np.empty(0)
    return np.searchsorted(edges, score, side="left").astype(np.int64)


def _check(score: Floats, gamma_diff: Floats, clusters: NDArray[np.generic]) -> None:
    if not len(score) == len(gamma_diff) == len(clusters) or not len(score):
        raise InputError(
            f"harm_bound needs as many effects and clusters as scores, at least one: got {len(score)}, {len(gamma_diff)}, {len(clusters)}."
        )
    for name, values in (("score", score), ("effect", gamma_diff)):
        if not np.all(np.isfinite(values)):
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise InputError(f"harm_bound: {name} of row {row} is {values[row]}; drop or repair rows that are not finite.")
