"""`python -m loadtests.run`: serve a finished run, put it under the load of a scenario, and hold what was measured against the promise.

Writes load.html (Locust's page) and load.json (what was measured, promised and broken) for each scenario. Exit status 1 for a breach.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltalake import DeltaTable, QueryBuilder

from loadtests.chaos import Redis, disturb, ended
from loadtests.memory import Memory
from loadtests.service_level import FILE, SCENARIOS, ServiceLevel, read_service_level
from promolift.contracts.artifacts import read_source_card, write_json
from promolift.contracts.tables import FEATURES, table
from promolift.errors import InputError, PromoliftError, UnavailableError

BASKETS = 2_000
READY_S, STOP_S = 120.0, 60.0


@dataclass(frozen=True)
class Load:
    """One scenario: how long, how many callers, against which run, in how many processes, and where its reports go."""

    scenario: str
    seconds: int
    users: int
    run: Path
    fused: bool
    out: Path


def measure(load: Load, level_file: Path) -> dict[str, Any]:
    """What was measured of the run served here, with `breaches` of what `level_file` promises."""
    level = read_service_level(level_file, load.scenario)
    with served(load) as (document, store):
        harm = threading.Thread(target=disturb, args=(load.scenario, float(load.seconds), document, store))
        with Memory(document["pids"]) as memory:
            harm.start()
            measured = under_load(load, f"{document['url']}/v1/decisions", document["api_key"])
            harm.join()
    return judged(load, level, measured | memory.found())


def under_load(load: Load, url: str, api_key: str) -> dict[str, Any]:
    """What Locust measured of a service at `url`. Raises UnavailableError when it measured nothing."""
    load.out.mkdir(parents=True, exist_ok=True)
    plan, measured = load.out / "plan.json", load.out / "measured.json"
    measured.unlink(missing_ok=True)
    moment = read_source_card(load.run / "lake").as_of
    write_json(plan, {
        "url": url, "api_key": api_key, "moment": moment, "scenario": load.scenario, "seconds": load.seconds, "users": load.users,
        "baskets": baskets(load.run / "lake"), "out": str(measured),
    })  # fmt: skip
    status = ended(locust(load, plan), load.seconds + STOP_S)
    if not measured.is_file():
        raise UnavailableError(f"Locust ended with status {status} and measured nothing; its output is in {load.out / 'locust.log'}.")
    found: dict[str, Any] = json.loads(measured.read_text(encoding="utf-8"))
    return found


def judged(load: Load, level: ServiceLevel, measured: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured with the `breaches` of the promise, kept in load.json."""
    found = {"scenario": load.scenario, "fused": load.fused, "seconds": load.seconds, "users": load.users, **measured}
    found["breaches"] = level.breaches(found)
    write_json(load.out / "load.json", found)
    return found


def locust(load: Load, plan: Path) -> "subprocess.Popen[bytes]":
    """Locust without its web page, in a process of its own: it patches the standard library."""
    command = [
        sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless", "--only-summary", "--stop-timeout", "5",
        "--html", str(load.out / "load.html"),
    ]  # fmt: skip
    with (load.out / "locust.log").open("wb") as log:
        environment = {**os.environ, "PROMOLIFT_LOAD_FILE": str(plan)}
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


