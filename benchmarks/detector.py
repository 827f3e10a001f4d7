"""The detector under load: events a second, latency of an answer, memory, and the time of a look at 5,000 rows; one process, one Redis.

python -m benchmarks.detector --run build/demo --document docs/drift.md
"""

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil

from benchmarks.document import write_block
from components.fit_detector import fit_model
from promolift.contracts.artifacts import ModelManifest, read_manifest, write_json
from promolift.contracts.decisions import Candidates, Envelope, Request, Scores, Shopper, dump_bytes
from promolift.drift.columns import row_of
from promolift.drift.look import look
from promolift.drift.reference import JSON, Reference, read_reference
from promolift.drift.sketch import column_names, day_of_rows
from promolift.redis_server import redis_server
from serving.detector.events import RESPONSE

HEADERS = {"ce-type": RESPONSE, "ce-source": "benchmark", "ce-specversion": "1.0", "content-type": "application/json"}
CALLERS, ROWS, PACE = 4, 5_000, 1_000


def envelopes(manifest: ModelManifest, reference: Reference, count: int) -> list[Envelope]:
    """Answers that say what rows of the reference's sample say."""
    rng, columns = np.random.default_rng(1), reference.columns
    promos = tuple(promo.promo_id for promo in manifest.promos)
    found = []
    for number in range(count):
        row = reference.sample[int(rng.integers(len(reference.sample)))]
        features: dict[str, float | str] = dict(zip(columns.features, map(float, row["numbers"]), strict=False))
        texts = {name: values[max(int(code), 0)] for (name, values), code in zip(columns.attributes.items(), row["codes"], strict=False)}
        request = Request(f"r{number}", str(rng.integers(100_000)), "2026-11-29T12:00:00Z", store_id="367")
        scores = Scores(manifest.version, tuple(rng.normal(size=len(promos))), (0.0,) * len(promos), (0.0,) * len(promos))
        found.append(Envelope(request, Shopper({**features, **texts}, True, 1.0), Candidates(promos, {}, "rules"), scores))
    return found


@contextmanager
def detector(folder: Path, url: str) -> Iterator[tuple[str, psutil.Process]]:
    """The URL of a detector process, and the process."""
    command = [sys.executable, "-m", "serving.detector", "--model", str(folder), "--redis-url", url, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # noqa: S101 (a pipe was asked for)
        line = process.stdout.readline()
        try:
            yield line.split()[-1], psutil.Process(process.pid)
        finally:
            process.terminate()


async def load(url: str, bodies: list[bytes], rate: float) -> list[float]:
    """Send every body once at `rate` a second by CALLERS connections; seconds of each answer."""
    seconds: list[float] = []
    started = time.perf_counter()

    async def caller(first: int, session: aiohttp.ClientSession) -> None:
        for place in range(first, len(bodies), CALLERS):
            await asyncio.sleep(max(0.0, started + place / rate - time.perf_counter()) if rate else 0)
            headers = {
                "ce-id": str(place),
                "ce-type": RESPONSE,
                "ce-source": "b",
                "ce-specversion": "1.0",
                "content-type": "application/json",
            }
            began = time.perf_counter()
            async with session.post(url, data=bodies[place], headers=headers) as answer:
                assert answer.status == 202  # noqa: S101 (a refused event would be measured as a fast one)
            seconds.append(time.perf_counter() - began)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CALLERS)) as session:
        await asyncio.gather(*(caller(first, session) for first in range(CALLERS)))
    return seconds


def measure(run: Path, count: int) -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        shutil.copytree(run / "serving_model", folder)
        manifest = read_manifest(folder)
        if not (folder / JSON).exists():
            fit_model(folder, run / "lake", 1)
        reference = read_reference(folder, manifest.version)
        assert reference is not None  # noqa: S101 (it was just fitted)
        made = envelopes(manifest, reference, count)
        bodies = [dump_bytes(envelope) for envelope in made]
        with redis_server(Path(scratch) / "redis") as redis_url, detector(folder, redis_url) as (url, process):
            began, used = time.perf_counter(), process.cpu_times()
            seconds = asyncio.run(load(url, bodies, 0))
            wall, cpu = time.perf_counter() - began, sum(process.cpu_times()[:2]) - sum(used[:2])
            paced = asyncio.run(load(url, bodies[: count // 2], PACE))
            memory = process.memory_full_info().pss / 2**20
        return {
            "events": count, "bytes": len(bodies[0]), "per_s": round(count / wall), "per_cpu_s": round(count / cpu),
            "ms": _quantiles(seconds), "ms_paced": _quantiles(paced), "mib": round(memory), **_looks(reference, made),
        }  # fmt: skip


def _quantiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{q}": round(1e3 * float(np.percentile(seconds, q)), 2) for q in (50, 99)}


def _looks(reference: Reference, made: list[Envelope]) -> dict[str, float]:
    rows = np.frombuffer(b"".join(row_of(reference.columns, envelope, 20_000) for envelope in made[:ROWS]), reference.columns.dtype)
    began = time.perf_counter()
    look(reference, {20_000: day_of_rows(reference, rows)}, 20_000)
    return {"look_rows": len(rows), "look_columns": len(column_names(reference.columns)), "look_s": round(time.perf_counter() - began, 3)}


def sentence(found: dict[str, Any]) -> str:
    """The figures as docs/drift.md prints them."""
    return (
        f"The detector takes {found['per_cpu_s']:,} events of {found['bytes']:,} bytes a CPU second; at {PACE:,} a second an answer takes "
        f"p50 {found['ms_paced']['p50']} ms, p99 {found['ms_paced']['p99']} ms.\nMost memory {found['mib']} MiB; a look at a day of "
        f"{found['look_rows']:,} rows and {found['look_columns']} columns {found['look_s']} s."
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("build/demo"), metavar="DIR", help="finished run (%(default)s)")
    parser.add_argument("--events", type=int, default=20_000, help="how many (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/drift/detector.json"), metavar="FILE", help="where to write (%(default)s)")
    parser.add_argument("--document", type=Path, metavar="FILE", help="also write them between the markers of this file (docs/drift.md)")
    options = parser.parse_args()
    found = measure(options.run, options.events)
    write_json(options.out, found)
    if options.document:
        write_block(options.document, "detector", [sentence(found)])
    print(found)


if __name__ == "__main__":
    main()
