"""A finished run -> real baskets of its training's last week through the served graph, a feature that breaks, the alarm, what it sets off.

Features online are those of the week's examples, as the model learnt from them. Two days nothing is wrong; from the third on one feature is
0 for everybody, as if its feed had failed. All of it happens in a copy of the run; only the cause of a retraining is noted in the run.
"""

import io
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
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake

from components.watch_drift import decide
from feature_repo.store import materialize
from promolift.contracts.artifacts import read_manifest
from promolift.contracts.tables import EXAMPLES, FEATURES
from promolift.errors import UnavailableError
from promolift.redis_server import redis_server
from promolift.storage import spelled

CALLERS, DAYS, WAIT_S = 4, 7, 10.0
BROKEN, QUIET_DAYS, BROKEN_DAYS, MOST_BASKETS, SHOWN = "sales_cents_84d", 2, 2, 250, 3
BASKETS = "silver/purchases"
Request = dict[str, Any]


@dataclass(frozen=True)
class Service:
    """What serving.json says of a watched service, and the version it serves."""

    url: str
    api_key: str
    detector: str
    redis_url: str
    version: str

    @property
    def answers(self) -> str:
        """Where the detector answers for the version."""
        return f"{self.detector}/v1/versions/{self.version}"


def can_be_shown(run: Path) -> bool:
    """Whether the run's source has baskets; a table of decisions has none."""
    return bool(DeltaTable.is_deltatable(str(run / "lake" / BASKETS)))


def lay_out(run: Path, folder: Path) -> datetime:
    """A copy of the run in `folder` with the features of its last examples online; returns their moment."""
    for name in ("serving_model", "lake/landing"):
        shutil.copytree(run / name, folder / name)
    examples = DeltaTable(str(run / "lake" / EXAMPLES.path)).to_pyarrow_table(columns=[column.name for column in FEATURES.columns])
    moment: datetime = pc.max(examples["moment"]).as_py()
    write_deltalake(str(folder / "lake" / FEATURES.path), examples.filter(pc.equal(examples["moment"], moment)))
    with redis_server(folder / "redis") as url:
        _put_online(folder, url)
    return moment


