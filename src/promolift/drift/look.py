"""One look at a version's windows: which columns are further from their reference than comparable windows of training were.

The promise: a month without change raises an alarm with probability at most `alpha`. Bonferroni's inequality over the looks of a month,
the windows and the columns keeps it whatever their dependence; calibration (fitting.py) makes each p-value an honest one. A season that
training has seen is no alarm either: the window must be further away than any comparable one of training was.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from promolift.drift.columns import Columns
from promolift.drift.fitting import chance, freedom, like, squared_distance
from promolift.drift.reference import WINDOWS, Counts, Reference
from promolift.drift.sketch import Day, Sketch, column_names, numeric_count, together, width

LOOKS_A_MONTH = 31
FEWEST_ROWS = 50
"""A window of fewer rows is not looked at: the tests' limits do not hold."""
_SERIES = 24
"""Terms of the series of Anderson and Darling; the first already decides where it is used."""
Kind = Literal["feature", "basket", "score", "joint", "text", "choice", "state"]
Status = Literal["too few rows", "no drift", "drift"]


@dataclass(frozen=True)
class Finding:
    """One column in one window.

    `shift`: of a number how far the mean rank among training's is from a half, of a text the greatest change of a share; `most` in words.
    `beyond`: further from training than any of its own windows was. `worth`: independent rows that the window is worth.
    `statistic`: 6 T or chi-square by degree of freedom, after the design effect: 1 by chance.
    """

    column: str
    kind: Kind
    days: int
    shoppers: int
    worth: float
    statistic: float
    p_value: float
    beyond: bool
    shift: float
    most: str


@dataclass(frozen=True)
class Look:
    """The answer for one day. `findings`: those that raise an alarm, smallest p first; `limit`: what a p-value had to be below."""

    version: str
    day: str
    status: Status
    alpha: float
    limit: float
    windows: Mapping[str, Mapping[str, int]]
    findings: tuple[Finding, ...]
    nearest: tuple[Finding, ...]


def look(reference: Reference, by_day: Mapping[int, Day], day: int, alpha: float = 0.05, since: int | None = None) -> Look:
    """The look at the end of `day`, over each of WINDOWS that the version has been served for.

    `by_day`: the days that had rows; `since`: the first day of all (default: of these).
    """
    first = min(by_day, default=day) if since is None else since
    names, k = column_names(reference.columns), width(reference.columns)
    limit = alpha / LOOKS_A_MONTH / len(WINDOWS) / len(names)
    found: list[Finding] = []
    windows = {}
    for place, length in enumerate(WINDOWS):
        days = [by_day[d] for d in range(day - length + 1, day + 1) if d in by_day]
        if not days or first > day - length + 1 or (window := together(days, k)).rows < FEWEST_ROWS:
            continue
        windows[str(length)] = {"rows": window.rows, "shoppers": window.shoppers, "days": len(days)}
        found += _findings(reference, window, day - length + 1, place)
    found.sort(key=lambda finding: finding.p_value)
    alarms = tuple(finding for finding in found if finding.p_value <= limit and finding.beyond)
    status: Status = "drift" if alarms else "no drift" if windows else "too few rows"
    return Look(reference.version, str(np.datetime64(day, "D")), status, alpha, limit, windows, alarms, tuple(found[:5]))


def _findings(reference: Reference, window: Sketch, first: int, place: int) -> list[Finding]:
    training = like(reference, place, first)
    p_values, statistics, worth, beyond = tested(reference, place, training, window)
    names, held = column_names(reference.columns), window.counts.sum(axis=1)
    return [
        Finding(
            name, kind_of(reference.columns, name), WINDOWS[place], round(float(held[f])), round(float(worth[f]), 1),
            round(float(statistics[f]), 3), float(p_values[f]), bool(beyond[f]),
            *_shift(reference.columns, name, f, training[f], window.counts[f]),
        )
        for f, name in enumerate(names) if held[f] >= FEWEST_ROWS
    ]  # fmt: skip


def tested(reference: Reference, place: int, training: Counts, window: Sketch) -> tuple[NDArray[np.float64], ...]:
    """p-values, statistics, worth in independent rows, and whether it is further than any of training, each [F], of a window."""
    apart = squared_distance(reference.columns, training, window.counts)
    by_chance = chance(reference, place, training, window)
    variance = by_chance + reference.between[place]
    statistics, numbers = apart / variance, numeric_count(reference.columns)
    free = freedom(reference.columns, training, window.counts)[numbers:]
    ordered = [cvm_tail(statistic / 6) for statistic in statistics[:numbers]]
    return (
        np.concatenate([ordered, stats.chi2.sf(statistics[numbers:] * free, free)]),
        statistics,
        1 / variance,
        apart - by_chance > reference.furthest[place],
    )


def cvm_tail(statistic: float) -> float:
    """P(omega-squared > statistic) of Cramér and von Mises' limit: one less the series of Anderson and Darling (1952) in Bessel's K_1/4.

    scipy has it inside `cramervonmises_2samp` only, which takes samples. Where the difference would be rounding error, the leading term of
    the tail: omega-squared is the sum of Z_j² / (j pi)²; far out the first decides, times the root of 2 for all others.
    """
    if statistic <= 0.003:
        return 1.0
    if statistic > 2.0:
        return float(np.sqrt(2) * stats.chi2.sf(np.pi**2 * statistic, 1))
    j = np.arange(_SERIES)
    y = (4 * j + 1) ** 2 / (16 * statistic)
    terms = special.gamma(j + 0.5) / (np.pi**1.5 * special.gamma(j + 1)) * np.sqrt(4 * j + 1) * np.exp(-2 * y) * special.kve(0.25, y)
    return float(min(1.0, max(0.0, 1 - terms.sum() / np.sqrt(statistic))))


def kind_of(columns: Columns, name: str) -> Kind:
    """What a column says something of."""
    if name in columns.features:
        return "feature"
    if name.startswith("value:"):
        return "score"
    if name.startswith("joint:"):
        return "joint"
    if name in columns.numbers or name == "store" or name.startswith("has_"):
        return "basket"
    return "choice" if name == "choice" else "text" if name in columns.attributes else "state"


def _shift(columns: Columns, name: str, place: int, training: Counts, window: Counts) -> tuple[float, str]:
    """How the column moved, and in words where to."""
    here, there = window / max(window.sum(), 1), training / max(training.sum(), 1)
    if place < numeric_count(columns):
        middle = np.cumsum(there) - there / 2
        rank = float((here * middle).sum() - (there * middle).sum())
        return round(rank, 4), f"{'higher' if rank > 0 else 'lower'}: a row of now exceeds one of training in {0.5 + rank:.0%} of pairs"
    values = (*columns.texts.get(name, ("no", "yes")), "never seen")
    most = int(np.argmax(np.abs(here - there)))
    value = values[most] if most < len(values) else "?"
    return round(float(here[most] - there[most]), 4), f"'{value}' {there[most]:.1%} -> {here[most]:.1%}"
