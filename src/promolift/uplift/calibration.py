"""Predicted and measured effects -> how well they agree, and the lower bound that serving interpolates to do no harm."""

import numpy as np
from numpy.typing import NDArray

from promolift.errors import InputError
from promolift.uplift.bootstrap import Estimate, HalfSamples
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


def blp_slope(predicted: Floats, effect: Floats, samples: HalfSamples) -> Estimate:
    """Slope of the best linear predictor of the measured effect [n, K] from the predicted one [n, K], all pairs pooled.

    1 is calibrated, above 0 the ranking carries information (Chernozhukov et al., 2018). NaN when all predictions are equal.
    """
    x, y = predicted - predicted.mean(), effect - effect.mean()
    parts = [x, y, x * y, x * x, np.ones_like(x)]
    full, halves = samples.sums(np.column_stack([part.sum(axis=1) for part in parts]))
    return Estimate(float(_slope(full)), np.asarray(_slope(halves), dtype=np.float64))


def _slope(sums: Floats) -> Floats:
    x, y, xy, xx, n = np.moveaxis(sums, -1, 0)
    spread = xx - x * x / n
    safe = np.where(spread > 0, spread, np.nan)
    return np.asarray((xy - x * y / n) / safe, dtype=np.float64)


def ece_squared(predicted: Floats, effect: Floats, samples: HalfSamples, bins: int = 10) -> Estimate:
    """Mean squared gap of measured and predicted effect over equal-count bins of the prediction, as a share of the bins' mean square.

    The plug-in gap contains each bin's sampling variance, which is taken off (Xu and Yadlowsky, 2022, in binned form); a draw holds
    that variance twice. 0.25 is the error of a model whose effects are 50 % too large or too small.
    """
    cells = _bins(predicted.ravel(), bins).reshape(predicted.shape)
    inside = [cells == cell for cell in np.unique(cells)]
    gap, size = ([(mask * part).sum(axis=1) for mask in inside] for part in (effect - predicted, np.ones_like(predicted)))
    full, halves = samples.sums(np.column_stack([*gap, *size]))
    m = len(inside)
    share = full[m:] / full[m:].sum()
    draws = halves[:, :m] / np.maximum(halves[:, m:], 1.0)
    variance = float(share @ draws.var(axis=0, ddof=1))
    square = float(share @ np.array([predicted[mask].mean() for mask in inside]) ** 2)
    scale = max(square, np.finfo(np.float64).tiny)
    plug_in = float(share @ (full[:m] / full[m:]) ** 2)
    return Estimate((plug_in - variance) / scale, (draws**2 @ share - 2 * variance) / scale)


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
