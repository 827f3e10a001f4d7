"""Rows of a table of the contract <-> its Delta table, in Delta's own Arrow (arro3) and engine.

Not pyarrow, which would be the largest part of the serving image, and whose bridge (deltalake 1.x) leaves threads behind that abort a
process which ends soon after.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from arro3.core import Array, DataType, Field, Schema
from arro3.core import Table as ArrowTable
from deltalake import DeltaTable, QueryBuilder

from promolift.contracts.tables import Dtype, Table
from promolift.storage import delta_options

ARROW: dict[Dtype, DataType] = {
    "string": DataType.utf8(), "int64": DataType.int64(), "float64": DataType.float64(), "timestamp": DataType.timestamp("us", tz="UTC"),
}  # fmt: skip
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
Row = dict[str, Any]


def arrow_schema(table: Table) -> Schema:
    """The Arrow form of a table of the contract."""
    return Schema([Field(c.name, ARROW[c.dtype], nullable=c.nullable) for c in table.columns])


def arrow_table(table: Table, rows: Sequence[Row]) -> ArrowTable:
    """The rows in Arrow's form; a column that a row lacks is null there."""
    arrays = [_array([row.get(column.name) for row in rows], column.dtype) for column in table.columns]
    return ArrowTable.from_arrays(arrays, schema=arrow_schema(table))


def created(lake: Path | str, table: Table) -> DeltaTable:
    """The Delta table in a lake (a folder or s3://…), made empty unless it is there. Raises DeltaError or OSError."""
    place = f"{lake}/{table.path}"
    if "://" not in place:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
    return DeltaTable.create(
        place, arrow_schema(table), mode="ignore", name=table.name, description=table.doc, storage_options=delta_options()
    )


def read_rows(table: Path | str, columns: Sequence[str], where: str = "") -> list[Row]:
    """Columns of a Delta table's rows, `where` in SQL."""
    return selected(DeltaTable(str(table), storage_options=delta_options()), columns, where)


def selected(table: DeltaTable, columns: Sequence[str], where: str = "") -> list[Row]:
    """Columns of the rows that the table has in the version that it was opened at, `where` in SQL."""
    query = f"SELECT {', '.join(columns)} FROM rows {where}"  # noqa: S608 (our own columns; callers quote their values)
    found = QueryBuilder().register("rows", table).execute(query).read_all()
    values = [[value for chunk in found.column(name).chunks for value in chunk.to_pylist()] for name in found.column_names]
    return [dict(zip(found.column_names, row, strict=True)) for row in zip(*values, strict=True)]


def _array(values: list[Any], dtype: Dtype) -> Array:
    if dtype != "timestamp":
        return Array(values, ARROW[dtype])
    return Array([None if v is None else (v - EPOCH) // MICROSECOND for v in values], DataType.int64()).cast(ARROW[dtype])
