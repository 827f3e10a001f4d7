"""`python -m benchmarks.run`: data set build, uplift metrics, a network's training, each against others; gate; decisions. JSON out."""

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import decisions, dragonnet_throughput, gate_resamples, predictor, routers, scaling, uplift_metrics
from benchmarks.duckdb_build import build
from components.land_events import land
from promolift.contracts.artifacts import write_json
from promolift.contracts.tables import EXAMPLES
from promolift.errors import PromoliftError
from promolift.memory import PeakMemory
from spark_jobs.__main__ import DATASET


@dataclass(frozen=True)
class Step:
    """What a step gave, its seconds, and the most memory that its processes held at one moment, in GiB."""

    result: Any
    seconds: float
    peak_gib: float


def _step(work: Callable[..., Any], *arguments: Any) -> Step:
    """Run `work` in a process of its own, so that no other step's memory is in the figure; its start is not in the seconds."""
    with PeakMemory() as memory, ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        result, seconds = pool.submit(_timed, work, *arguments).result()
        return Step(result, round(seconds, 2), round(memory.take(), 2))


def _timed(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work(*arguments)
    return result, time.perf_counter() - start


def _spark(lake: Path, log: Path) -> Step:
    """The jobs in one Spark process: their records by name, each with the peak memory while that job ran."""
    start, records = time.perf_counter(), {}
    command = [sys.executable, "-m", "spark_jobs", *DATASET, "--lake", str(lake)]
    with (
        PeakMemory() as memory,
        log.open("w", encoding="utf-8") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as process,
    ):
        for line in process.stdout or ():
            if line.startswith("{"):
                record = json.loads(line)
                records[record["job"]] = {"seconds": record["seconds"], "peak_gib": round(memory.take(), 2)}
    if process.returncode:
        raise PromoliftError(f"The Spark jobs ended with status {process.returncode}; what they said is in {log}.")
    return Step(records, round(time.perf_counter() - start, 2), max(record["peak_gib"] for record in records.values()))


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
    landing = _step(land, "complete_journey", "", str(lake), str(folder / "truth"), 1)
    spark = _spark(lake, folder / "spark.log")
    duck = _step(build, lake, folder / "duckdb.parquet")
    return {
        "land_seconds": landing.seconds,
        "spark_seconds": spark.seconds,
        "jobs": spark.result,
        "duckdb_seconds": duck.seconds,
        "spark_over_duckdb": round(spark.seconds / duck.seconds, 1),
        "peak_gib": {"land": landing.peak_gib, "spark": spark.peak_gib, "duckdb": duck.peak_gib},
        "cells_that_differ": _differences(lake, folder / "duckdb.parquet"),
    }


def main() -> int:
    """Run all, print and write them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"), help="JSON file (default: build/bench.json)")
    parser.add_argument("--only", metavar="PART", help="one part, kept beside the others that the file has")
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": {"cpus": os.cpu_count(), "python": platform.python_version()}}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "dataset": lambda: dataset(options.out.parent / "bench"),
        "scaling": lambda: scaling.measure(options.out.parent / "scaling", _spark),
        "gate": gate_resamples.measure,
        "uplift_metrics": uplift_metrics.measure,
        "dragonnet": dragonnet_throughput.measure,
        "decisions": lambda: decisions.measure(options.out.parent / "demo"),
        "routers": lambda: routers.measure(options.out.parent / "demo"),
        "predictor": predictor.measure,
    }
    if options.only and options.only not in parts:
        parser.error(f"--only is {options.only}; there are {', '.join(parts)}")
    if options.only and options.out.is_file():
        found = json.loads(options.out.read_text(encoding="utf-8")) | found
    for name, work in parts.items():
        if options.only not in (None, name):
            continue
        print(f"{name} …", file=sys.stderr, flush=True)
        found[name] = work()
        print(json.dumps({name: found[name]}, indent=2), flush=True)
    write_json(options.out, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
