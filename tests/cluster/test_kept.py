"""What outlives a pod: reservations in Redis; and what KServe's payload logger tells of the predictor."""

import json
import time
from typing import Any

import httpx
import pytest
import redis

from promolift.contracts.decisions import Envelope, read_bytes
from promolift.kubectl import NAMESPACE
from promolift.policy.ledger import Ledger
from tests.cluster.conftest import Cluster, settle
from tests.cluster.inside import sink

pytestmark = pytest.mark.cluster
LOGGED_S = 60


def test_a_restarted_redis_knows_every_reservation(cluster: Cluster):
    with httpx.Client(timeout=10) as client:
        answers = [client.post(cluster.doors.graph, json={**body, "deadline_ms": 5_000}) for body in cluster.bodies(60, skip=500)]
    decisions = [answer.json()["decision"] for answer in answers if answer.status_code == 200]
    reserved = [decision["reservation_id"] for decision in decisions if decision["reservation_id"]]
    assert reserved
    before = books(cluster, reserved)
    cluster.kubectl("-n", NAMESPACE, "delete", "pod", "promo-redis-0", "--grace-period=0", "--force")
    cluster.kubectl("-n", NAMESPACE, "rollout", "status", "statefulset/promo-redis", "--timeout=120s")
    after = books(cluster, reserved)
    assert after == before and all(after[1])


def books(cluster: Cluster, reservations: list[str]) -> tuple[dict[str, Any], list[dict[bytes, bytes]]]:
    """Budgets and reservations as Redis has them."""
    password = cluster.kubectl.secret("promo-secrets", "redis_password")
    with cluster.kubectl.forwarded("pod/promo-redis-0", 6379) as port, redis.Redis(port=port, password=password) as client:
        ledger = Ledger(client)
        found = {name: (budget.total, budget.committed, budget.reserved) for name, budget in ledger.budgets().items()}
        return found, [client.hgetall(ledger.key("reservation", name)) for name in reservations]


def test_the_payload_logger_tells_what_a_drift_detector_needs(cluster: Cluster):
    def patch(op: str, wait_s: int, grace: int) -> None:
        logger = {"mode": "all", "url": f"http://promo-sink.{NAMESPACE}"}
        changes = [
            {"op": op, "path": "/spec/predictor/logger", **({"value": logger} if op == "add" else {})},
            {"op": "replace", "path": "/spec/predictor/containers/0/lifecycle/preStop/sleep/seconds", "value": wait_s},
            {"op": "replace", "path": "/spec/predictor/terminationGracePeriodSeconds", "value": grace},
        ]
        cluster.kubectl("-n", NAMESPACE, "patch", "inferenceservice", "promo-predictor", "--type=json", "-p", json.dumps(changes))
        settle(cluster.kubectl)

    body = {**cluster.bodies(1, skip=77)[0], "deadline_ms": 5_000}
    with sink(cluster.kubectl) as received:
        # KServe's agent goes on proxying for 30 s after it is told to stop, so the box behind it must stay as long.
        patch("add", 40, 80)
        try:
            events = logged(cluster, received, body)
        finally:
            patch("remove", 5, 40)
    asked, answered = events["org.kubeflow.serving.inference.request"], events["org.kubeflow.serving.inference.response"]
    assert asked["headers"]["ce-id"] == answered["headers"]["ce-id"]
    for event in (asked, answered):
        assert event["headers"]["ce-inferenceservicename"] == "promo-predictor" and event["headers"]["ce-namespace"] == NAMESPACE
        assert event["headers"]["ce-specversion"] == "1.0" and event["headers"]["ce-time"]
    before, after = (read_bytes(Envelope, event["body"].encode()) for event in (asked, answered))
    assert before.shopper is not None and before.shopper.features and before.scores is None
    assert after.scores is not None and after.scores.model_version and after.request == before.request


def logged(cluster: Cluster, received: Any, body: dict[str, Any]) -> dict[str, Any]:
    """Both events of one decision, by type."""
    deadline, number, found = time.monotonic() + LOGGED_S, 0, {}
    while len(found) < 2 and time.monotonic() < deadline:
        number += 1
        request_id = f"{body['request_id']}-{number}"
        httpx.post(cluster.doors.graph, json={**body, "request_id": request_id}, timeout=10)
        time.sleep(1)
        found = {event["headers"]["ce-type"]: event for event in received() if request_id in event["body"]}
    assert len(found) == 2, received()
    return found