@contextmanager
def served(load: Load) -> Iterator[tuple[dict[str, Any], Redis]]:
    """serving.json of the run, served beside a Redis of our own with the run's online features."""
    folder = load.out / "redis"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(load.run / "redis", folder, ignore=shutil.ignore_patterns(".lock"))
    store = Redis(folder)
    command = [sys.executable, "-m", "serving.kserve", "serve", "--run", str(load.run), "--listen", "127.0.0.1:0"]
    environment = {**os.environ, "PROMOLIFT_REDIS_URL": store.url}
    record = load.run / "serving.json"
    record.unlink(missing_ok=True)
    with (load.out / "serving.log").open("wb") as log:
        service = subprocess.Popen([*command, *(["--fused"] if load.fused else [])], env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + READY_S
        while not record.is_file():
            if service.poll() is not None or time.monotonic() > deadline:
                raise UnavailableError(f"The service did not come up; its output is in {load.out / 'serving.log'}.")
            time.sleep(0.1)
        yield json.loads(record.read_text(encoding="utf-8")), store
    finally:
        service.terminate()
        ended(service, STOP_S)
        store.stop()


def baskets(lake: Path) -> list[dict[str, Any]]:
    """Some BASKETS real baskets of the run: whose, and what is in them; empty ones where the source has no purchases."""
    place = str(lake / table("silver", "purchases").path)
    if not DeltaTable.is_deltatable(place):
        return [{"shopper_id": shopper, "lines": []} for shopper in shoppers_of(lake, BASKETS)]
    query = (
        "SELECT shopper_id, basket_id, category, CAST(SUM(sales_cents) AS BIGINT) AS cents, COUNT(*) AS lines FROM purchases "
        "WHERE sales_cents > 0 AND basket_id LIKE '%7' GROUP BY shopper_id, basket_id, category"
    )
    found = QueryBuilder().register("purchases", DeltaTable(place)).execute(query).read_all()
    by_basket: dict[str, dict[str, Any]] = {}
    for row in _rows(found):
        basket = by_basket.setdefault(row["basket_id"], {"shopper_id": row["shopper_id"], "lines": []})
        basket["lines"].append({"category": row["category"], "amount_cents": row["cents"], "quantity": row["lines"]})
    known = [by_basket[name] for name in sorted(by_basket)]
    return random.Random(1).sample(known, min(BASKETS, len(known)))  # noqa: S311 (no secret)


def shoppers_of(lake: Path, count: int) -> list[str]:
    """At most `count` shoppers with features. Raises InputError for a lake without any."""
    place = str(lake / FEATURES.path)
    if not DeltaTable.is_deltatable(place):
        raise InputError(f"There are no features at {place} to take shoppers from; name a finished run with --run.")
    query = f"SELECT DISTINCT shopper_id FROM features ORDER BY shopper_id LIMIT {count}"  # noqa: S608 (our own number)
    return [row["shopper_id"] for row in _rows(QueryBuilder().register("features", DeltaTable(place)).execute(query).read_all())]


def _rows(found: Any) -> list[dict[str, Any]]:
    import pyarrow as pa  # noqa: PLC0415 (slow to load)

    rows: list[dict[str, Any]] = pa.table(found).to_pylist()
    return rows


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.run", description="Load and chaos against the served engine.")
    parser.add_argument("--run", type=Path, default=Path("build/demo"), metavar="DIR", help="a finished run (%(default)s)")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="once or more; without it all but soak and cluster")
    parser.add_argument("--seconds", type=int, default=20, help="of each scenario (%(default)s)")
    parser.add_argument("--users", type=int, default=8, help="callers, each asking ten times a second (%(default)s)")
    parser.add_argument("--fused", action="store_true", help="the boxes in the engine's own process")
    parser.add_argument("--level", type=Path, default=FILE, metavar="FILE", help="service-level file (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/load"), metavar="DIR", help="where reports go (%(default)s)")
    options = parser.parse_args()
    broken = 0
    try:
        for scenario in options.scenario or [name for name in SCENARIOS if name not in {"soak", "cluster"}]:
            load = Load(scenario, options.seconds, options.users, options.run, options.fused, options.out / scenario)
            found = measure(load, options.level)
            broken += bool(found["breaches"])
            print(readable(found), flush=True)
    except PromoliftError as problem:
        print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
        return problem.exit_status
    print(f"reports are in {options.out}")
    return 1 if broken else 0


def readable(found: dict[str, Any]) -> str:
    """One scenario in a few lines."""
    line = (
        f"{found['scenario']:<17} {found['requests']:>6} requests, {found['per_s']:6.1f}/s, p50 {found['p50_ms']:.0f} "
        f"p95 {found['p95_ms']:.0f} p99 {found['p99_ms']:.0f} ms, errors {found['error_share']:.2%}, degraded "
        f"{found['degraded_share']:.2%}" + (f", largest process {found['node_mib']} MiB" if "node_mib" in found else "")
    )
    return "\n".join([line, *(f"  BROKEN: {breach}" for breach in found["breaches"]), *(f"  {error}" for error in found["errors"])])


if __name__ == "__main__":
    sys.exit(main())
