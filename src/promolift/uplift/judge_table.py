"""A CSV or Parquet file -> its table, and columns of it as checked numbers or labels; a column at fault is named with count and example."""

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promolift.errors import InputError
from promolift.uplift.clusters import Floats, Integers
from promolift.uplift.libraries import library

Mask = NDArray[np.bool_]
LARGEST = 1e12
"""Numbers beyond this are not amounts; their squares would also leave nothing of the others in float64."""
SMALLEST = 1e-100
"""Numbers nearer to 0 than this have squares that float64 rounds to 0."""


def read_table(file: Path) -> Any:
    """The pandas table of a CSV (plain or gzipped) or Parquet file. Raises InputError when it is missing, unreadable or empty."""
    if not file.is_file():
        raise InputError(f"There is no file {file}; give the path of a CSV, CSV.GZ or Parquet file.")
    pandas = library("pandas", f"Reading {file.name}")
    kind = file.name.lower()
    try:
        if kind.endswith((".parquet", ".pq")):
            library("pyarrow", f"Reading {file.name}")
            table = pandas.read_parquet(file)
        elif kind.endswith((".csv", ".csv.gz")):
            table = pandas.read_csv(file, keep_default_na=False, na_values=[""], low_memory=False)
        else:
            raise InputError(f"{file.name} is not a .csv, .csv.gz or .parquet file; save it as one of these.")
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise InputError(f"{file.name} cannot be read as its ending says: {str(error).splitlines()[0]}.") from error
    if not len(table):
        raise InputError(f"{file.name} has a header but no rows; there is nothing to judge.")
    return table


def need(table: Any, file: str, wanted: Iterable[str]) -> None:
    """Raises InputError, with the columns that there are, when one of `wanted` is missing; "" is not looked for."""
    names = [str(name) for name in table.columns]
    for column in wanted:
        if column and column not in names:
            raise InputError(f"{file} has no column '{column}'; its columns are: {', '.join(names)}.")


def numbers(table: Any, column: str, rows: Integers) -> Floats:
    """The column as float64 [n]. Raises InputError with the count and an example of values that are not finite numbers."""
    pandas = library("pandas", "Reading numbers")
    given = table[column]
    if given.dtype.kind in "mM":
        raise InputError(f"Column '{column}' holds times, row {rows[0]} is '{given.iloc[0]}'; a number is needed here.")
    values = np.asarray(pandas.to_numeric(given, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
    refuse(~np.isfinite(values), given, column, "no finite number", rows)
    size = np.abs(values)
    refuse(size > LARGEST, given, column, f"a number beyond {LARGEST:g}", rows)
    refuse((size > 0) & (size < SMALLEST), given, column, f"a number nearer to 0 than {SMALLEST:g}", rows)
    return values


def refuse(wrong: Mask, given: Any, column: str, what: str, rows: Integers) -> None:
    """Raises InputError about the rows that are `wrong` [n], with their count and the first of them; `rows` [n] are their numbers."""
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        value = given.iloc[first] if hasattr(given, "iloc") else given[first]
        shown = "empty" if str(value) in ("nan", "<NA>", "NaT", "None") else f"'{value}'"
        raise InputError(
            f"Column '{column}' holds {what} in {int(wrong.sum())} of {len(wrong)} rows; row {rows[first]} is {shown}. "
            "Repair or drop these rows."
        )


def labels(table: Any, column: str, rows: Integers) -> tuple[Integers, tuple[str, ...]]:
    """Code [n] of each row's value, and the values as text in sorted order. Raises InputError on empty values."""
    pandas = library("pandas", "Reading labels")
    given = table[column]
    if given.dtype == object:  # values of several types do not sort
        given = given.map(text, na_action="ignore")
    codes, values = pandas.factorize(given, sort=True)
    refuse(codes < 0, given, column, "no value", rows)
    return codes.astype(np.int64), tuple(text(value) for value in values)


def text(value: Any) -> str:
    """The value as text; a whole number without decimals."""
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if whole else str(value)


def quoted(names: Iterable[str]) -> str:
    """The names in quotes, for a sentence."""
    return ", ".join(f"'{name}'" for name in names)
