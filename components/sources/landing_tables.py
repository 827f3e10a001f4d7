"""Columns -> landing files in the contract's types; in a folder they replace the old ones as a whole, in S3 file by file."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from promolift.contracts.artifacts import write_json
from promolift.contracts.promos import SourceCard
from promolift.contracts.tables import TRUTH, Dtype, Table, schema_of
from promolift.errors import InputError, usable
from promolift.storage import Place, delta_options, is_remote, replace

ARROW: dict[Dtype, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", "UTC"),
    "list<float64>": pa.list_(pa.float64()),
}

ELSEWHERE = "choose another --out"
ROW_GROUP = 200_000
"""Rows a row group, so that several cores can read one file."""


@dataclass(frozen=True)
class Landed:
    """All that a source delivers: its card, landing tables by name, the truth if it is known, and counts for the report."""

    card: SourceCard
    tables: Mapping[str, pa.Table]
    truth: pa.Table | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


def _array(values: Any, wanted: pa.DataType) -> Any:
    """Integers become times (µs) where the contract wants them; nothing else changes its meaning."""
    if isinstance(values, pa.Array | pa.ChunkedArray) or (hasattr(values, "dtype") and values.dtype.kind == "i"):
        found = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
        return found if found.type == wanted else found.cast(wanted)
    return pa.array(values, type=wanted, from_pandas=True)


def arrow_table(table: Table, columns: Mapping[str, Any]) -> pa.Table:
    """Arrow table of exactly the contract's columns. Raises InputError naming a column that is missing or of the wrong type."""
    arrays = []
    for column in table.columns:
        if column.name not in columns:
            raise InputError(f"The source gives no column '{column.name}' for {table.path} ({column.doc}).")
        try:
            arrays.append(_array(columns[column.name], ARROW[column.dtype]))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
            raise InputError(f"Column '{column.name}' of {table.path} is not {column.dtype}: {error}.") from error
    return pa.Table.from_arrays(arrays, names=list(table.names))


def _write_landing(landed: Landed, folder: Path) -> None:
    for table in schema_of(landed.card).landing:
        if table.name in landed.tables:
            (folder / table.name).mkdir(parents=True)
            pq.write_table(
                landed.tables[table.name], folder / table.name / "part-0.parquet", compression="snappy", row_group_size=ROW_GROUP
            )
    write_json(folder / "source.json", landed.card)


def _write_truth(truth: pa.Table, place: Place) -> None:
    from deltalake import write_deltalake  # noqa: PLC0415  only a simulated source needs it
    from deltalake.exceptions import DeltaError  # noqa: PLC0415

    with usable(place, ELSEWHERE, DeltaError):
        write_deltalake(str(place), truth.cast(truth.schema), mode="overwrite", name=TRUTH.name, storage_options=delta_options())


def write(landed: Landed, lake: Place, truth: Place) -> None:
    """Put the landing in place of the old one (`promolift.storage.replace`); the truth goes beside the lake.

    Raises UnavailableError when either cannot be written; the old landing is then as it was, or in S3 may be half replaced.
    """
    beside = None if is_remote(lake) else Path(lake)
    with usable(lake, ELSEWHERE):
        if beside:
            beside.mkdir(parents=True, exist_ok=True)
            for killed in beside.glob("landing.*"):
                shutil.rmtree(killed)
        with TemporaryDirectory(prefix="landing.", dir=beside) as folder:
            _write_landing(landed, Path(folder) / "landing")
            if landed.truth is not None:
                _write_truth(landed.truth, truth)
            replace(Path(folder) / "landing", f"{lake}/landing")
