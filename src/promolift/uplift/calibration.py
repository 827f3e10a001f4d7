"""Predicted and measured effects -> how well they agree, and the lower bound that serving interpolates to do no harm."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promolift.errors import InputError
from promolift.uplift.bootstrap import Estimate, HalfSamples
from promolift.uplift.clusters import Floats, Integers, encode, mean_error
from promolift.uplift.distributions import normal_quantile
from promolift.uplift.isotonic import Knots, check_pairs, pools

MIN_PAIRS_A_BIN = 100
MIN_GIVEN_A_BIN = 30
"""Rows that were given the promo itself: an effect that rests on fewer is the outcome model's word, and its error looks too small."""
MIN_SHOPPERS_A_BIN = 20
MIN_BINS = 4
"""Bins that a promo's own curve has at least: in wider ones the mean says too little about the lowest scores among them."""


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


def _bins(score: Floats, bins: int) -> NDArray[np.int64]:
    edges = np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1])) if bins > 1 else np.empty(0)
    return np.searchsorted(edges, score, side="left").astype(np.int64)


@dataclass(frozen=True)
class PromoBounds:
    """Knots (score, lower bound) for each promo, and the `pooled` ones of all promos, which a promo not seen here takes.

    Data only; knots with both ends of every bin, so that linear interpolation gives a bin's bound to
    each of its pairs.
    """

    promos: dict[str, Knots]
    pooled: Knots

    def of(self, promo: str) -> Knots:
        """The promo's own knots, or the pooled ones."""
        return self.promos.get(promo, self.pooled)


def promo_bounds(
    score: Floats, effect: Floats, clusters: NDArray[np.generic], arm: Integers, names: Sequence[str], *,
    bins: int = 10, confidence: float = 0.95,
) -> PromoBounds:  # fmt: skip
    """A one-sided `confidence` lower bound of the mean effect, by promo and score.

    `score` [n, K]: predicted incremental value of each row and promo, by a model that did not see these rows; `effect` [n, K]: AIPW
    effect against no_promo, same unit; `clusters` [n]: shopper; `arm` [n]: 0 or the number 1..K of the promo given; `names` [K].

    It bounds the MEAN effect of the pairs of a promo that score alike (a bin of equally many pairs), not the effect of each pair: in
    a bin whose mean is above its bound, many single pairs may lie below (`coverage` measures both). A bin's bound is its mean less t
    times its clustered error, lowered to the least bound of the bins above it. So the curve never falls with the score, and every
    bin's bound holds with `confidence` even where the score ranks wrongly, which pooling violators does not give: it would lift the
    highest scores of a promo that is ranked backwards to the promo's mean.

    A promo gets as many bins, up to `bins`, as leave each one 100 pairs, 30 rows given the promo and 20 shoppers. With fewer than 4
    it takes the knots of all promos pooled, nowhere above the bound of its own mean; those bound the mean over all promos at that
    score, and its own only where the promos' scores mean the same. Bins without any variation (all outcomes 0) get their mean.
    Raises InputError on unequal shapes, non-finite values, or fewer than two shoppers.
    """
    _check_table(score, effect, arm, names)
    for column, name in enumerate(names):
        check_pairs(f"promo_bounds of promo '{name}'", score[:, column], effect[:, column], clusters)
    codes, count = encode(clusters)
    if count < 2:
        raise InputError(f"promo_bounds: all {len(score)} rows are of one shopper; a standard error needs two or more.")
    given = arm[:, None] == np.arange(1, len(names) + 1)
    every = np.repeat(codes, len(names))
    cells = _sound_bins(score.ravel(), every, given.ravel(), bins, least=1)
    pooled = _step_bound(score.ravel(), effect.ravel(), every, np.zeros_like(every) if cells is None else cells, confidence)
    found = {}
    for column, name in enumerate(names):
        own = score[:, column], codes, given[:, column]
        cells = _sound_bins(*own, bins, least=MIN_BINS)
        if cells is None:
            most = mean_bound(effect[:, column], codes, confidence)
            found[name] = tuple((at, min(bound, most)) for at, bound in pooled)
        else:
            found[name] = _step_bound(score[:, column], effect[:, column], codes, cells, confidence)
    return PromoBounds(found, pooled)


