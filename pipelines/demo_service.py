"""A finished run, or a copy of it that may be spoiled, served on a free port; and real baskets of its training's last week to ask about.

Features online of a copy are those of the week's examples, as the models learnt from them.
"""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake

from promolift.contracts.artifacts import read_manifest
from promolift.contracts.tables import EXAMPLES, FEATURES
from promolift.errors import UnavailableError
from promolift.feast_redis import skip_type_checks
from promolift.redis_server import redis_server

SERVING = (sys.executable, "-m", "serving.kserve")
READY_S, STOP_S, DAYS = 120.0, 60.0, 7
BASKETS = "silver/purchases"
Request = dict[str, Any]


@dataclass(frozen=True)
class Service:
    """What serving.json says of a served run, and the version of its model; `detector` is empty where none was asked for."""

    url: str
    api_key: str
    detector: str
    redis_url: str
    version: str

    @property
    def answers(self) -> str:
        """Where the detector answers for the version."""
        return f"{self.detector}/v1/versions/{self.version}"


@contextmanager
def served(folder: Path, *options: str, **environment: str) -> Iterator[Service]:
    """The run's graph with these options of `serve` until the block ends; its log, DIR/serving.log, is flushed when it stops.

    Raises UnavailableError with what it said last when it does not come up.
    """
    record, log = folder / "serving.json", folder / "serving.log"
    record.unlink(missing_ok=True)
    command = [*SERVING, "serve", "--run", str(folder), "--listen", "127.0.0.1:0", *options]
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment})
        try:
            _wait_ready(process, record, log)
            found = json.loads(record.read_text(encoding="utf-8"))
            version = read_manifest(folder / "serving_model").version
            yield Service(found["url"], found["api_key"], found.get("detector", ""), found["redis_url"], version)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_S)


def _wait_ready(process: "subprocess.Popen[bytes]", record: Path, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while not record.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            last = (log.read_text(encoding="utf-8").strip().splitlines() or ["it said nothing"])[-1]
            raise UnavailableError(f"The graph did not come up: {last} (all of it: {log}).")
        time.sleep(0.1)


def has_baskets(run: Path) -> bool:
    """Whether the run's source has baskets; a table of decisions has none."""
    return bool(DeltaTable.is_deltatable(str(run / "lake" / BASKETS)))


def lay_out(run: Path, folder: Path, model: str = "serving_model") -> datetime:
    """A copy of the run in `folder` that serves `model`, with the features of its last examples online; returns their moment."""
    for name, to in ((model, "serving_model"), ("lake/landing", "lake/landing")):
        shutil.copytree(run / name, folder / to)
    examples = DeltaTable(str(run / "lake" / EXAMPLES.path)).to_pyarrow_table(columns=[column.name for column in FEATURES.columns])
    moment: datetime = pc.max(examples["moment"]).as_py()
    write_deltalake(str(folder / "lake" / FEATURES.path), examples.filter(pc.equal(examples["moment"], moment)))
    with redis_server(folder / "redis") as url:
        put_online(folder, url)
    return moment


def put_online(folder: Path, url: str) -> None:
    """Features of the copy's lake -> Redis at `url`."""
    skip_type_checks()
    from feature_repo.store import materialize  # noqa: PLC0415 (loads Feast)

    with redirect_stdout(io.StringIO()):  # Feast tells its progress
        materialize(folder / "lake", url, folder / "registry.db")


@contextmanager
def served_copy(folder: Path, *options: str) -> Iterator[Service]:
    """The copy, served: its features may be a week old, since they are those of the week."""
    with served(folder, *options, PROMOLIFT_FEATURES_STALE_S=str(10 * 86_400)) as service:
        yield service


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
