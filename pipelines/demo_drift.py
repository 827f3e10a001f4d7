"""A finished run -> real baskets of its training's last week through the served graph, a feature that breaks, the alarm, what it sets off.

Two days nothing is wrong; from the third on one feature is 0 for everybody, as if its feed had failed. All of it happens in a copy of the
run; only the cause of a retraining is noted in the run.
"""

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from components.watch_drift import decide
from pipelines.demo_service import Request, Service, baskets, lay_out, put_online, served_copy
from promolift.contracts.tables import FEATURES
from promolift.storage import spelled

CALLERS, WAIT_S = 4, 10.0
BROKEN, QUIET_DAYS, BROKEN_DAYS, MOST_BASKETS, SHOWN = "sales_cents_84d", 2, 2, 250, 3


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
        with served_copy(folder, "--detect") as service, httpx.Client(timeout=30) as client:
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
    put_online(folder, service.redis_url)
    print(f"  the feed of the feature {BROKEN} breaks: it is 0 for everybody")


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
