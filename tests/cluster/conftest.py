"""The deployment that `make deploy-local` left on the current kube context; without one these tests are skipped, and say why."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from deployment.ask import Doors, doors
from deployment.kubectl import NAMESPACE, Kubectl, chosen
from deployment.local import OUT, Deployed, deployed
from deployment.secret_values import secret
from promolift.errors import PromoliftError
from serving.kserve.decide import Question, requests
from tests.cluster.inside import CALLERS


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
    kubectl("delete", "namespace", CALLERS, "--wait=false")


@pytest.fixture
def ledger_redis(cluster: Cluster) -> Iterator[Any]:
    """A client of the cluster's Redis."""
    password = secret(cluster.kubectl, "promo-secrets", "redis_password")
    with cluster.kubectl.forwarded("pod/promo-redis-0", 6379) as port, redis.Redis(port=port, password=password) as client:
        yield client


@pytest.fixture(scope="session")
def measured() -> Iterator[dict[str, Any]]:
    """What tests measured, by name: kept in build/cluster/measured.json for docs/cluster.md."""
    found: dict[str, Any] = {}
    yield found
    path = Path("build/cluster/measured.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2, sort_keys=True))
