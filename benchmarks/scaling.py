"""The data set build at 1, 3 and 10 times Complete Journey on this machine: copies of its shoppers, each a delivery of its own."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.land_events import land
from promolift.contracts.tables import LANDING

FACTORS = (1, 3, 10)
IDENTITIES = ("shopper_id", "event_id", "basket_id", "exposure_id")
"""What another copy of a shopper has of its own; products, stores and promos are everybody's."""


def measure(folder: Path, build: Callable[[Path, Path], Any]) -> dict[str, Any]:
    """Seconds of each job, peak memory and rows by factor. `build`: (lake, log file) -> the timed Spark jobs."""
    shutil.rmtree(folder, ignore_errors=True)
    land("complete_journey", "", str(folder / "once"), str(folder / "truth"), 1)
    found = {}
    for factor in FACTORS:
        lake = folder / f"times-{factor}"
        rows = multiplied(folder / "once", lake, factor)
        built = build(lake, folder / f"times-{factor}.log")
        found[str(factor)] = {"landed_rows": rows, "seconds": built.seconds, "peak_gib": built.peak_gib, "jobs": built.result}
        shutil.rmtree(lake)
    return found


def multiplied(once: Path, lake: Path, factor: int) -> int:
    """Land `factor` copies of a lake's landing; returns their rows."""
    rows = 0
    for table in LANDING:
        source, target = once / table.path, lake / table.path
        if not source.exists():
            continue
        target.mkdir(parents=True)
        whole = pq.read_table(source / "part-0.parquet")
        for copy in range(factor if table.name != "products" else 1):
            rows += whole.num_rows
            pq.write_table(_renamed(whole, copy), target / f"part-{copy}.parquet", compression="snappy", row_group_size=200_000)
    shutil.copy(once / "landing" / "source.json", lake / "landing" / "source.json")
    return rows


def _renamed(table: pa.Table, copy: int) -> pa.Table:
    for name in IDENTITIES if copy else ():
        if name in table.column_names:
            index = table.column_names.index(name)
            table = table.set_column(index, table.schema.field(index), pc.binary_join_element_wise(table[name], f"c{copy}", "-"))
    return table
