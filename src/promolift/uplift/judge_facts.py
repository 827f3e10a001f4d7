"""The table of an experiment -> what the report says about it: types as inferred, checksum, and what a reviewer must be warned of."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from promolift.uplift.clusters import Floats, Integers

DOMINANT_SHARE = 0.05
"""Share of a column's variance in one row from which that row is reported."""


def sha256(file: Path) -> str:
    """Checksum of the file's bytes, hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def describe(table: Any, parts: dict[str, str]) -> dict[str, Any]:
    """Every column that plays a part (`parts`: column -> part) with type, example and empty values; and the duplicated rows."""
    columns = [_column(table[name], name, part) for name, part in parts.items()]
    return {"columns": columns, "columns_unused": table.shape[1] - len(columns), "duplicated_rows": _duplicated(table)}


def _column(given: Any, name: str, part: str) -> dict[str, Any]:
    counts = {"distinct": int(given.nunique()), "empty": int(given.isna().sum())}
    return {"name": name, "role": part, "type": _kind(given), "example": str(given.iloc[0]), **counts}


def _kind(given: Any) -> str:
    names = {"b": "true or false", "i": "whole number", "u": "whole number", "f": "number", "M": "time"}
    return names.get(given.dtype.kind, "text")


def _duplicated(table: Any) -> int:
    """Rows equal to an earlier one in every column; nested values are compared by their text."""
    try:
        return int(table.duplicated().sum())
    except TypeError:
        return int(table.astype(str).duplicated().sum())


def dominance(values: Floats) -> tuple[float, int]:
    """Share of the sum of squares about the mean of `values` [n] that comes from one row, and that row's index; 0 when all are equal.

    The scale is taken out first, so that a value near the largest float does not overflow.
    """
    scale = float(np.abs(values).max())
    if scale == 0:
        return 0.0, 0
    squares = (values / scale - (values / scale).mean()) ** 2
    total, row = float(squares.sum()), int(squares.argmax())
    return (float(squares[row]) / total if total > 0 else 0.0), row


def warn(facts: dict[str, Any], money: dict[str, Floats], scores: dict[str, Floats], rows: Integers) -> tuple[str, ...]:
    """Sentences about duplicated rows, rows that dominate a column of `money`, and scores that are the same everywhere."""
    found = []
    if facts["duplicated_rows"]:
        share = facts["duplicated_rows"] / facts["rows"]
        found.append(
            f"{facts['duplicated_rows']:,} of {facts['rows']:,} rows ({share:.1%}) equal an earlier row in every column; "
            "if they are the same decision delivered twice, every interval here is too narrow."
        )
    for name, values in money.items():
        share, row = dominance(values)
        if share >= DOMINANT_SHARE:
            found.append(
                f"Row {rows[row]} alone holds {share:.1%} of the variance of column '{name}' (its value is {values[row]:.6g}, "
                f"the median {np.median(values):.6g}); every estimate from '{name}' hangs on it."
            )
    for name, table in scores.items():
        if np.ptp(table) == 0:
            found.append(f"Score '{name}' is {table.flat[0]:.6g} in every row; it orders nobody.")
    return tuple(found)
