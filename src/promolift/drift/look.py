"""One look at a version's windows: which columns are further from their reference than comparable windows of training were.

The promise: a month without change raises an alarm with probability at most `alpha`. Bonferroni's inequality over the looks of a month,
the windows, the columns and the segments keeps it whatever their dependence; calibration (fitting.py) makes each p-value an honest one. A
season that training has seen is no alarm either: the window must be further away than any comparable one of training was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from promolift.drift.columns import Columns
from promolift.drift.fitting import chance, freedom, like, merged, squared_distance
from promolift.drift.joint_rows import joint_p_value
from promolift.drift.reference import WINDOWS, Counts, Reference
from promolift.drift.sketch import Day, Sketch, column_names, numeric_count, together, width, within
from promolift.drift.two_samples import CALIBRATED, ChosenTests, Floats, JointTest, Pair

LOOKS_A_MONTH = 31
FEWEST_ROWS = 50
"""A window of fewer rows is not looked at: the tests' limits do not hold."""
TOGETHER, JOINT_SHARE = "joint:features", 0.5
"""What a test of all features at once is called, and its share of `alpha`: one p-value, beside one of each column."""
Kind = Literal["feature", "basket", "score", "joint", "text", "choice", "state"]
Status = Literal["too few rows", "no drift", "drift"]


@dataclass(frozen=True)
class Finding:
    """One column in one window.

    `shift`: of a number how far the mean rank among training's is from a half, of a text the greatest change of a share; `most` in words.
    `beyond`: further from training than any of its own windows was. `worth`: independent rows that the window is worth.
    `statistic`: 6 T or chi-square by degree of freedom, after the design effect: 1 by chance. `limit`: below it p is an alarm.
    `segment`: whose rows, "" for everybody's.
    """

    column: str
    kind: Kind
    days: int
    shoppers: int
    worth: float
    statistic: float | None
    p_value: float
    limit: float
    beyond: bool
    shift: float
    most: str
    segment: str = ""


@dataclass(frozen=True)
class Look:
    """The answer for one day. `findings`: those that raise an alarm, smallest p first.

    Everybody's, not of a segment: `windows`, `nearest`, and `limit`, what a column's p-value had to be below.
    """

    version: str
    day: str
    status: Status
    alpha: float
    limit: float
    windows: Mapping[str, Mapping[str, int]]
    findings: tuple[Finding, ...]
    nearest: tuple[Finding, ...]


def look(  # noqa: PLR0917 (what is looked at, then how)
    reference: Reference,
    by_day: Mapping[int, Day],
    day: int,
    alpha: float = 0.05,
    since: int | None = None,
    tests: ChosenTests = CALIBRATED,
) -> Look:
    """The look at the end of `day`, over each of WINDOWS that the version has been served for, at everybody and at each segment.

    `by_day`: the days that had rows; `since`: the first day of all (default: of these). Where there are segments, half of `alpha` is
    everybody's; a segment is compared by columns only.
    """
    first = min(by_day, default=day) if since is None else since
    whole = alpha / 2 if reference.segments else alpha
    found = _looked(reference, by_day, day, whole, first, tests)
    findings = [*found.findings]
    for segment, own in reference.segments.items():
        parts = {d: rows.only(within(reference.columns, segment, rows.bins)) for d, rows in by_day.items()}
        of_segment = {d: part for d, part in parts.items() if len(part.shoppers)}
        shown = _looked(own, of_segment, day, (alpha - whole) / len(reference.segments), first, replace(tests, joint=None))
        findings += [replace(finding, segment=segment.name) for finding in shown.findings]
    status: Status = "drift" if findings else found.status
    return replace(found, alpha=alpha, status=status, findings=tuple(sorted(findings, key=lambda finding: finding.p_value)))


