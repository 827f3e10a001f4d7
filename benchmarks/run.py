"""`python -m benchmarks.run`: the data set build against DuckDB and the gate's resamples; ratios of one run, JSON out."""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import gate_resamples
from benchmarks.duckdb_build import build
from components.land_events import land
from promolift.contracts.artifacts import write_json
from promolift.contracts.tables import EXAMPLES

JOBS = ("ingest_events", "build_exposures", "build_features", "build_examples")


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return round(time.perf_counter() - start, 2)


def _spark(lake: Path) -> list[dict[str, Any]]:
    done = subprocess.run([sys.executable, "-m", "spark_jobs", *JOBS, "--lake", str(lake)], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _differences(lake: Path, parquet: Path) -> int:
    """Cells of the examples in which Spark and DuckDB disagree by more than rounding of a float32."""
    from deltalake import DeltaTable  # noqa: PLC0415
    from pyarrow.parquet import read_table  # noqa: PLC0415

    ours = DeltaTable(str(lake / EXAMPLES.path)).to_pyarrow_table().sort_by("exposure_id")
    theirs = read_table(parquet).sort_by("exposure_id")
    names = [c.name for c in EXAMPLES.columns if c.name in theirs.column_names and c.dtype in ("float32", "int64", "bool")]
    return sum(
        int((~np.isclose(ours[n].to_numpy().astype(float), theirs[n].to_numpy().astype(float), rtol=1e-4, atol=1e-3)).sum()) for n in names
    )


def dataset(folder: Path) -> dict[str, Any]:
    """Landing of Complete Journey once, then the same examples by our jobs (one Spark process, start-up included) and by DuckDB."""
    shutil.rmtree(folder, ignore_errors=True)
    lake = folder / "lake"
    landing = _seconds(lambda: land("complete_journey", "", str(lake), str(folder / "truth"), 1))
    records: list[dict[str, Any]] = []
    spark = _seconds(lambda: records.extend(_spark(lake)))
    duck = _seconds(lambda: build(lake, folder / "duckdb.parquet"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    return {
        "land_seconds": landing,
        "spark_seconds": spark,
        "jobs_seconds": {r["job"]: r["seconds"] for r in records},
        "duckdb_seconds": duck,
        "spark_over_duckdb": round(spark / duck, 1),
        "peak_child_gib": round(peak, 2),
        "cells_that_differ": _differences(lake, folder / "duckdb.parquet"),
    }


def main() -> int:
    """Run all, print and write them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"), help="JSON file (default: build/bench.json)")
    options = parser.parse_args()
    found = {"machine": {"cpus": os.cpu_count(), "python": platform.python_version()}}
    for name, work in {"dataset": lambda: dataset(options.out.parent / "bench"), "gate": gate_resamples.measure}.items():
        print(f"{name} …", file=sys.stderr, flush=True)
        found[name] = work()
        print(json.dumps({name: found[name]}, indent=2), flush=True)
    write_json(options.out, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
