"""x, arm and outcome as a caller has them -> checked float64 arrays, the split into train and validation, and what a network sees."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from promolift.errors import InputError

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
LEAST_ROWS = 5
"""Rows that each arm must have: some to train, some to validate."""


@dataclass(frozen=True)
class Scaling:
    """What the network sees: (x - middle) / width and (y - shift) / unit."""

    middle: Floats
    width: Floats
    shift: float
    unit: float

    def inputs(self, x: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """[n, d] in standard deviations. Raises InputError on another number of columns and on NaN or infinite cells."""
        table = _table(x)
        if table.shape[1] != len(self.middle):
            raise InputError(f"x has {table.shape[1]} columns but the model was trained on {len(self.middle)}: give the same columns.")
        return np.asarray((table - self.middle) / self.width, dtype=np.float32)


def split(arm: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    """Row numbers of train and validation; every arm is divided by the same share, with at least one row on each side."""
    generator = np.random.default_rng([seed, len(arm)])
    validation = []
    for value in range(int(arm.max()) + 1):
        rows = generator.permutation(np.flatnonzero(arm == value))
        validation.append(rows[: min(max(round(share * len(rows)), 1), len(rows) - 1)])
    chosen = np.sort(np.concatenate(validation))
    return np.setdiff1d(np.arange(len(arm)), chosen), chosen


def scaled(x: Floats, y: Floats, outcome: str) -> Scaling:
    """Means and standard deviations of the train rows; the unit of a ziln amount is the geometric mean of its positive values."""
    width = x.std(axis=0)
    constant = width < 1e-9 * np.maximum(np.abs(x).max(axis=0), 1e-9)
    shift, unit = 0.0, 1.0
    if outcome == "continuous":
        shift, unit = float(y.mean()), float(y.std()) or 1.0
    if outcome == "ziln" and (y > 0).any():
        unit = float(np.exp(np.log(y[y > 0]).mean()))
    return Scaling(x.mean(axis=0), np.where(constant, 1.0, width), shift, unit)


def checked(x: npt.ArrayLike, arm: npt.ArrayLike, outcome: npt.ArrayLike, kind: str) -> tuple[Floats, Rows, Floats]:
    """The table x [n, d], arm [n] and outcome [n] as float64, int64, float64.

    Raises InputError on unequal lengths, NaN or infinite cells, arms that are not 0..K with at least LEAST_ROWS rows each, a constant
    outcome, a binary outcome that is not 0 or 1, and a ziln amount below 0.
    """
    table, arms, y = _table(x), np.asarray(arm), np.asarray(outcome, dtype=np.float64)
    if arms.shape != (len(table),) or y.shape != (len(table),):
        raise InputError(f"x has {len(table)} rows, arm has shape {arms.shape} and outcome {y.shape}: give one arm and outcome per row.")
    _check_outcome(y, kind)
    return table, _arms(arms), y


def _table(x: npt.ArrayLike) -> Floats:
    table = np.asarray(x, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] == 0:
        raise InputError(f"x has shape {table.shape} but must be a table [rows, columns] with at least one column.")
    bad = ~np.isfinite(table)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise InputError(f"x has {bad.sum()} NaN or infinite cells, the first in row {row}, column {column}: fill or drop them.")
    return table


def _arms(arm: npt.NDArray[Any]) -> Rows:
    found = np.unique(arm)
    if len(found) < 2:
        raise InputError(f"arm has only the value {found.tolist()}: an effect needs rows of the control (0) and of another arm.")
    if arm.dtype.kind not in "biuf" or not np.array_equal(found, np.arange(len(found))):
        raise InputError(f"arm has the values {found[:10].tolist()} but must be 0 (control) to K without gaps: number the arms so.")
    arms = arm.astype(np.int64)
    counts = np.bincount(arms)
    if counts.min() < LEAST_ROWS:
        raise InputError(f"Arm {counts.argmin()} has {counts.min()} rows but training and validation need {LEAST_ROWS}: add rows.")
    return arms


def _check_outcome(y: Floats, kind: str) -> None:
    bad = ~np.isfinite(y)
    if bad.any():
        raise InputError(f"outcome has {bad.sum()} NaN or infinite values, the first in row {int(bad.argmax())}: fill or drop them.")
    if len(y) and y.min() == y.max():
        raise InputError(f"outcome is {y[0]:g} in all {len(y)} rows: a constant outcome shows no effect, so nothing can be learned.")
    wrong = {"binary": ~np.isin(y, (0.0, 1.0)), "ziln": y < 0}.get(kind, np.zeros(len(y), bool))
    if wrong.any():
        rule = "0 or 1" if kind == "binary" else "0 or more"
        row = int(wrong.argmax())
        raise InputError(f"outcome has {wrong.sum()} values that are not {rule}, the first {y[row]:g} in row {row}: {kind} needs them so.")
