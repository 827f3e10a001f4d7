"""The lake's Delta tables for one job: contract -> StructType, reads and writes with the versions recorded for lineage."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from promolift import contracts
from promolift.contracts.artifacts import Lineage, json_text, read_source_card
from promolift.contracts.promos import SourceCard
from promolift.contracts.tables import LIFT, LOGGED, Dtype, Schema, Table, schema_of
from promolift.errors import InputError
from promolift.storage import Place, delta_options, exists, read_text, spelled, write_text

SPARK_TYPES: dict[Dtype, T.DataType] = {
    "string": T.StringType(),
    "int64": T.LongType(),
    "float32": T.FloatType(),
    "float64": T.DoubleType(),
    "bool": T.BooleanType(),
    "timestamp": T.TimestampType(),
    "list<string>": T.ArrayType(T.StringType()),
    "list<float64>": T.ArrayType(T.DoubleType()),
}


def struct_type(table: Table) -> T.StructType:
    """Spark schema of a contract table."""
    return T.StructType([T.StructField(c.name, SPARK_TYPES[c.dtype], c.nullable) for c in table.columns])


def conform(frame: DataFrame, table: Table) -> DataFrame:
    """Select exactly the contract's columns, in order and cast to its types: the last line of every `build`."""
    return frame.select(*(F.col(c.name).cast(SPARK_TYPES[c.dtype]).alias(c.name) for c in table.columns))


