"""Rows of training -> a reference: bins, and how far comparable windows of training differ though nothing had changed.

Two windows of real traffic differ by more than the chance of independent rows: weeks are not alike, seasons are not, and history grows.
Training shows by how much. Cramér and von Mises' T of n and m independent rows has the mean 1/6 and is n m / (n + m) times a squared
distance of distributions, so 6 times that distance has the mean 1/n + 1/m. What windows of training have beyond this is a variance
component `between` windows (the random effect of one-way analysis of variance; its upper 95 % bound, since a year has few seasons), and a
window of n shoppers tells as much as 1 / (1/n + 1/m + between) independent rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from promolift.drift.columns import Columns, Rows
from promolift.drift.reference import WINDOWS, Counts, Joint, Reference, Segment
from promolift.drift.sketch import (
    BINS,
    Day,
    Sketch,
    column_names,
    day_of_rows,
    distances,
    normal_scores,
    number_bins,
    numeric_count,
    together,
    visits_of,
    width,
    within,
)  # fmt: skip
from promolift.errors import InputError

Days = TypeVar("Days", int, NDArray[np.int32])
EXPLAINED = 0.9
"""Share of the variance of normal scores within the principal axes."""
SAMPLE = 5_000
MONDAY = 3
"""1970-01-01, day 0, was a Thursday."""
FEWEST, LEAST_OF_SEGMENT = 200, 1_000
WEEK, Z_95 = 7, 1.645
RARE = 0.01
"""Categories of a smaller share in training are compared together."""


def fit(columns: Columns, rows: Rows, version: str, seed: int, segments: Sequence[str] = ()) -> Reference:
    """A reference from rows [n] in any order, and one of each part of the columns `segments` that has LEAST_OF_SEGMENT of them.

    Raises InputError for so few rows or days that nothing could be said of a window.
    """
    if len(rows) < FEWEST:
        raise InputError(f"{len(rows)} rows are too few for a reference; at least {FEWEST} are needed.")
    numbers = rows["numbers"].astype(np.float64)
    own, features = _edges(numbers), numbers[:, : len(columns.features)]
    bins = number_bins(own[: len(columns.features)], features)
    joint = _joint(bins)
    across = _edges(distances(joint, bins))
    outside = np.stack([np.nanmin(features, axis=0), np.nanmax(features, axis=0)])
    nothing = np.zeros((1, 0, 0))
    draft = Reference(
        version, columns, np.concatenate([own, across]), outside, joint, nothing, nothing, nothing[0], nothing[0],
        np.zeros(0), *_sample(rows, seed), len(rows), _period(rows),
    )  # fmt: skip
    whole = day_of_rows(draft, rows)
    return replace(_calibrated(draft, rows, whole), segments=_segments(draft, rows, whole, segments, seed))


def _segments(draft: Reference, rows: Rows, whole: Day, names: Sequence[str], seed: int) -> dict[Segment, Reference]:
    """Values of texts, quarters of numbers; none of a column that is nearly the same for all."""
    found: dict[Segment, Reference] = {}
    for segment in (part for name in names for part in _parts(draft.columns, name)):
        held = within(draft.columns, segment, whole.bins)
        own = rows[held]
        if LEAST_OF_SEGMENT <= len(own) <= len(rows) - LEAST_OF_SEGMENT:
            sample, visits = _sample(own, seed, SAMPLE // 5)
            begun = replace(draft, sample=sample, visits=visits, rows=len(own), period=_period(own))
            found[segment] = _calibrated(begun, own, whole.only(held))
    return found


def _parts(columns: Columns, name: str) -> Iterator[Segment]:
    if name in columns.texts:
        for code, value in enumerate(columns.texts[name]):
            yield Segment(f"{name} {value}", name, code, code)
        return
    for quarter in range(4):
        yield Segment(f"{name} part {quarter + 1} of 4", name, quarter * BINS // 4, (quarter + 1) * BINS // 4 - 1)


def _edges(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inner edges [N, BINS - 1] at equal shares of each column; zeros for a column without values."""
    shares = np.linspace(0, 1, BINS + 1)[1:-1]
    columns = [column[~np.isnan(column)] for column in numbers.T]
    return np.stack([np.quantile(column, shares) if len(column) else np.zeros(BINS - 1) for column in columns])


