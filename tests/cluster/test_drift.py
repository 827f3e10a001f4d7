"""The drift detector behind KServe's payload logger: what the graph decides reaches it, a shift is found, a killed pod loses no window."""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from deltalake import DeltaTable

from promolift.contracts.artifacts import read_manifest, read_source_card
from promolift.contracts.tables import FEATURES
from promolift.drift.reference import JSON
from promolift.kubectl import NAMESPACE
from tests.cluster.conftest import Cluster, settle, whole
from tests.cluster.inside import call

pytestmark = pytest.mark.cluster
SHOPPERS, CALLERS_AT_ONCE, ARRIVED_S = 300, 4, 30


def detector(cluster: Cluster, path: str, method: str = "GET") -> Any:
    with cluster.kubectl.forwarded("svc/promo-detector-predictor", 80) as port:
        found = httpx.request(method, f"http://127.0.0.1:{port}{path}", timeout=60)
    assert found.status_code == 200, found.text
    return found.text if path == "/metrics" else found.json()


@pytest.fixture
def by_moment(cluster: Cluster, ledger_redis: Any) -> Iterator[str]:
    """The path of the served version's answers; the detector's windows are empty, and days are those of the requests' moments."""
    run = cluster.deployed.run
    if not (run / "serving_model" / JSON).exists():
        pytest.skip(f"{run} was made before detectors were fitted: its model has no reference")

    def patch(change: dict[str, Any]) -> None:
        path = "/spec/predictor/containers/0/args/"
        change = {**change, "path": path + change["path"]}
        cluster.kubectl("-n", NAMESPACE, "patch", "inferenceservice", "promo-detector", "--type=json", "-p", json.dumps([change]))
        settle(cluster.kubectl)

    patch({"op": "add", "path": "-", "value": "--moments"})
    try:
        for key in ledger_redis.scan_iter("drift:*"):
            ledger_redis.delete(key)
        yield f"/v1/versions/{read_manifest(run / 'serving_model').version}"
    finally:
        patch({"op": "remove", "path": "2"})


def shoppers_of(run: Path) -> tuple[str, pd.DataFrame]:
    """The run's shoppers by their feature of the most different values, and its name."""
    names = read_manifest(run / "serving_model").numeric
    table = DeltaTable(str(run / "lake" / FEATURES.path)).to_pandas(columns=["shopper_id", *names]).drop_duplicates("shopper_id")
    column = max(names, key=lambda name: table[name].nunique())
    return column, table.sort_values(column, kind="stable")


def asked(cluster: Cluster, shoppers: Sequence[str], moment: datetime) -> int:
    """How many of them the graph answered."""
    (body,) = cluster.bodies(1)
    body |= {"moment": moment.isoformat().replace("+00:00", "Z"), "deadline_ms": 5_000}

    def ask(shopper: str) -> bool:
        own = {**body, "shopper_id": shopper, "request_id": f"drift-{shopper}-{moment.date()}"}
        return client.post(cluster.doors.graph, json=own).status_code == 200

    with httpx.Client(timeout=20) as client, ThreadPoolExecutor(CALLERS_AT_ONCE) as pool:
        return sum(pool.map(ask, shoppers))


def arrived(cluster: Cluster, version: str, wanted: int) -> int:
    """Rows of the version's window, once they are as many as wanted."""
    deadline = time.monotonic() + ARRIVED_S
    while (rows := detector(cluster, version)["window"]["rows"]) < wanted:
        assert time.monotonic() < deadline, f"{rows} of {wanted} rows"
        time.sleep(1)
    return int(rows)


def test_a_shift_is_found_and_a_killed_detector_loses_no_window(cluster: Cluster, by_moment: str, measured: dict[str, Any]):
    run = cluster.deployed.run
    column, table = shoppers_of(run)
    whole(cluster)
    before = detector(cluster, by_moment)
    first = datetime.fromisoformat(read_source_card(run / "lake").as_of)
    everybody = table.sample(2 * SHOPPERS, random_state=7)["shopper_id"].tolist()
    answered = asked(cluster, everybody[:SHOPPERS], first)
    rows = arrived(cluster, by_moment, before["window"]["rows"] + answered)
    cluster.kubectl(
        "-n", NAMESPACE, "delete", "pod", "-l", "serving.kserve.io/inferenceservice=promo-detector", "--grace-period=0", "--force"
    )
    # Nobody sends again what meets no detector: KServe's agent does not, so only what is asked after its return is counted on.
    settle(cluster.kubectl)
    kept = detector(cluster, by_moment)["window"]["rows"]
    answered += (since := asked(cluster, everybody[SHOPPERS:], first))
    rows_after = arrived(cluster, by_moment, kept + since)
    (quiet,) = detector(cluster, f"{by_moment}/looks?through={first.date()}", "POST")["looks"]

    low, then = table.head(len(table) // 3).sample(SHOPPERS, random_state=7)["shopper_id"].tolist(), first + timedelta(days=1)
    arrived(cluster, by_moment, rows_after + asked(cluster, low, then))
    (shifted,) = detector(cluster, f"{by_moment}/looks?through={then.date()}", "POST")["looks"]
    metrics = detector(cluster, "/metrics")
    found = next(finding for finding in shifted["findings"] if finding["column"] == column)
    measured["drift"] = {
        "answered": answered + len(low), "column": column, "p_value": found["p_value"], "changed": found["impact"]["changed"],
        "rows_lost": rows - kept, "quiet": quiet["status"],
    }  # fmt: skip
    assert before["status"] == "not looked yet" and kept == rows
    assert column not in {finding["column"] for finding in quiet["findings"]}
    assert shifted["status"] == "drift" and found["days"] == 1
    assert f'promolift_drift{{version="{shifted["version"]}"}} 1.0' in metrics


def test_what_copying_costs_is_measured_from_inside(cluster: Cluster, measured: dict[str, Any]):
    whole(cluster)
    (pod,) = cluster.get("pods", "-l", "serving.kserve.io/inferenceservice=promo-predictor")["items"]
    assert {container["name"] for container in pod["spec"]["containers"]} == {"kserve-container", "agent"}
    path = "/v1/models/{}:predict"
    services = [f"http://promo-{name}-predictor.{NAMESPACE}{path.format(name)}" for name in ("transformer", "eligibility", "predictor")]
    straight = f"http://{pod['status']['podIP']}:8080{path.format('predictor')}"
    found = call(cluster.kubectl, "logger", "logger.py", [*services, straight], cluster.bodies(50, skip=700), 120)
    measured["logger"] = found
    assert 0 < found["without_ms"] < found["with_ms"] + 1
