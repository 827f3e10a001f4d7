"""Real rows -> months without change and planted drifts, and what looks with some tests, and usual rules, say of them.

A month is 28 consecutive days of real baskets from a random day on, of a random half of the shoppers: weekdays, seasons and shoppers who
come again are as they were. It is looked at every evening. Two kinds: `same shoppers` (training has seen everybody) and `new shoppers` (the
reference knows the other half only). Shoppers drawn with replacement would not do: which shoppers came on a day was chance already, and to
draw among them doubles it. Beside the looks: the textbook's tests (KS and chi-square with Bonferroni over columns, alpha / 31 a look, as
alibi-detect's TabularDrift does) and the rule PSI > 0.2, on the same windows of a day.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from promolift.drift.columns import Columns, Rows
from promolift.drift.fitting import fit, freedom
from promolift.drift.look import LOOKS_A_MONTH, look
from promolift.drift.reference import Counts, Reference
from promolift.drift.sketch import Day, binned, counted, numeric_count, width
from promolift.drift.two_samples import ChosenTests

MONTH, AFTER, ALPHA = 28, 28, 0.05
"""Days of a month; days that a planted drift has to be found in; promised share of months with a false alarm."""
PSI_LIMIT, PSI_BINS = 0.2, 8
Plant = Callable[[Columns, Rows, NDArray[np.float64]], None]


@dataclass(frozen=True)
class World:
    """Real rows, and the reference that is looked at with.

    `own`: rows [n] of shoppers whom a month may have; `share`: how many of them one has; `training`: counts of all rows of the reference.
    """

    reference: Reference
    rows: Rows
    bins: NDArray[np.intp]
    own: NDArray[np.bool_]
    share: float
    training: Counts


def of_half(reference: Reference, rows: Rows) -> World:
    """A reference of all shoppers, months of a random half of them."""
    bins = binned(reference, rows)
    return World(reference, rows, bins, np.ones(len(rows), np.bool_), 0.5, counted(bins, width(reference.columns)))


def halves(columns: Columns, rows: Rows, seed: int) -> World:
    """A reference of one random half of all shoppers, months of the other."""
    names = np.unique(rows["shopper"])
    half = (np.random.default_rng(seed).random(len(names)) < 0.5)[np.searchsorted(names, rows["shopper"])]
    reference = fit(columns, rows[half], "benchmark", 1)
    bins = binned(reference, rows)
    return World(reference, rows, bins, ~half, 1.0, counted(bins[half], width(columns)))


def days_of(place: World, draw: np.random.Generator, count: int, share: float) -> tuple[int, dict[int, NDArray[np.intp]]]:
    """A random first day, and for each of `count` days the rows of a random `share` of the shoppers in `own`."""
    shoppers = np.unique(place.rows["shopper"])
    kept = draw.random(len(shoppers)) < share
    mine = place.own & kept[np.searchsorted(shoppers, place.rows["shopper"])]
    days = place.rows["day"]
    first = int(draw.integers(days.min(), days.max() - count + 2))
    return first, {day: np.flatnonzero((days == day) & mine) for day in range(first, first + count)}


def month(place: World, tests: ChosenTests, seed: int) -> dict[str, bool]:
    """Whether a month without change raised an alarm, by rule."""
    _, days = days_of(place, np.random.default_rng(seed), MONTH, place.share)
    by_day: dict[int, Day] = {}
    found = {"look": False, "textbook": False, "psi": False}
    for day, at in days.items():
        by_day[day] = Day(place.bins[at], place.rows["shopper"][at])
        found["look"] |= look(place.reference, by_day, day, ALPHA, tests=tests).status == "drift"
        training, counts = all_rows(place, place.bins[at])
        found["textbook"] |= textbook(place.reference.columns, training, counts) <= ALPHA / LOOKS_A_MONTH
        found["psi"] |= psi(training, counts) > PSI_LIMIT
    return found


def all_rows(place: World, bins: NDArray[np.intp]) -> tuple[Counts, Counts]:
    """Counts of all training and of a day, every row once."""
    return place.training, counted(bins, width(place.reference.columns))


def textbook(columns: Columns, training: Counts, window: Counts) -> float:
    """Smallest p-value of KS (numbers) and chi-square (texts) times the number of columns, every row taken as independent."""
    n, m = window.sum(axis=1), training.sum(axis=1)
    gap = np.abs(np.cumsum(window / np.maximum(n, 1)[:, None] - training / np.maximum(m, 1)[:, None], axis=1)).max(axis=1)
    numbers = numeric_count(columns)
    harmonic = n * m / np.maximum(n + m, 1)
    ordered = special.kolmogorov(np.sqrt(harmonic[:numbers]) * gap[:numbers])
    pooled = (window + training) / np.maximum(n + m, 1)[:, None]
    square = (window / np.maximum(n, 1)[:, None] - training / np.maximum(m, 1)[:, None]) ** 2
    chi = np.divide(square, pooled, out=np.zeros_like(square), where=pooled > 0).sum(axis=1) * harmonic
    other = stats.chi2.sf(chi[numbers:], freedom(columns, training, window)[numbers:])
    return float(min(ordered.min(), other.min()) * len(gap))


def psi(training: Counts, window: Counts) -> float:
    """Largest population stability index of all columns, over PSI_BINS groups of bins, half a row added to empty ones."""
    grouped = [part.reshape(len(part), -1, part.shape[1] // PSI_BINS).sum(axis=2) for part in (training, window)]
    expected, actual = (np.maximum(part, 0.5) / np.maximum(part.sum(axis=1, keepdims=True), 1) for part in grouped)
    return float(((actual - expected) * np.log(actual / expected)).sum(axis=1).max())


def scaled(columns: Columns, rows: Rows, names: Mapping[str, float], factor: NDArray[np.float64]) -> None:
    """Multiply numbers by 1 + `names[name]` * factor [n]."""
    for name, by in names.items():
        rows["numbers"][:, columns.numbers.index(name)] *= 1 + by * factor


def dearer(columns: Columns, rows: Rows, since: NDArray[np.float64]) -> None:
    """Every price 10 % higher: baskets at once, sums over a window by the share of the window that is after the change."""
    rows["numbers"][:, columns.numbers.index("unit_price")] += np.log(1.1)
    scaled(columns, rows, {"basket_cents": 0.1}, np.ones(len(rows)))
    for window in (28, 84, 364):
        scaled(columns, rows, {f"sales_cents_{window}d": 0.1}, np.minimum(since / window, 1))


def gone(columns: Columns, rows: Rows, since: NDArray[np.float64]) -> None:
    """No deli any more: no basket has it, and the features over 84 days forget it day by day."""
    rows["codes"][:, list(columns.texts).index("has_deli")] = 0
    scaled(columns, rows, {"share_deli_84d": -1.0, "basket_share_deli_84d": -1.0}, np.minimum(since / 84, 1))


def new_stores(columns: Columns, rows: Rows, since: NDArray[np.float64]) -> None:
    """Every tenth basket comes from a store that training did not know by name."""
    rows["codes"][rows["shopper"] % 10 == 0, list(columns.texts).index("store")] = 0


def zeroed(columns: Columns, rows: Rows, since: NDArray[np.float64]) -> None:
    """One feature arrives as zero."""
    rows["numbers"][:, columns.numbers.index("sales_cents_84d")] = 0


def trend(columns: Columns, rows: Rows, since: NDArray[np.float64]) -> None:
    """Discounts grow by two per cent a day."""
    scaled(columns, rows, {"discount_share_84d": 0.02, "discount_share_364d": 0.02}, since)


def swapped(columns: Columns, rows: Rows, since: NDArray[np.float64]) -> None:
    """Two columns have changed places."""
    a, b = (columns.numbers.index(name) for name in ("share_meat_84d", "share_produce_84d"))
    rows["numbers"][:, [a, b]] = rows["numbers"][:, [b, a]]


PLANTS: dict[str, Plant] = {
    "prices +10 %": dearer, "a category gone": gone, "new stores, every tenth basket": new_stores, "a feature set to zero": zeroed,
    "a slow trend, 2 % a day": trend, "two columns swapped": swapped,
}  # fmt: skip


def delay(place: World, tests: ChosenTests, name: str, seed: int) -> dict[str, Any]:
    """Days from the planted change to the first alarm, by rule (None: not within AFTER), and the column that raised the look's."""
    first, days = days_of(place, np.random.default_rng(seed), MONTH + AFTER, 1.0)
    by_day: dict[int, Day] = {}
    found: dict[str, Any] = {"look": None, "textbook": None, "column": None}
    for day, at in days.items():
        bins, since = place.bins[at], day - (first + MONTH)
        if since >= 0:
            changed = place.rows[at].copy()
            PLANTS[name](place.reference.columns, changed, np.full(len(at), since + 1.0))
            bins = binned(place.reference, changed)
        by_day[day] = Day(bins, place.rows["shopper"][at])
        if since < 0:
            continue
        answer = look(place.reference, by_day, day, ALPHA, tests=tests)
        if answer.status == "drift" and found["look"] is None:
            found["look"], found["column"] = since + 1, answer.findings[0].column
        p = textbook(place.reference.columns, *all_rows(place, bins))
        found["textbook"] = found["textbook"] or (since + 1 if p <= ALPHA / LOOKS_A_MONTH else None)
        if found["look"] and found["textbook"]:
            break
    return found
