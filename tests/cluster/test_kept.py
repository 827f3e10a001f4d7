"""What outlives a pod: reservations in Redis."""

from typing import Any

import httpx
import pytest

from promolift.kubectl import NAMESPACE
from promolift.policy.ledger import Ledger
from tests.cluster.conftest import Cluster, of_redis

pytestmark = pytest.mark.cluster


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
    with of_redis(cluster) as client:
        ledger = Ledger(client)
        found = {name: (budget.total, budget.committed, budget.reserved) for name, budget in ledger.budgets().items()}
        return found, [client.hgetall(ledger.key("reservation", name)) for name in reservations]