def lower_at(knots: Knots, score: Floats) -> Floats:
    """The bound at each `score` (any shape), as serving reads it: linear between knots, level above, falling with the score below."""
    at, bound = np.array(knots, dtype=np.float64).T
    return np.asarray(np.interp(score, at, bound) + np.minimum(score - at[0], 0.0), dtype=np.float64)


@dataclass(frozen=True)
class Coverage:
    """Shares above the bound: of the `counted` (bin, promo) `cells`, their mean effect; of all `pairs`, each its own; cells by promo."""

    cells: float
    pairs: float
    counted: int
    promos: dict[str, float]


def coverage(bounds: PromoBounds, score: Floats, true_effect: Floats, names: Sequence[str], bins: int = 10) -> Coverage:
    """How often a known truth lies above the bound: `score` and `true_effect` [n, K] of pairs, promos `names` [K].

    A cell is one of `bins` equal-count bins of one promo's scores; its mean true effect is held against its pairs' mean bound. One
    world is one draw of cells that share shoppers: average over many worlds. Raises InputError on unequal shapes or no rows.
    """
    if score.shape != true_effect.shape or score.shape != (len(score), len(names)) or not score.size:
        raise InputError(f"coverage needs scores and true effects of rows by {len(names)} promos; got {score.shape}, {true_effect.shape}.")
    above, held = np.empty(score.shape), {}
    for column, name in enumerate(names):
        gap = true_effect[:, column] - lower_at(bounds.of(name), score[:, column])
        above[:, column] = gap >= 0
        cells = _bins(score[:, column], bins)
        # A bound that equals its cell's mean in exact arithmetic must not count as a miss by rounding.
        slack = 1e-12 * max(1.0, float(np.abs(true_effect[:, column]).max()))
        held[name] = [bool(gap[cells == cell].mean() >= -slack) for cell in np.unique(cells)]
    cell_list = [ok for found in held.values() for ok in found]
    by_promo = {name: float(np.mean(found)) for name, found in held.items()}
    return Coverage(float(np.mean(cell_list)), float(above.mean()), len(cell_list), by_promo)


def _step_bound(score: Floats, effect: Floats, codes: Integers, cells: Integers, confidence: float) -> Knots:
    rows = [np.flatnonzero(cells == cell) for cell in np.unique(cells)]
    lower = np.array([mean_bound(effect[r], codes[r], confidence) for r in rows])
    lower = np.minimum.accumulate(lower[::-1])[::-1]
    return pools(np.array([score[r].min() for r in rows]), np.array([score[r].max() for r in rows]), lower)


def mean_bound(effect: Floats, codes: Integers, confidence: float) -> float:
    """One-sided `confidence` lower bound of the mean of `effect` [n]; rows of equal `codes` [n] share a shopper, of whom there are two."""
    own, shoppers = encode(codes)
    z, freedom = normal_quantile(confidence), shoppers - 1
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)  # Student's t from z: Abramowitz, Stegun 26.7.5
    return float(effect.mean() - t * mean_error(effect, own, shoppers))


def _sound_bins(score: Floats, codes: Integers, given: NDArray[np.bool_], bins: int, least: int) -> Integers | None:
    """The cell of each pair, with as many bins as leave each one enough; None where even `least` bins leave too little.

    A score with fewer distinct values than `least` has as many bins as values.
    """
    for count in range(min(bins, len(score) // MIN_PAIRS_A_BIN), least - 1, -1):
        cells = _bins(score, count)
        used = np.unique(cells)
        if all(given[cells == c].sum() >= MIN_GIVEN_A_BIN and len(np.unique(codes[cells == c])) >= MIN_SHOPPERS_A_BIN for c in used):
            return cells
    return None


def _check_table(score: Floats, effect: Floats, arm: Integers, names: Sequence[str]) -> None:
    if score.shape != effect.shape or score.shape != (len(arm), len(names)) or not score.size:
        raise InputError(
            f"promo_bounds needs scores and effects of {len(arm)} rows by {len(names)} promos, at least one of each; "
            f"got {score.shape} and {effect.shape}."
        )