@dataclass
class Lake:
    """Tables below `root`; remembers what the running job read and wrote."""

    spark: SparkSession
    root: Place
    reads: dict[str, int] = field(default_factory=dict)
    writes: dict[str, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def card(self) -> SourceCard:
        """What the source says of itself. Raises InputError when nothing was landed."""
        return read_source_card(self.root)

    @property
    def schema(self) -> Schema:
        """The source's tables."""
        return schema_of(self.card)

    def location(self, table: Table) -> str:
        """Absolute path of the table, or its s3a address."""
        return spelled(f"{self.root}/{table.path}")

    def exists(self, table: Table) -> bool:
        """Whether the table was ever written."""
        return exists(f"{self.root}/{table.path}/_delta_log")

    def log(self, table: Table) -> deltalake.DeltaTable:
        """The table's Delta log at its latest version, read without Spark. Raises TableNotFoundError when it was never written."""
        return deltalake.DeltaTable(self.location(table), storage_options=delta_options())

    def version(self, table: Table) -> int:
        """Latest Delta version."""
        return int(self.log(table).version())

    def create(self, table: Table, partition_by: str | None = None) -> None:
        """Make the table without rows unless it is there: a source without, say, visits needs no special case in any reader."""
        schema = deltalake.Schema.from_json(struct_type(table).json())
        deltalake.DeltaTable.create(self.location(table), schema, mode="ignore", partition_by=partition_by, storage_options=delta_options())

    def read(self, table: Table) -> DataFrame:
        """The table at its latest version, which is recorded. Raises InputError when it was never written."""
        if not self.exists(table):
            raise InputError(f"Table '{table.path}' is not in the lake '{self.root}'; run the jobs before this one first.")
        log = self.log(table)
        self.reads[table.path] = log.version()
        return self._rows(table, log)

    def _rows(self, table: Table, log: deltalake.DeltaTable) -> DataFrame:
        """The version's data files by Spark's Parquet reader, since Delta's own runs Spark jobs over the log first (ADR 14).

        Delta's reader is kept for what those files alone do not tell: partition columns, and the deleted rows of newer protocols.
        """
        if log.metadata().partition_columns or log.protocol().min_reader_version > 1:
            return self.spark.read.format("delta").option("versionAsOf", log.version()).load(self.location(table))
        files = [spelled(file) for file in log.file_uris()]
        schema = T.StructType.fromJson(json.loads(log.schema().to_json()))
        return self.spark.read.schema(schema).parquet(*files) if files else self.spark.createDataFrame([], schema)

    def overwrite(self, table: Table, frame: DataFrame) -> None:
        """Replace all rows in one commit."""
        frame.write.format("delta").mode("overwrite").option("overwriteSchema", "true").save(self.location(table))
        self.wrote(table)

    def append(self, table: Table, frame: DataFrame) -> None:
        """Add rows in one commit."""
        frame.write.format("delta").mode("append").save(self.location(table))
        self.wrote(table)

    def insert_new(self, table: Table, frame: DataFrame) -> None:
        """Add the rows whose key is not there yet: an event keeps the form in which it first arrived."""
        if not self.exists(table):
            return self.append(table, frame)
        self._merge(table, frame).whenNotMatchedInsertAll().execute()
        return self.wrote(table)

    def upsert(self, table: Table, frame: DataFrame) -> None:
        """Insert new keys and update the rows that differ; rows that are the same are left alone."""
        if not self.exists(table):
            return self.append(table, frame)
        differs = " or ".join(f"not (old.`{name}` <=> new.`{name}`)" for name in table.names)
        self._merge(table, frame).whenMatchedUpdateAll(condition=differs).whenNotMatchedInsertAll().execute()
        return self.wrote(table)

    def _merge(self, table: Table, frame: DataFrame) -> Any:
        same = " and ".join(f"old.{name} = new.{name}" for name in table.key)
        return DeltaTable.forPath(self.spark, self.location(table)).alias("old").merge(frame.alias("new"), same)

    def wrote(self, table: Table) -> None:
        """Remember what the running job left of the table, for its lineage record."""
        log = self.log(table)
        self.writes[table.path] = {"version": int(log.version()), "rows": rows_of(log), "schema_hash": table.schema_hash}


def rows_of(log: deltalake.DeltaTable) -> int:
    """Rows at the log's version, from the statistics in it (no job is run)."""
    added = pa.table(log.get_add_actions(flatten=True))
    return sum(added["num_records"].to_pylist()) if len(added) else 0


ABSENT = -1
"""Recorded as the version of a table that was not there, so that the job runs again once it is."""
Counters = dict[str, Any]
Job = Callable[[Lake], Counters]


def _sources() -> list[Path]:
    """Python files of this room and of the contracts."""
    return [path for folder in (Path(__file__).parent, Path(contracts.__file__).parent) for path in sorted(folder.glob("*.py"))]


def _fingerprint(job: str, root: Place) -> str:
    """Hash of the job's name, the source of this room and of the contracts, and the source card: one that changes runs the job again."""
    card = f"{root}/landing/source.json"
    texts = [job, *(path.read_text(encoding="utf-8") for path in _sources()), read_text(card) if exists(card) else ""]
    return hashlib.sha256("".join(texts).encode()).hexdigest()[:16]


def _previous(path: str) -> dict[str, Any]:
    """The record of the job's last run; none where it is damaged, so that the job runs again."""
    try:
        return dict(json.loads(read_text(path)))
    except (FileNotFoundError, ValueError, TypeError):
        return {}


def _is_current(lake: Lake, record: dict[str, Any], fingerprint: str) -> bool:
    """Whether every table that the job read or wrote still has the recorded version."""
    if record.get("fingerprint") != fingerprint:
        return False
    versions = {**record["reads"], **{path: write["version"] for path, write in record["writes"].items()}}
    tables = [t for t in (*lake.schema.stored, LIFT, *LOGGED) if t.path in versions]
    return all((lake.version(t) if lake.exists(t) else ABSENT) == versions[t.path] for t in tables)


@contextmanager
def _timed() -> Iterator[Callable[[], float]]:
    start = time.perf_counter()
    yield lambda: round(time.perf_counter() - start, 3)


def run_job(spark: SparkSession, root: Place, name: str, inputs: str = "") -> dict[str, Any]:
    """Run one job unless its inputs, outputs and code are those of its last run; write and return its lineage record.

    `inputs`: fingerprint of inputs that are no Delta tables (landing files).
    """
    path = f"{root}/lineage/{name}.json"
    lake, record, fingerprint = Lake(spark, root), _previous(path), _fingerprint(name, root) + inputs
    if _is_current(lake, record, fingerprint):
        return {**record, "skipped": True}
    job: Job = import_module(f"spark_jobs.{name}").run
    with _timed() as seconds:
        counters = job(lake)
    lineage = Lineage(name, lake.reads, lake.writes, seconds())
    record = {**lineage.__dict__, "counters": counters, "fingerprint": fingerprint}
    write_text(path, json_text(record))
    return {**record, "skipped": False}
