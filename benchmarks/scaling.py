"""The data set build at 1, 3 and 10 times Complete Journey on this machine: copies of its shoppers, each a delivery of its own.

`python -m benchmarks.scaling` writes the figures of build/bench.json, and what they say of 1,000 times, into docs/spark.md.
"""

import argparse
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.document import write_block
from components.land_events import land
from promolift.contracts.tables import LANDING
from spark_jobs.__main__ import DATASET

FACTORS = (1, 3, 10)
LARGE, CORES, EFFICIENCY = 1_000, 256, 0.5
"""The size that is estimated, the cores that it is given, and the share of their time that is taken to be of use there."""
IDENTITIES = ("shopper_id", "event_id", "basket_id", "exposure_id")
"""What another copy of a shopper has of its own; products, stores and promos are everybody's."""


def measure(folder: Path, build: Callable[[Path, Path], Any]) -> dict[str, Any]:
    """Seconds of each job, peak memory and rows by factor. `build`: (lake, log file) -> the timed Spark jobs."""
    shutil.rmtree(folder, ignore_errors=True)
    land("complete_journey", "", str(folder / "once"), str(folder / "truth"), 1)
    found: dict[str, Any] = {"cores": os.cpu_count(), "landed_bytes": _bytes(folder / "once")}
    for factor in FACTORS:
        lake = folder / f"times-{factor}"
        rows = multiplied(folder / "once", lake, factor)
        built = build(lake, folder / f"times-{factor}.log")
        found[str(factor)] = {"landed_rows": rows, "seconds": built.seconds, "peak_gib": built.peak_gib, "jobs": built.result}
        shutil.rmtree(lake)
    return found


def _bytes(lake: Path) -> int:
    return sum(path.stat().st_size for path in (lake / "landing").rglob("*.parquet"))


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


def lines(found: dict[str, Any]) -> list[str]:
    """The table, and the estimate for LARGE with its arithmetic."""
    jobs = sorted(found["1"]["jobs"], key=DATASET.index)
    head = ["times", "landed rows", *jobs, "all, start included", "rows a second", "most memory"]
    table = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for factor in map(str, FACTORS):
        one = found[factor]
        seconds = [f"{one['jobs'][job]['seconds']:.0f} s" for job in jobs]
        cells = [factor, f"{one['landed_rows']:,}", *seconds, f"{one['seconds']:.0f} s", f"{one['landed_rows'] / one['seconds']:,.0f}"]
        table.append(f"| {' | '.join(cells)} | {one['peak_gib']:.1f} GiB |")
    return [*table, "", *_estimate(found)]


def _estimate(found: dict[str, Any]) -> list[str]:
    most = found[str(FACTORS[-1])]
    millions, core_s = most["landed_rows"] / 1e6, most["seconds"] * found["cores"] / most["landed_rows"] * 1e6
    large = LARGE * found["1"]["landed_rows"] / 1e6
    hours, gigabytes = large * core_s / 3600, LARGE * found["landed_bytes"] / 1e9
    return [
        f"At {FACTORS[-1]} times, {most['seconds']:.0f} s × {found['cores']} cores / {millions:.1f} million rows = {core_s:.0f} core "
        f"seconds a million rows, start and small tables included. {LARGE:,} times are {large:,.0f} million rows ({gigabytes:.0f} GB "
        f"landed): {large:,.0f} × {core_s:.0f} / 3,600 = {hours:.0f} core hours. {CORES} cores, of use for {EFFICIENCY:.0%} of the time "
        f"(an assumption: shuffles over a network, the slowest task), would take {hours:.0f} / ({CORES} × {EFFICIENCY}) × 60 = "
        f"{hours / CORES / EFFICIENCY * 60:.0f} minutes. That was estimated, not run.",
    ]


def main() -> None:
    """Rewrite docs/spark.md between the markers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--bench", type=Path, default=Path("build/bench.json"), help="result of make bench (%(default)s)")
    found = json.loads(parser.parse_args().bench.read_text(encoding="utf-8"))["scaling"]
    page = Path("docs/spark.md")
    write_block(page, "python -m benchmarks.scaling", ["", *lines(found), ""])


if __name__ == "__main__":
    main()
