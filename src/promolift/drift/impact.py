"""What an alarm costs: the window's decisions as they were, against those with the drifted column put back to training's distribution.

Ranks are kept: the shopper with the window's k-th smallest value gets training's k-th smallest, texts that became too frequent are redrawn.
Where the drift is a fault of the data, the second decision is the right one, and the difference of its value to that of the first, both by
the model on the repaired row, is what is at stake. Where the world has changed, it says how much of what is decided hangs on the change.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from promolift.drift.columns import Columns, Rows
from promolift.drift.look import Finding, Look

Score = Callable[[NDArray[np.float32], NDArray[np.int32]], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Features [n, N] and codes of attributes [n, A] -> value and its lower bound of every promo [n, P]."""
MOST = 2_000
"""Rows of a window that are decided again."""


@dataclass(frozen=True)
class Impact:
    """`changed`: share of decisions that would be another one; `cents`: value at stake a decision; `rows`: how many were decided again."""

    changed: float
    cents: float
    rows: int

    def of_all(self, share: float) -> "Impact":
        """Where only a share of all rows was looked at: what it is of all of them."""
        return replace(self, changed=round(self.changed * share, 4), cents=round(self.cents * share, 2))


Key = tuple[str, str, int]
"""Column, segment and days of a finding."""


def key_of(finding: Finding) -> Key:
    """What names a finding within its look."""
    return finding.column, finding.segment, finding.days


def impact(columns: Columns, finding: Finding, window: Rows, training: Rows, score: Score) -> Impact | None:
    """The impact of one finding; None for a column that the model does not read."""
    if finding.kind not in {"feature", "text"}:
        return None
    draw = np.random.default_rng(1)
    rows = window if len(window) <= MOST else window[np.sort(draw.permutation(len(window))[:MOST])]
    repaired = rows.copy()
    if finding.kind == "feature":
        at = columns.numbers.index(finding.column)
        repaired["numbers"][:, at] = as_in_training(rows["numbers"][:, at], training["numbers"][:, at], draw)
    else:
        at = list(columns.texts).index(finding.column)
        repaired["codes"][:, at] = redrawn(rows["codes"][:, at], training["codes"][:, at], draw)
    return _compared(columns, rows, repaired, score)


def _compared(columns: Columns, rows: Rows, repaired: Rows, score: Score) -> Impact:
    given, wanted = (_chosen(columns, part, score) for part in (rows, repaired))
    value = wanted[1]
    at = np.arange(len(rows))
    gain = value[at, wanted[0]] - value[at, given[0]]
    return Impact(round(float((given[0] != wanted[0]).mean()), 4), round(float(gain.mean()), 2), len(rows))


def _chosen(columns: Columns, rows: Rows, score: Score) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The choice [n] that profit makes where the lower bound allows it, 0 for no promo, and the value of each choice [n, P + 1]."""
    features, attributes = len(columns.features), len(columns.attributes)
    numeric = np.nan_to_num(rows["numbers"][:, :features])
    value, lower = score(numeric.astype(np.float32), np.maximum(rows["codes"][:, :attributes], 0).astype(np.int32))
    allowed = np.where(lower >= 0, value, -np.inf)
    none = np.zeros((len(rows), 1))
    return np.argmax(np.concatenate([none, allowed], axis=1), axis=1), np.concatenate([none, value], axis=1)


def as_in_training(values: NDArray[np.float32], training: NDArray[np.float32], draw: np.random.Generator) -> NDArray[np.float32]:
    """Training's value at the same rank; ties and missing values are ranked at random."""
    order = np.lexsort((draw.random(len(values)), np.nan_to_num(values, nan=float(np.nanmedian(training)))))
    ranks = np.empty(len(values))
    ranks[order] = (np.arange(len(values)) + 0.5) / len(values)
    return np.asarray(np.quantile(training[~np.isnan(training)], ranks, method="inverted_cdf"), dtype=np.float32)


def redrawn(codes: NDArray[np.int16], training: NDArray[np.int16], draw: np.random.Generator) -> NDArray[np.int16]:
    """Codes with those of the texts that are too frequent drawn from what is too rare."""
    names = np.union1d(codes, training)
    here, there = (np.array([(part == name).mean() for name in names]) for part in (codes, training))
    lacking = np.maximum(there - here, 0)
    if not lacking.sum():
        return codes
    excess = np.divide(np.maximum(here - there, 0), here, out=np.zeros_like(here), where=here > 0)
    moved = draw.random(len(codes)) < excess[np.searchsorted(names, codes)]
    return np.where(moved, draw.choice(names, len(codes), p=lacking / lacking.sum()), codes).astype(np.int16)


def ranked(found: Look, impacts: Mapping[Key, Impact | None]) -> Look:
    """The look with its alarms in the order of what they cost; those that the model does not read come last, smallest p first."""

    def cost(finding: Finding) -> tuple[float, float, float]:
        known = impacts.get(key_of(finding))
        return (-known.cents, -known.changed, finding.p_value) if known else (0.0, 0.0, finding.p_value)

    return replace(found, findings=tuple(sorted(found.findings, key=cost)))
