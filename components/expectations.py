"""A table's contract -> Great Expectations suites: its schema, its rows, and the facts that span columns or lists."""

from collections.abc import Sequence
from typing import Any

import great_expectations.expectations as gxe
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from promolift.contracts.tables import Column, Dtype, Table

ARROW_TYPES: dict[Dtype, pa.DataType] = {
    "string": pa.string(), "int64": pa.int64(), "float32": pa.float32(), "float64": pa.float64(), "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", "UTC"), "list<string>": pa.list_(pa.string()), "list<float64>": pa.list_(pa.float64()),
}  # fmt: skip
SUM_TOLERANCE = 1e-6
"""How far the propensities of one decision may be from 1 in sum, and a logged propensity from its entry in the vector."""


def schema_rows(table: Table, stored: pa.Schema) -> pa.Table:
    """One row a column of the contract: what is `stored` beside what the `contract` says, both as 'name type'."""
    types = {f.name: _plain(f.type) for f in stored}
    return pa.table(
        {
            "stored": [f"{c.name} {types.get(c.name, 'missing')}" for c in table.columns],
            "contract": [f"{c.name} {ARROW_TYPES[c.dtype]}" for c in table.columns],
        }
    )


def _plain(dtype: pa.DataType) -> str:
    """Name of a stored type; a list's element is called `element` by Spark and `item` by Arrow."""
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        return str(pa.list_(dtype.value_type))
    return {"large_string": "string", "string_view": "string"}.get(str(dtype), str(dtype))


def fact_rows(rows: pa.Table, arms: Sequence[str]) -> pa.Table | None:
    """What a vector of propensities must obey, one row a decision; None for a table without propensities.

    Columns: `decision`; `arms`: length of the vector; `total`: its sum; `of_arm`: its entry for the arm given (null for an unknown
    arm); `gap`: |logged propensity - of_arm| where the table has a `propensity`.
    """
    if "propensities" not in rows.column_names:
        return None
    vectors = rows["propensities"].combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(vectors), 0).to_numpy(zero_copy_only=False)
    parents, flat = pc.list_parent_indices(vectors).to_numpy(), pc.list_flatten(vectors).to_numpy(zero_copy_only=False)
    total = np.bincount(parents, weights=flat, minlength=len(rows))
    of_arm = _entry_of_arm(rows["promo_id"], arms, lengths, flat)
    facts = {"decision": rows["exposure_id"], "arms": lengths, "total": total, "of_arm": of_arm}
    if "propensity" in rows.column_names:
        facts["gap"] = pc.abs(pc.subtract(rows["propensity"], of_arm))
    return pa.table(facts)


def _entry_of_arm(promo_ids: pa.ChunkedArray, arms: Sequence[str], lengths: np.ndarray[Any, Any], flat: np.ndarray[Any, Any]) -> pa.Array:
    """Entry of each vector at the index of its arm; null where the arm is unknown or the vector too short."""
    index = pc.fill_null(pc.index_in(promo_ids, pa.array(arms, pa.string())), -1).to_numpy()
    known = (index >= 0) & (index < lengths)
    starts = np.cumsum(lengths) - lengths
    entries = np.zeros(len(index))
    entries[known] = flat[(starts + index)[known]]
    return pa.array(entries, mask=~known)


def for_schema(table: Table) -> list[Any]:
    """Expectations on `schema_rows`."""
    return [gxe.ExpectColumnPairValuesToBeEqual(column_A="stored", column_B="contract")]


def for_rows(table: Table) -> list[Any]:
    """Expectations on the rows: column set and order, key, emptiness, nulls (NaN and infinity are read as null), limits, legal values."""
    least = 0 if table.may_be_empty else 1
    found = [
        gxe.ExpectTableColumnsToMatchOrderedList(column_list=list(table.names)),
        gxe.ExpectTableRowCountToBeBetween(min_value=least),
        _unique(table.key),
    ]
    for column in table.columns:
        found += _for_column(column)
    if {"moment", "window_end"} <= set(table.names):
        found.append(gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="window_end", column_B="moment"))
    return found


def _unique(key: tuple[str, ...]) -> Any:
    if len(key) == 1:
        return gxe.ExpectColumnValuesToBeUnique(column=key[0])
    return gxe.ExpectCompoundColumnsToBeUnique(column_list=list(key))


def _for_column(column: Column) -> list[Any]:
    found: list[Any] = []
    if not column.nullable:
        found.append(gxe.ExpectColumnValuesToNotBeNull(column=column.name))
    if column.minimum is not None or column.maximum is not None:
        found.append(gxe.ExpectColumnValuesToBeBetween(column=column.name, min_value=column.minimum, max_value=column.maximum))
    if column.allowed is not None:
        found.append(gxe.ExpectColumnValuesToBeInSet(column=column.name, value_set=list(column.allowed)))
    return found


def for_facts(facts: pa.Table, arms: Sequence[str]) -> list[Any]:
    """Expectations on `fact_rows`: as many propensities as arms, their sum 1, the arm's own above 0 and equal to the logged one."""
    found = [
        gxe.ExpectColumnValuesToBeInSet(column="arms", value_set=[len(arms)]),
        gxe.ExpectColumnValuesToBeBetween(column="total", min_value=1 - SUM_TOLERANCE, max_value=1 + SUM_TOLERANCE),
        gxe.ExpectColumnValuesToNotBeNull(column="of_arm"),
        gxe.ExpectColumnValuesToBeBetween(column="of_arm", min_value=0, max_value=1, strict_min=True),
    ]
    if "gap" in facts.column_names:
        found.append(gxe.ExpectColumnValuesToBeBetween(column="gap", min_value=0, max_value=SUM_TOLERANCE))
    return found