@contextmanager
def watched(folder: Path) -> Iterator[Service]:
    """The copy, served with a detector. Its features may be a week old: they are those of the week."""
    command = [sys.executable, "-m", "serving.kserve", "serve", "--run", str(folder), "--listen", "127.0.0.1:0", "--detect"]
    environment = {**os.environ, "PROMOLIFT_FEATURES_STALE_S": str(10 * 86_400)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            if not any(line.startswith("ready:") for line in process.stdout or ()):  # it ends with the first
                raise UnavailableError(f"{folder} could not be served with a detector; `make serve` says why.")
            found = json.loads((folder / "serving.json").read_text(encoding="utf-8"))
            version = read_manifest(folder / "serving_model").version
            yield Service(found["url"], found["api_key"], found["detector"], found["redis_url"], version)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()  # before its output is closed, into which it says goodbye


def baskets(run: Path, begin: datetime) -> dict[str, list[Request]]:
    """Requests by date, of the week that begins then."""
    names = ["shopper_id", "basket_id", "store_id", "event_time", "product_id", "category", "quantity", "sales_cents"]
    span = [("event_time", ">=", begin), ("event_time", "<", begin + timedelta(days=DAYS))]
    lines = DeltaTable(str(run / "lake" / BASKETS)).to_pandas(columns=names, filters=span)
    found: dict[str, list[Request]] = {}
    for basket, group in lines[(lines.sales_cents > 0) & (lines.quantity > 0)].groupby("basket_id"):
        first = group.iloc[0]
        moment = first.event_time.strftime("%Y-%m-%dT%H:%M:%SZ")
        own = [_line(line) for line in group.head(200).itertuples()]
        request = {"request_id": basket, "shopper_id": first.shopper_id, "moment": moment, "store_id": first.store_id, "basket": own}
        found.setdefault(moment[:10], []).append(request | {"deadline_ms": 5_000})
    return dict(sorted(found.items()))


def _line(line: Any) -> Request:
    cents, quantity = int(line.sales_cents), int(line.quantity)
    return {"category": line.category, "amount_cents": cents, "quantity": quantity, "product_id": line.product_id}


def ask(service: Service, client: httpx.Client, requests: Sequence[Request]) -> tuple[int, int]:
    """How many were answered, and how many of the answers the detector has seen."""
    before = client.get(service.answers).json()["window"]["rows"]

    def asked(request: Request) -> bool:
        return client.post(f"{service.url}/v1/decisions", json=request, headers={"X-API-Key": service.api_key}).status_code == 200

    with ThreadPoolExecutor(CALLERS) as pool:
        answered = sum(pool.map(asked, requests))
    until = time.monotonic() + WAIT_S
    while (seen := client.get(service.answers).json()["window"]["rows"] - before) < answered and time.monotonic() < until:
        time.sleep(0.2)
    return answered, seen


def look(service: Service, client: httpx.Client, day: str) -> dict[str, Any]:
    """The look at a day, which is over."""
    made: dict[str, Any] = client.post(f"{service.answers}/looks", params={"through": day}).json()["looks"][-1]
    return made


def shown(run: Path, root: Path) -> dict[str, Any]:
    """Show it; returns what the looks found and what was decided. A retraining that is due is noted in the run, to be made in `root`."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        by_day = list(baskets(run, lay_out(run, folder)).items())[1 : 1 + QUIET_DAYS + BROKEN_DAYS]
        with watched(folder) as service, httpx.Client(timeout=30) as client:
            looks = []
            for number, (day, requests) in enumerate(by_day):
                if number == QUIET_DAYS:
                    _break(folder, service)
                ask(service, client, requests[:MOST_BASKETS])
                looks.append(_told(look(service, client, day)))
                print(f"  {day} {_words(looks[-1])}", flush=True)
            decided = decide(str(run), service.detector, "", spelled(root.resolve()), f"{by_day[-1][0]}T23:59:59Z")
    return {"looks": looks, "retraining": decided, "seconds": round(time.perf_counter() - start, 1)}


def _break(folder: Path, service: Service) -> None:
    """The feature is 0 for everybody from now on."""
    place = str(folder / "lake" / FEATURES.path)
    table = DeltaTable(place).to_pyarrow_table()
    at = table.schema.get_field_index(BROKEN)
    zeros = pa.array([0.0] * table.num_rows, table.schema.field(at).type)
    write_deltalake(place, table.set_column(at, table.schema.field(at), zeros), mode="overwrite")
    _put_online(folder, service.redis_url)
    print(f"  the feed of the feature {BROKEN} breaks: it is 0 for everybody")


def _put_online(folder: Path, url: str) -> None:
    with redirect_stdout(io.StringIO()):  # Feast tells its progress
        materialize(folder / "lake", url, folder / "registry.db")


def _told(made: dict[str, Any]) -> dict[str, Any]:
    """Of a look the day, the status, and each alarm's column, segment and p-value, with the share of decisions and the cents at stake."""
    alarms = [
        {name: alarm[name] for name in ("column", "segment", "days", "p_value")} | (alarm["impact"] or {}) for alarm in made["findings"]
    ]
    return {"day": made["day"], "status": made["status"], "alarms": alarms}


def _words(told: dict[str, Any]) -> str:
    """Status, and the columns whose alarms cost most."""
    costliest: dict[str, Request] = {}
    for alarm in told["alarms"]:  # costliest first
        if "changed" in alarm:
            costliest.setdefault(alarm["column"], alarm)
    lines = [
        f"\n    {alarm['column']:<18} changes {alarm['changed']:.0%} of decisions, {round(alarm['cents'])} cents at stake in each"
        + (f" ({alarm['segment']})" if alarm["segment"] else "")
        for alarm in list(costliest.values())[:SHOWN]
    ]  # fmt: skip
    return f"{told['status']}{''.join(lines)}"
