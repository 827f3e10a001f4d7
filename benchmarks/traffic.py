"""Real baskets of the last week of a run's training through its whole service, watched: engine, graph, copies, detector, looks.

    python -m benchmarks.traffic --run build/demo

Features online are those of the week's examples, as the model learnt from them. Every basket asks for a decision at its own moment with its
own lines, and each day ends with a look. Nothing has changed until the last day, when every amount is 10 % higher.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake

from benchmarks.document import write_block
from components.fit_detector import fit_model
from feature_repo.store import materialize
from promolift.contracts.artifacts import read_manifest, write_json
from promolift.contracts.tables import EXAMPLES, FEATURES
from promolift.drift.reference import JSON
from promolift.redis_server import redis_server

CALLERS, DEARER, DAYS, WAIT_S = 4, 1.1, 7, 10.0


def week(run: Path, folder: Path) -> datetime:
    """Put the features of the last examples online for the run in `folder`; returns their moment."""
    examples = DeltaTable(str(run / "lake" / EXAMPLES.path)).to_pyarrow_table(columns=[column.name for column in FEATURES.columns])
    moment: datetime = pc.max(examples["moment"]).as_py()
    write_deltalake(str(folder / "lake" / FEATURES.path), examples.filter(pc.equal(examples["moment"], moment)))
    with redis_server(folder / "redis") as url:
        materialize(folder / "lake", url, folder / "registry.db")
    return moment


@contextmanager
def watched(folder: Path) -> Iterator[dict[str, Any]]:
    """serving.json of the run in `folder`, served with a detector. Features may be a week old: they are those of the week."""
    command = [sys.executable, "-m", "serving.kserve", "serve", "--run", str(folder), "--listen", "127.0.0.1:0", "--detect"]
    environment = {**os.environ, "PROMOLIFT_FEATURES_STALE_S": str(10 * 86_400)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None  # noqa: S101 (a pipe was asked for)
        try:
            next(line for line in process.stdout if line.startswith("ready:"))
            yield json.loads((folder / "serving.json").read_text(encoding="utf-8"))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()  # before its output is closed, into which it says goodbye


def baskets(run: Path, begin: datetime) -> dict[str, list[dict[str, Any]]]:
    """Requests by date, of the week that begins then."""
    names = ["shopper_id", "basket_id", "store_id", "event_time", "product_id", "category", "quantity", "sales_cents"]
    span = [("event_time", ">=", begin), ("event_time", "<", begin + timedelta(days=DAYS))]
    lines = DeltaTable(str(run / "lake/silver/purchases")).to_pandas(columns=names, filters=span)
    lines = lines[(lines.sales_cents > 0) & (lines.quantity > 0)]
    found: dict[str, list[dict[str, Any]]] = {}
    for basket, group in lines.groupby("basket_id"):
        first = group.iloc[0]
        moment = first.event_time.strftime("%Y-%m-%dT%H:%M:%SZ")
        own = [
            {
                "category": line.category,
                "amount_cents": int(line.sales_cents),
                "quantity": int(line.quantity),
                "product_id": line.product_id,
            }
            for line in group.head(200).itertuples()
        ]
        request = {"request_id": basket, "shopper_id": first.shopper_id, "moment": moment, "store_id": first.store_id, "basket": own}
        found.setdefault(moment[:10], []).append(request | {"deadline_ms": 5_000})
    return dict(sorted(found.items()))


def dearer(request: dict[str, Any]) -> dict[str, Any]:
    """The same basket at higher prices."""
    return request | {"basket": [line | {"amount_cents": round(DEARER * line["amount_cents"])} for line in request["basket"]]}


def measure(run: Path) -> list[dict[str, Any]]:
    """The look of every day, with how many were asked and how many decisions came."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        for name in ("serving_model", "lake/landing"):
            shutil.copytree(run / name, folder / name)
        if not (folder / "serving_model" / JSON).exists():
            fit_model(folder / "serving_model", run / "lake", 1)
        by_day = list(baskets(run, week(run, folder)).items())
        model = read_manifest(folder / "serving_model").version
        with watched(folder) as served, httpx.Client(timeout=30) as client:
            last = by_day[-1][0]
            return [_day(served, client, f"{served['detector']}/v1/versions/{model}", day, asked, day == last) for day, asked in by_day]


def _day(served: dict[str, Any], client: httpx.Client, version: str, day: str, requests: Sequence[Any], last: bool) -> dict[str, Any]:  # noqa: PLR0917
    asked, headers = [dearer(request) for request in requests] if last else requests, {"X-API-Key": served["api_key"]}
    before = client.get(version).json()["window"]["rows"]

    def ask(request: dict[str, Any]) -> bool:
        return client.post(f"{served['url']}/v1/decisions", json=request, headers=headers).status_code == 200

    with ThreadPoolExecutor(CALLERS) as pool:
        answered = sum(pool.map(ask, asked))
    until = time.monotonic() + WAIT_S
    while (copied := client.get(version).json()["window"]["rows"] - before) < len(asked) and time.monotonic() < until:
        time.sleep(0.2)
    (made,) = client.post(f"{version}/looks", params={"through": day}).json()["looks"]
    told = [f"{f['column']} over {f['days']} ({f['p_value']:.0e})" for f in made["findings"]]
    changed = ", prices 10 % higher" if last else ""
    print(f"{day}{changed}: {len(asked)} asked, {answered} answered, {copied} seen, {made['status']} {', '.join(told)}", flush=True)
    return {"day": day, "asked": len(asked), "answered": answered, "seen": copied, "dearer": last, "look": made}


def sentence(days: Sequence[dict[str, Any]]) -> str:
    """The figures as docs/drift.md prints them."""
    quiet, last = [day["look"]["status"] for day in days if not day["dearer"]], days[-1]["look"]
    asked, seen = (sum(day[name] for day in days) for name in ("asked", "seen"))
    return (
        f"{asked:,} real baskets of the last week of training asked the whole service (engine, graph, boxes); the detector saw\n"
        f"{seen:,} of the answers. Of {len(quiet)} days without a change {quiet.count('no drift')} had no drift, "
        f"{quiet.count('drift')} had, {quiet.count('too few rows')} too few rows; on the last one prices were 10 % higher:\n"
        f"{last['status']}, {', '.join(f['column'] for f in last['findings'])}."
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("build/demo"), metavar="DIR", help="finished run (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/drift/traffic.json"), metavar="FILE", help="where to write (%(default)s)")
    parser.add_argument("--document", type=Path, metavar="FILE", help="also write them between the markers of this file (docs/drift.md)")
    options = parser.parse_args()
    days = measure(options.run)
    write_json(options.out, {"days": days})
    if options.document:
        write_block(options.document, "traffic", [sentence(days)])


if __name__ == "__main__":
    main()