def _looked(  # noqa: PLR0917 (those of `look`)
    reference: Reference, by_day: Mapping[int, Day], day: int, alpha: float, first: int, tests: ChosenTests
) -> Look:
    """The look at the rows of one reference."""
    names, k = column_names(reference.columns), width(reference.columns)
    each = alpha / LOOKS_A_MONTH / len(WINDOWS)
    limit, of_joint = (each * (1 - JOINT_SHARE) / len(names), each * JOINT_SHARE) if tests.joint else (each / len(names), 0.0)
    found: list[Finding] = []
    windows = {}
    for place, length in enumerate(WINDOWS):
        days = [by_day[d] for d in range(day - length + 1, day + 1) if d in by_day]
        if not days or first > day - length + 1 or (window := together(days, k)).rows < FEWEST_ROWS:
            continue
        windows[str(length)] = {"rows": window.rows, "shoppers": window.shoppers, "days": len(days)}
        of_window = _findings(reference, window, day - length + 1, place, limit, tests)
        found += of_window
        if tests.joint and any(finding.kind == "joint" for finding in of_window):
            found.append(_together(reference, of_window, days, day, tests.joint, of_joint))
    found.sort(key=lambda finding: finding.p_value)
    alarms = tuple(finding for finding in found if finding.p_value <= finding.limit and finding.beyond)
    status: Status = "drift" if alarms else "no drift" if found else "too few rows"  # of too few shoppers nothing was compared
    return Look(reference.version, str(np.datetime64(day, "D")), status, alpha, limit, windows, alarms, tuple(found[:5]))


def _findings(  # noqa: PLR0917 (one of `look`'s each)
    reference: Reference, window: Sketch, first: int, place: int, limit: float, tests: ChosenTests
) -> list[Finding]:
    training = like(reference, place, first)
    p_values, statistics, worth, beyond = tested(reference, place, training, window, tests)
    names, held = column_names(reference.columns), window.counts.sum(axis=1)
    return [
        Finding(
            name, kind_of(reference.columns, name), WINDOWS[place], round(float(held[f])), round(float(worth[f]), 1),
            round(float(statistics[f]), 3), float(p_values[f]), limit, bool(beyond[f]),
            *_shift(reference.columns, name, f, training[f], window.counts[f]),
        )
        for f, name in enumerate(names) if held[f] >= FEWEST_ROWS
    ]  # fmt: skip


def tested(
    reference: Reference, place: int, training: Counts, window: Sketch, tests: ChosenTests = CALIBRATED
) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
    """p-values, statistics, worth in independent rows, and whether it is further than any of training, each [F], of a window."""
    apart = squared_distance(reference.columns, training, window.counts)
    by_chance = chance(reference, place, training, window)
    worth = 1 / (by_chance + reference.between[place])
    pairs = merged(reference.columns, training, window.counts)
    whole = Pair(*pairs, worth, apart * worth, freedom(reference.columns, training, window.counts))
    numbers = numeric_count(reference.columns)
    p_values = np.concatenate([tests.numbers(whole.columns(slice(None, numbers))), tests.texts(whole.columns(slice(numbers, None)))])
    return p_values, apart * worth, worth, apart - by_chance > reference.furthest[place]


def _together(  # noqa: PLR0917 (one of `look`'s each)
    reference: Reference, columns: Sequence[Finding], days: Sequence[Day], day: int, test: JointTest, limit: float
) -> Finding:
    """All features at once. It is beyond training where some column of theirs is."""
    of_features = [finding for finding in columns if finding.kind in {"feature", "joint"}]
    worth = min(finding.worth for finding in of_features if finding.kind == "joint")
    p_value = joint_p_value(reference, days, day, WINDOWS.index(columns[0].days), worth, test)
    told = "a row of now can be told from one of training by its features together"
    shoppers, beyond = max(f.shoppers for f in of_features), any(f.beyond for f in of_features)
    return Finding(TOGETHER, "joint", columns[0].days, shoppers, worth, None, p_value, limit, beyond, 0.0, told)


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
