"""Columns -> landing files in the contract's types, written as a whole or not at all."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from promolift.contracts.artifacts import write_json
from promolift.contracts.promos import SourceCard
from promolift.contracts.tables import LANDING, TRUTH, Dtype, Table
from promolift.errors import InputError, UnavailableError

ARROW: dict[Dtype, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "timestamp": pa.timestamp("us", "UTC"),
    "list<float64>": pa.list_(pa.float64()),
}


@dataclass(frozen=True)
class Landed:
    """All that a source delivers: its card, landing tables by name, the truth if it is known, and counts for the report."""

    card: SourceCard
    tables: Mapping[str, pa.Table]
    truth: pa.Table | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


def arrow_table(table: Table, columns: Mapping[str, Any]) -> pa.Table:
    """Arrow table of exactly the contract's columns. Raises InputError naming a column that is missing or of the wrong type."""
    arrays = []
    for column in table.columns:
        if column.name not in columns:
            raise InputError(f"The source gives no column '{column.name}' for {table.path} ({column.doc}).")
        try:
            arrays.append(pa.array(columns[column.name], type=ARROW[column.dtype], from_pandas=True))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(f"Column '{column.name}' of {table.path} is not {column.dtype}: {error}.") from error
    return pa.Table.from_arrays(arrays, names=list(table.names))


def _write_landing(landed: Landed, folder: Path) -> None:
    for table in LANDING:
        if table.name in landed.tables:
            (folder / table.name).mkdir(parents=True)
            pq.write_table(landed.tables[table.name], folder / table.name / "part-0.parquet", compression="snappy")
    write_json(folder / "source.json", landed.card)


def _write_truth(truth: pa.Table, place: Path) -> None:
    from deltalake import write_deltalake  # noqa: PLC0415  only a simulated source needs it

    write_deltalake(str(place), truth.cast(truth.schema), mode="overwrite", name=TRUTH.name)


def write(landed: Landed, lake: Path, truth: Path) -> None:
    """Put the landing folder in place of the old one in a single rename; the truth goes beside the lake."""
    fresh = lake / "landing.new"
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        _write_landing(landed, fresh)
        if landed.truth is not None:
            _write_truth(landed.truth, truth)
        shutil.rmtree(lake / "landing", ignore_errors=True)
        fresh.rename(lake / "landing")
    except OSError as error:
        raise UnavailableError(f"Cannot write '{error.filename or lake}': {error.strerror}; choose another --out.") from error
