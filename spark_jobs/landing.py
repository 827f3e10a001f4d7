"""Landing files -> checked deliveries: every file is looked at before anything is written, so a bad one leaves all tables as they were."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from promolift.contracts.artifacts import read_source_card
from promolift.contracts.tables import Dtype, Table, schema_of
from promolift.errors import InputError
from promolift.storage import Place, files, reached

_ACCEPTED: dict[Dtype, tuple[pa.DataType, ...]] = {
    "string": (pa.string(), pa.large_string()),
    "int64": (pa.int64(), pa.int32()),
    "float64": (pa.float64(), pa.float32()),
    "bool": (pa.bool_(),),
    "timestamp": (pa.timestamp("us", "UTC"), pa.timestamp("ms", "UTC")),
    "list<float64>": (pa.list_(pa.float64()), pa.large_list(pa.float64())),
}


@dataclass(frozen=True)
class Delivery:
    """One landed file of one table; `digest` is a hash of its bytes."""

    table: Table
    path: str
    digest: str
    rows: int

    @property
    def file_name(self) -> str:
        """Its name in the landing folder."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def name(self) -> str:
        """File name and hash: the same bytes under the same name are the same delivery."""
        return f"{self.file_name}@{self.digest}"


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    with reached(path) as (system, inside), system.open_input_file(inside) as file:
        yield file


def _digest(file: Any) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _same_type(found: pa.DataType, wanted: Dtype) -> bool:
    if pa.types.is_list(found) or pa.types.is_large_list(found):
        return wanted.startswith("list") and pa.types.is_floating(found.value_type)
    return found in _ACCEPTED.get(wanted, ())


def _check_schema(path: str, schema: pa.Schema, table: Table) -> None:
    for column in table.columns:
        if column.name not in schema.names:
            raise InputError(f"'{path}' has no column '{column.name}' ({column.dtype}: {column.doc}); it has {', '.join(schema.names)}.")
        found = schema.field(column.name).type
        if not _same_type(found, column.dtype):
            raise InputError(f"Column '{column.name}' of '{path}' is {found} and must be {column.dtype} ({column.doc}).")


def _delivery(path: str, table: Table) -> Delivery:
    try:
        with _opened(path) as file:
            meta = pq.ParquetFile(file)
            _check_schema(path, meta.schema_arrow, table)
            return Delivery(table, path, _digest(file), meta.metadata.num_rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"'{path}' is no readable Parquet file ({str(error).splitlines()[0]}); deliver it again.") from error


def read_through(file: Delivery) -> None:
    """Decode every page, which the footer's check does not. Raises InputError for a damaged one."""
    try:
        with _opened(file.path) as stream:
            for _ in pq.ParquetFile(stream).iter_batches(columns=list(file.table.names)):
                pass
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"'{file.path}' has damaged data ({str(error).splitlines()[0]}); deliver it again.") from error


def deliveries(lake: Place) -> tuple[Delivery, ...]:
    """Every landed file, checked against its contract. Raises InputError naming file, column and value; nothing was written yet."""
    found: list[Delivery] = []
    for table in schema_of(read_source_card(lake)).landing:
        landed = [_delivery(path, table) for path in files(f"{lake}/{table.path}", ".parquet")]
        if not sum(one.rows for one in landed) and not table.may_be_empty:
            raise InputError(f"'{lake}/{table.path}' holds no rows ({table.doc}); land a source first.")
        found.extend(landed)
    return tuple(found)


def fingerprint(lake: Place) -> str:
    """Hash of all landed bytes and of the source card, for the decision whether ingestion has anything to do."""
    names = [d.table.name + d.name for d in deliveries(lake)]
    return hashlib.sha256(("\n".join(names) + repr(read_source_card(lake))).encode()).hexdigest()[:16]