def _joint(bins: NDArray[np.intp]) -> Joint:
    """Principal axes of the correlation of normal scores that hold EXPLAINED of the variance."""
    scores = normal_scores(np.maximum(bins, 0))
    centre = scores.mean(axis=0)
    variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(scores - centre, rowvar=False)))  # a source may have one number
    variances, axes = variances[::-1], axes.T[::-1]
    kept = int(np.searchsorted(np.cumsum(variances), EXPLAINED * variances.sum())) + 1
    return Joint(axes[:kept], np.maximum(variances[:kept], 1e-9), centre)


def _sample(rows: Rows, seed: int, most: int = SAMPLE) -> tuple[Rows, NDArray[np.float64]]:
    """Some of the rows, and of each how many its shopper has in the window of it [WINDOWS, n]."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:most])
    stretches = [(rows["day"] - rows["day"].min()) // length for length in WINDOWS]
    visits = [visits_of(rows["shopper"], stretch)[chosen] for stretch in stretches]
    return np.asarray(rows[chosen]), np.stack(visits)


def _period(rows: Rows) -> tuple[str, str]:
    first, last = (str(np.datetime64(int(day), "D")) for day in (rows["day"].min(), rows["day"].max()))
    return first, last


def _calibrated(draft: Reference, rows: Rows, whole: Day) -> Reference:
    """`whole`: the rows in bins; which of them are outside is found among these rows, by the other shoppers of a segment."""
    k, whole = width(draft.columns), replace(whole, bins=whole.bins.copy())
    whole.bins[:, column_names(draft.columns).index("outside")] = outside_of_others(rows, len(draft.columns.features))
    order = np.argsort(rows["day"], kind="stable")
    days, starts = np.unique(rows["day"][order], return_index=True)
    daily = {
        int(day): Day(whole.bins[at], whole.shoppers[at]) for day, at in zip(days, np.split(order, starts[1:]), strict=True)
    }  # fmt: skip
    windows = [list(_windows(daily, length, k)) for length in WINDOWS]
    weekday = np.zeros((7, whole.bins.shape[1], k))
    for first, own in windows[0]:
        weekday[weekday_of(first)] += own.counts
    begun = int(days[0])
    apart = [[own for first, own in of_length if not (first - begun) % length] for length, of_length in zip(WINDOWS, windows, strict=True)]
    # A training shorter than a window has none of that length; all of it stands in.
    longer = [np.sum([own.counts for own in of_length or [together(list(daily.values()), k)]], axis=0) for of_length in apart[1:]]
    shoppers = np.array([_independent(rows, length) for length in WINDOWS])
    counts = replace(draft, weekday=weekday, longer=np.stack(longer), shoppers=shoppers)
    beyond = [_beyond(counts, place, of_length) for place, of_length in enumerate(windows)]
    span = int(days[-1]) - begun + 1
    return replace(
        counts,
        between=np.maximum([_upper(own, span / max(WEEK, length)) for own, length in zip(beyond, WINDOWS, strict=True)], 0),
        furthest=np.maximum([own.max(axis=0) for own in beyond], 0),
    )


def outside_of_others(rows: Rows, features: int) -> NDArray[np.bool_]:
    """Rows [n] beyond the range of every other shopper: of somebody new as many are outside, though nothing changed."""
    found = np.zeros(len(rows), np.bool_)
    order = np.argsort(rows["shopper"], kind="stable")
    _, starts, place = np.unique(rows["shopper"][order], return_index=True, return_inverse=True)
    numbers = rows["numbers"][order, :features]
    for signed in (numbers, -numbers):
        known = np.where(np.isnan(signed), -np.inf, signed)
        greatest = np.maximum.reduceat(known, starts)
        first = np.argmax(greatest, axis=0)
        greatest[first, np.arange(features)] = -np.inf
        found[order] |= ((place[:, None] == first) & (known > greatest.max(axis=0))).any(axis=1)
    return found


def _windows(daily: Mapping[int, Day], length: int, k: int) -> Iterator[tuple[int, Sketch]]:
    """First day and sketch of each window: every day for itself, longer ones a week apart, none that training does not fill."""
    first, last = min(daily), max(daily)
    for start in range(first, last - length + 2, 1 if length == 1 else 7):
        if days := [daily[day] for day in range(start, start + length) if day in daily]:
            yield start, together(days, k)


def _independent(rows: Rows, length: int) -> float:
    """Shoppers that the windows of training are worth: each weighs by the number of windows that they are in."""
    pairs = np.unique(np.stack([rows["shopper"].astype(np.int64), (rows["day"] - rows["day"].min()) // length]), axis=1)
    times = np.unique(pairs[0], return_counts=True)[1].astype(np.float64)
    return float(times.sum() ** 2 / (times**2).sum())


def weekday_of(day: Days) -> Days:
    """0 for Monday."""
    return (day + MONDAY) % 7


def like(reference: Reference, place: int, day: int) -> Counts:
    """Training's counts [F, K] for the window WINDOWS[place] that begins on `day`: one day is held against the same weekday."""
    if place:
        return np.asarray(reference.longer[place - 1])
    return np.asarray(reference.weekday[weekday_of(day)] if reference.matched else reference.weekday.sum(axis=0))


