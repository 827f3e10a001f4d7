"""Landing files -> bronze tables that hold the delivered files themselves, byte for byte; `delivery` is their partition column.

A file enters bronze last, after its rows are in silver and quarantine. A job that was killed before that finds the delivery new again
and merges the same rows once more, which changes nothing.
"""

import json
from collections.abc import Sequence

import pyarrow as pa
from deltalake.transaction import AddAction

from promolift.contracts.tables import Table
from promolift.storage import copy, info
from spark_jobs.lake import Lake
from spark_jobs.landing import Delivery


def delivered(lake: Lake, bronze: Table) -> set[str]:
    """Names of the deliveries that a bronze table has."""
    if not lake.exists(bronze):
        return set()
    added = pa.table(lake.log(bronze).get_add_actions(flatten=True))
    return set(added["partition.delivery"].to_pylist()) if len(added) else set()


def keep(lake: Lake, bronze: Table, files: Sequence[Delivery]) -> None:
    """Copy the files into the table and commit them at once; an empty table is made when there are none."""
    lake.create(bronze, partition_by="delivery")
    if files:
        log = lake.log(bronze)
        log.create_write_transaction([_adopted(lake, bronze, file) for file in files], "append", log.schema(), partition_by="delivery")
    lake.wrote(bronze)


def _adopted(lake: Lake, bronze: Table, file: Delivery) -> AddAction:
    """A copy, so that what happens to the landing folder later does not reach bronze; its name is the hash of its bytes."""
    name = f"{file.digest}.parquet"
    copy(file.path, f"{lake.location(bronze)}/{name}")
    state = info(file.path)
    changed = round(state.mtime.timestamp() * 1000)
    return AddAction(name, state.size, {"delivery": file.name}, changed, True, json.dumps({"numRecords": file.rows}))
