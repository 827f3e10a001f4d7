"""Real baskets of a run's last days through its whole service, watched: engine, graph, the predictor's copies, detector, looks.

    python -m benchmarks.traffic --run build/demo --days 8

Every basket asks for a decision at its own moment with its own lines; features are those online, of the end of the data. Each day ends with
a look. On the last day every amount is 10 % higher. What is answered by the detector is printed and written.
"""

import argparse
import json
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
from deltalake import DeltaTable

from components.fit_detector import fit_model
from promolift.contracts.artifacts import read_manifest, read_source_card, write_json
from promolift.drift.reference import JSON

CALLERS, DEARER = 4, 1.1


@contextmanager
def watched(run: Path) -> Iterator[dict[str, Any]]:
    """serving.json of a copy of the run, served with a detector."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        (folder / "lake").mkdir(parents=True)
        for name in ("redis", "serving_model", "lake/landing"):
            shutil.copytree(run / name, folder / name, ignore=shutil.ignore_patterns("*.parquet", ".lock"))
        shutil.copyfile(run / "registry.db", folder / "registry.db")
        if not (folder / "serving_model" / JSON).exists():
            shutil.copyfile(run / "serving_model/scores.parquet", folder / "serving_model/scores.parquet")
            fit_model(folder / "serving_model", run / "lake", 1)
        command = [sys.executable, "-m", "serving.kserve", "serve", "--run", str(folder), "--listen", "127.0.0.1:0", "--detect"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None  # noqa: S101 (a pipe was asked for)
            next(line for line in process.stdout if line.startswith("ready:"))
            try:
                yield json.loads((folder / "serving.json").read_text(encoding="utf-8"))
            finally:
                process.send_signal(signal.SIGTERM)


def baskets(run: Path, days: int) -> dict[str, list[dict[str, Any]]]:
    """Requests by date, of the last `days` of the run's purchases."""
    names = ["shopper_id", "basket_id", "store_id", "event_time", "product_id", "category", "quantity", "sales_cents"]
    end = datetime.fromisoformat(read_source_card(run / "lake").as_of)
    table = DeltaTable(str(run / "lake/silver/purchases"))
    lines = table.to_pandas(columns=names, filters=[("event_time", ">=", end - timedelta(days=days))])
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


def measure(run: Path, days: int) -> list[dict[str, Any]]:
    """The look of every day, with how many were asked and how many decisions came."""
    model = read_manifest(run / "serving_model").version
    with watched(run) as served, httpx.Client(timeout=30) as client:
        by_day = list(baskets(run, days).items())
        return [_day(served, client, model, day, requests, last=place == len(by_day) - 1) for place, (day, requests) in enumerate(by_day)]


def _day(served: dict[str, Any], client: httpx.Client, model: str, day: str, requests: Sequence[Any], *, last: bool) -> dict[str, Any]:
    asked = [dearer(request) for request in requests] if last else requests
    headers = {"X-API-Key": served["api_key"]}

    def ask(request: dict[str, Any]) -> bool:
        return client.post(f"{served['url']}/v1/decisions", json=request, headers=headers).status_code == 200

    with ThreadPoolExecutor(CALLERS) as pool:
        answered = sum(pool.map(ask, asked))
    time.sleep(1)  # the copies are written
    looked = client.post(f"{served['detector']}/v1/versions/{model}/looks", params={"through": day}).json()["looks"]
    found = {"day": day, "asked": len(asked), "answered": answered, "dearer": last, "look": looked[-1] if looked else None}
    told = [(f["column"], f["days"], f"{f['p_value']:.1e}", f["most"]) for f in (looked[-1]["findings"] if looked else [])]
    print(f"{day}: {len(asked)} asked, {answered} answered, {looked[-1]['status'] if looked else 'no look'} {told}", flush=True)
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("build/demo"), metavar="DIR", help="finished run (%(default)s)")
    parser.add_argument("--days", type=int, default=8, help="how many (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/drift/traffic.json"), metavar="FILE", help="where to write (%(default)s)")
    options = parser.parse_args()
    write_json(options.out, {"days": measure(options.run, options.days)})


if __name__ == "__main__":
    main()
