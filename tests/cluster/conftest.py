"""The deployment that `make deploy-local` left on the current kube context; without one these tests are skipped, and say why."""

import itertools
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from deployment.ask import Doors, doors
from deployment.local import OUT, Deployed, deployed, missing
from promolift.errors import PromoliftError
from promolift.kubectl import NAMESPACE, Kubectl, chosen, run
from serving.kserve.decide import Question, requests
from tests.cluster.inside import CALLERS

SETTLED_S, ANSWERED_S = 180, 20


@dataclass(frozen=True)
class Cluster:
    """kubectl, what is deployed, and its doors on this machine."""

    kubectl: Kubectl
    deployed: Deployed
    doors: Doors

    def get(self, *arguments: str) -> Any:
        return self.kubectl.get("-n", NAMESPACE, *arguments)

    def bodies(self, count: int, skip: int = 0) -> list[dict[str, Any]]:
        return requests(Question(self.deployed.run, count=count, skip=skip))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    try:
        kubectl = chosen("")
        found = deployed(kubectl, OUT)
    except PromoliftError as problem:
        pytest.skip(f"no deployment to test: {problem}")
    kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": CALLERS, "labels": {"promolift/caller": "true"}}}])
    with doors(kubectl, OUT) as opened:
        yield Cluster(kubectl, found, opened)
    kubectl("delete", "namespace", CALLERS, "--wait=true")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test tells what the cluster looked like, which nobody can see afterwards."""
    report: Any = yield
    if report.failed:
        pods = run(["get", "pods", "-A", "-o", "wide", "--request-timeout=10s"])
        events = run(["-n", NAMESPACE, "get", "events", "--sort-by=.lastTimestamp", "--request-timeout=10s"])
        latest = "\n".join(line for line in events.stdout.splitlines() if "FailedGetResourceMetric" not in line)[-4000:]
        load = Path("/proc/loadavg").read_text(encoding="utf-8")
        report.sections.append(("cluster", f"load {load}{pods.stdout}{pods.stderr}{latest}{events.stderr}"))
    return report


@pytest.fixture(autouse=True)
def settled(cluster: Cluster) -> None:
    """A test begins when what the one before it changed has come to rest."""
    settle(cluster.kubectl)


def settle(kubectl: Kubectl) -> None:
    """Wait until every pod runs and none is on its way out, twice in a row: a controller takes a moment to act on a change."""
    deadline, still = time.monotonic() + SETTLED_S, 0
    while still < 2:
        assert time.monotonic() < deadline, kubectl("-n", NAMESPACE, "get", "pods")
        time.sleep(2)
        still = still + 1 if not missing(kubectl) and all(map(_rests, kubectl.get("-n", NAMESPACE, "pods")["items"])) else 0


def whole(cluster: Cluster) -> None:
    """Wait until five answers of the graph in a row lack no part: the router may hold connections to pods that are gone."""
    deadline, bodies, good = time.monotonic() + SETTLED_S, itertools.cycle(cluster.bodies(20)), 0
    with httpx.Client(base_url=cluster.doors.graph, timeout=10) as client:
        while good < 5:
            assert time.monotonic() < deadline, "the graph does not come to rest"
            good = good + 1 if _complete(client, next(bodies)) else 0
            time.sleep(0.2)


def _complete(client: httpx.Client, body: dict[str, Any]) -> bool:
    try:
        answer = client.post("/", json={**body, "request_id": uuid.uuid4().hex, "deadline_ms": 5_000})
    except httpx.HTTPError:
        return False
    return answer.status_code == 200 and not {"ledger_unavailable", "features_unavailable"} & set(answer.json()["degraded"])


def _rests(pod: Any) -> bool:
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
    return ready and "deletionTimestamp" not in pod["metadata"]


@contextmanager
def of_redis(cluster: Cluster) -> Iterator[Any]:
    """A client of the cluster's Redis, led to the pod that is there now."""
    password = cluster.kubectl.secret("promo-secrets", "redis_password")
    with (
        cluster.kubectl.forwarded("pod/promo-redis-0", 6379) as port,
        redis.Redis(port=port, password=password, socket_timeout=ANSWERED_S) as client,
    ):
        yield client


@pytest.fixture
def ledger_redis(cluster: Cluster) -> Iterator[Any]:
    with of_redis(cluster) as client:
        yield client


@pytest.fixture(scope="session")
def measured() -> Iterator[dict[str, Any]]:
    """What tests measured, by name: kept in build/cluster/measured.json for docs/cluster.md."""
    path = Path("build/cluster/measured.json")
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    yield found
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2, sort_keys=True))