def _upper(beyond: NDArray[np.float64], independent: float) -> NDArray[np.float64]:
    """Upper 95 % bound of a mean over windows [w, F] of which neighbours are alike: as many as there are weeks tell something new."""
    return np.asarray(beyond.mean(axis=0) + Z_95 * beyond.std(axis=0) / np.sqrt(max(independent, 1.0)))


def _beyond(reference: Reference, place: int, windows: Sequence[tuple[int, Sketch]]) -> NDArray[np.float64]:
    """How far beyond chance each window [w, F] is from the training without it; one row of zeros where there are none."""
    found = []
    for first, window in windows:
        rest = np.maximum(like(reference, place, first) - window.counts, 0.0)
        if rest.any():
            found.append(squared_distance(reference.columns, rest, window.counts) - chance(reference, place, rest, window))
    return np.stack(found or [np.zeros(reference.weekday.shape[1])])


def squared_distance(columns: Columns, reference: Counts, window: Counts) -> NDArray[np.float64]:
    """How far a window's distribution is, by column [F], in a unit whose mean is (1 / n + 1 / m) for independent rows.

    Numbers: 6 times the squared distance of the distribution functions over their pooled distribution (Cramér and von Mises; halves of
    ties counted). Texts: Pearson's chi-square by degree of freedom and harmonic row, RARE categories as one. 0 where one side has no rows.
    """
    reference, window = merged(columns, reference, window)
    n, m = window.sum(axis=1, keepdims=True), reference.sum(axis=1, keepdims=True)
    here, there = window / np.maximum(n, 1), reference / np.maximum(m, 1)
    pooled = (window + reference) / np.maximum(n + m, 1)
    gap = here - there
    middle = np.cumsum(gap, axis=1) - gap / 2
    numbers = 6 * (middle**2 * pooled).sum(axis=1)
    texts = np.divide(gap**2, pooled, out=np.zeros_like(gap), where=pooled > 0).sum(axis=1)
    texts /= np.maximum((pooled > 0).sum(axis=1) - 1, 1)
    found = np.where(np.arange(len(gap)) < numeric_count(columns), numbers, texts)
    return np.where((n[:, 0] > 0) & (m[:, 0] > 0), found, 0.0)


def chance(reference: Reference, place: int, training: Counts, window: Sketch) -> NDArray[np.float64]:
    """Mean [F] of `squared_distance` by chance alone: 1 / n + 1 / m in shoppers, for a column that only some rows have a share of them."""

    def inverse(counts: Counts, shoppers: float) -> NDArray[np.float64]:
        held = counts.sum(axis=1)
        return np.asarray(1 / np.maximum(shoppers * held / max(held[-1], 1.0), 1.0))

    return inverse(window.counts, window.shoppers) + inverse(training, float(reference.shoppers[place]))


def merged(columns: Columns, reference: Counts, window: Counts) -> tuple[Counts, Counts]:
    """Training and window [F, K + 1] with rare values of texts as one, the last: chi-square's limit does not hold for a few shoppers."""
    rare = reference < RARE * reference.sum(axis=1, keepdims=True)
    rare[: numeric_count(columns)] = False
    reference, window = (
        np.concatenate([np.where(rare, 0.0, part), np.where(rare, part, 0.0).sum(axis=1, keepdims=True)], axis=1)
        for part in (reference, window)
    )
    return reference, window


def freedom(columns: Columns, reference: Counts, window: Counts) -> NDArray[np.float64]:
    """Degrees of freedom [F] of the test of homogeneity: categories that occur, less one."""
    both = np.add(*merged(columns, reference, window))
    return np.asarray(np.maximum((both > 0).sum(axis=1) - 1, 1), dtype=np.float64)
