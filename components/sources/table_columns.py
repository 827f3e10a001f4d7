"""Columns of somebody's file -> covariates with inferred types, each a sentence of the report."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from promolift.contracts.promos import Covariate
from promolift.contracts.tables import EXPOSURES, LABELS
from promolift.errors import InputError
from promolift.uplift.judge_table import LARGEST, refuse, text

MOST_TEXTS = 1_000
"""Distinct texts of one column beyond which it is an identifier rather than a description."""
SKEWED = 2.0
"""Skewness from which a number of at least 0 enters the network as its logarithm."""
MISSING = "{}_is_missing"


@dataclass(frozen=True)
class Given:
    """A covariate, its values (pandas, missing ones empty) and what was inferred of it."""

    covariate: Covariate
    values: Any
    said: str


def covariates(table: Any, names: tuple[str, ...]) -> list[Given]:
    """Covariates of the columns `names` in their order; a column with empty numbers brings a second one that says where.

    Raises InputError for a name that the lake uses itself or that two have, for times, infinite numbers, texts that are identifiers, and
    empty columns.
    """
    found = [given for name in names for given in _of(table[name], name)]
    seen = {c.name for c in (*EXPOSURES.columns, *LABELS)} | {"arrived_at", "delivery", "reason"}
    for given in found:
        name = given.covariate.name
        if name.lower() in seen:
            raise InputError(f"Feature '{name}' has a name that the tables use already; rename the column in the file.")
        seen.add(name.lower())
    return found


def stored(name: str) -> str:
    """The column's name in the tables, which take letters, digits and _ only: 'Income ($)' is Income."""
    return re.sub(r"\W+", "_", name).strip("_") or "feature"


def _of(column: Any, name: str) -> Iterator[Given]:
    if column.isna().all():
        raise InputError(f"Feature '{name}' is empty in all {len(column)} rows; leave it out of `features`.")
    if column.dtype.kind in "mM":
        raise InputError(
            f"Feature '{name}' holds times, such as {column.dropna().iloc[0]}; give a number, such as days before the decision."
        )
    yield from (_numbers(column, name) if column.dtype.kind in "biuf" else (_texts(column, name),))


def _numbers(column: Any, name: str) -> Iterator[Given]:
    values = column.astype("float64")
    refuse(np.asarray(values.abs() > LARGEST), column, name, f"a number beyond {LARGEST:g}", np.arange(len(column)) + 1)
    known = values.dropna()
    amount = known.min() >= 0 and known.max() > 1 and known.skew() > SKEWED
    middle, empty = float(known.median()), int(values.isna().sum())
    said = f"{'amount' if amount else 'number'} from {known.min():g} to {known.max():g}, median {middle:g}"
    yield Given(Covariate(stored(name), "amount" if amount else "number", middle), values, said + (f", {empty:,} empty" if empty else ""))
    if empty:
        covariate = Covariate(MISSING.format(stored(name)), "number")
        yield Given(covariate, values.isna().astype("float64"), f"1 where {name} is empty, whose median then stands for it")


def _texts(column: Any, name: str) -> Given:
    values = column.map(text, na_action="ignore")
    distinct, empty = int(values.nunique()), int(values.isna().sum())
    if distinct > MOST_TEXTS:
        raise InputError(
            f"Feature '{name}' has {distinct:,} different texts, such as '{values.dropna().iloc[0]}', so it names rather than describes; "
            "leave it out of `features`, or group its values."
        )
    said = f"text with {distinct:,} values" + (f", {empty:,} empty" if empty else "")
    return Given(Covariate(stored(name), "text"), values.astype(pd.StringDtype()), said)
