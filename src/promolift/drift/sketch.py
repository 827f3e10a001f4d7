"""Rows -> counts by column and bin: what a window is compared by, whatever order its rows came in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from promolift.drift.columns import UNSEEN, Columns, Rows
from promolift.drift.reference import Counts, Joint, Reference, Segment

BINS = 64
JOINT = ("joint:inside", "joint:across")
"""Hotelling's T² within the principal axes, and the squared distance from them (Q; Jackson and Mudholkar 1979): correlations that break."""
STATE = ("missing", "outside", "unseen")
"""Rows with a feature missing, outside the range of training, or with a text that training never saw."""
Bins = NDArray[np.intp]


def column_names(columns: Columns) -> tuple[str, ...]:
    """Every column that is compared, in the order of a sketch: numbers, joint distances, texts, state."""
    return (*columns.numbers, *JOINT, *columns.texts, *STATE)


def numeric_count(columns: Columns) -> int:
    """How many of them are numbers, which have an order; they come first."""
    return len(columns.numbers) + len(JOINT)


@dataclass(frozen=True)
class Day:
    """Bins [n, F] and shoppers [n] of a day's rows."""

    bins: Bins
    shoppers: NDArray[np.uint32]

    def only(self, rows: NDArray[np.bool_]) -> "Day":
        """Some of its rows [n]."""
        return Day(self.bins[rows], self.shoppers[rows])


@dataclass(frozen=True)
class Sketch:
    """A window. `counts` [F, K] by column and bin, in shoppers; rows without a value are in no bin."""

    counts: Counts
    rows: int
    shoppers: int


def within(columns: Columns, segment: Segment, bins: Bins) -> NDArray[np.bool_]:
    """Which rows [n] are of the segment, by their bins [n, F]."""
    own = bins[:, column_names(columns).index(segment.column)]
    return np.asarray((segment.first <= own) & (own <= segment.last))


def day_of_rows(reference: Reference, rows: Rows) -> Day:
    """The rows of a day, in bins."""
    return Day(binned(reference, rows), rows["shopper"])


def together(days: Sequence[Day], k: int) -> Sketch:
    """Days, at least one, as one window in which every shopper counts once, by the mean of their rows.

    Rows of one shopper are alike, and some come twice a day: a test that took them for independent would call one such shopper a change.
    """
    bins, shoppers = (np.concatenate([getattr(day, name) for day in days]) for name in ("bins", "shoppers"))
    visits = visits_of(shoppers)
    # rounded, since sums of thirds depend on the order of rows
    return Sketch(counted(bins, k, 1 / visits).round(9), len(shoppers), round((1 / visits).sum()))


def visits_of(shoppers: NDArray[np.uint32], windows: NDArray[np.integer] | int = 0) -> NDArray[np.float64]:
    """Of each row [n] how many its shopper has, in its window."""
    _, place, visits = np.unique(shoppers.astype(np.int64) << 32 | windows, return_inverse=True, return_counts=True)
    return np.asarray(visits[place], dtype=np.float64)


def width(columns: Columns) -> int:
    """K: bins of the column that has most; a text's last one is for what training never saw."""
    return max(BINS, *(len(values) + 1 for values in columns.texts.values()))


def binned(reference: Reference, rows: Rows) -> Bins:
    """Bin [n, F] of every row by column, -1 for a missing value."""
    numbers = rows["numbers"].astype(np.float64)
    codes = rows["codes"].astype(np.intp)
    sizes = np.array([len(values) for values in reference.columns.texts.values()])
    own = number_bins(reference.edges[: numbers.shape[1]], numbers)
    features = len(reference.columns.features)
    joint = number_bins(reference.edges[numbers.shape[1] :], distances(reference.joint, own[:, :features]))
    texts = np.where(codes == UNSEEN, sizes, np.maximum(codes, -1))
    return np.concatenate([own, joint, texts, _state(reference, numbers, codes)], axis=1)


def _state(reference: Reference, numbers: NDArray[np.float64], codes: NDArray[np.intp]) -> Bins:
    features = numbers[:, : len(reference.columns.features)]
    low, high = reference.outside
    beyond = (features < low) | (features > high)
    found = (np.isnan(features).any(axis=1), beyond.any(axis=1), (codes == UNSEEN).any(axis=1))
    return np.stack(found, axis=1).astype(np.intp)


def number_bins(edges: NDArray[np.float64], numbers: NDArray[np.float64]) -> Bins:
    """Bin [n, N] of numbers by ascending inner edges [N, BINS - 1] (bin k holds values above edge k - 1 and up to edge k); -1 for NaN."""
    found = np.stack([np.searchsorted(own, column, side="left") for own, column in zip(edges, numbers.T, strict=True)], axis=1)
    return np.where(np.isnan(numbers), -1, found)


def distances(joint: Joint, bins: Bins) -> NDArray[np.float64]:
    """T² and Q [n, 2] of the normal scores of the features' bins; a missing one stands at its centre."""
    scores = np.where(bins < 0, joint.centre, normal_scores(bins)) - joint.centre
    along = scores @ joint.axes.T
    rest = scores - along @ joint.axes
    return np.stack([(along**2 / joint.variances).sum(axis=1), (rest**2).sum(axis=1)], axis=1)


def normal_scores(bins: Bins) -> NDArray[np.float64]:
    """Of a bin the normal quantile of its middle: robust, and the same for any monotone unit."""
    return np.asarray(special.ndtri((np.arange(BINS) + 0.5) / BINS))[bins]


def counted(bins: Bins, k: int, weights: NDArray[np.float64] | None = None) -> Counts:
    """Counts [F, k] of bins [n, F], each row `weights` [n] times."""
    columns = bins.shape[1]
    flat = bins + np.arange(columns) * k
    kept = bins >= 0
    times = None if weights is None else np.broadcast_to(weights[:, None], bins.shape)[kept]
    return np.bincount(flat[kept], weights=times, minlength=columns * k).reshape(columns, k).astype(np.float64)
