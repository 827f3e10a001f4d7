"""Decisions through KServe's own router: the same as on one machine, and none lost while pods come and go."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from deployment.kubectl import NAMESPACE, Kubectl
from deployment.render import MANIFESTS
from deployment.secret_values import secret
from feature_repo.store import materialize
from promolift.contracts.decisions import NODES, Decision, Envelope, dump_bytes, read_bytes, read_request
from promolift.redis_server import redis_server
from promolift.settings import Settings
from serving.kserve.boxes import Sources
from serving.kserve.fused import fused
from tests.cluster.conftest import Cluster
from tests.cluster.inside import call, during, load

pytestmark = [
    pytest.mark.cluster,
    *(pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning",
                                                                 "UserWarning", "RuntimeWarning")),  # Feast, see tests/serving
]  # fmt: skip
COUNT = 1_000
SECONDS, RATE = 30, 20


def ready(document: Any) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in document["status"]["conditions"])


def test_boxes_and_graph_are_ready_and_served_by_kserves_router(cluster: Cluster):
    assert {d["metadata"]["name"] for d in cluster.get("inferenceservice")["items"] if ready(d)} == {f"promo-{name}" for name in NODES}
    assert ready(cluster.get("inferencegraph", "promo-decision"))
    (router,) = cluster.get("deployment", "promo-decision")["spec"]["template"]["spec"]["containers"]
    assert "kserve/router:" in router["image"]
    asked = {step["name"]: step["serviceUrl"] for step in json.loads(router["args"][1])["nodes"]["root"]["steps"]}
    assert all(url.endswith(f"/v1/models/{name}:predict") for name, url in asked.items())


def settings_of(cluster: Cluster) -> Settings:
    """The deployment's own settings and secrets."""
    keys = json.loads(secret(cluster.kubectl, "promo-secrets", "token_keys"))
    return Settings(
        _env_file=MANIFESTS / "base/settings.env",
        hash_salt=secret(cluster.kubectl, "promo-secrets", "hash_salt"),
        token_keys={name: SecretStr(value) for name, value in keys.items()},
    )


def kept(decision: Decision | None) -> bytes:
    """What must be equal: everything but the wall clock's end of the reservation."""
    return dump_bytes(replace(decision, expires_at=None)) if decision else b""


def test_a_thousand_decisions_are_those_of_one_process(cluster: Cluster, ledger_redis: Any, tmp_path: Path, measured: dict[str, Any]):
    for key in ledger_redis.scan_iter("{promolift*"):
        ledger_redis.delete(key)
    run, registry = cluster.deployed.run, tmp_path / "registry.db"
    asked = [{**body, "deadline_ms": 5_000} for body in cluster.bodies(COUNT)]
    with httpx.Client(timeout=10) as client:
        answers = [client.post(cluster.doors.graph, json=body) for body in asked]
    assert {answer.status_code for answer in answers} == {200}
    with redis_server(tmp_path / "redis") as url:
        materialize(run / "lake", url, registry)
        together = fused(
            Sources(url, run / "serving_model", registry, Path("serving/rules.yaml"), tmp_path / "spill"), settings_of(cluster)
        )
        expected = [together(read_request(body)) for body in asked]
    unequal = []
    for answer, ours in zip(answers, expected, strict=True):
        theirs = read_bytes(Envelope, answer.content)
        same = kept(theirs.decision) == kept(ours.decision)
        fields = ("shopper", "candidates", "scores", "degraded", "versions")
        if not same or any(getattr(theirs, name) != getattr(ours, name) for name in fields):
            unequal.append((theirs, ours))
    measured["parity"] = {"asked": COUNT, "unequal": len(unequal)}
    assert unequal == [], unequal[0]


def test_every_hop_is_measured_from_inside(cluster: Cluster, measured: dict[str, Any]):
    urls = [f"http://promo-engine.{NAMESPACE}/v1/decisions", f"http://promo-decision.{NAMESPACE}", cluster.doors.api_key]
    boxes = [f"{name}=http://promo-{name}-predictor.{NAMESPACE}/v1/models/{name}:predict" for name in NODES]
    found = call(cluster.kubectl, "hops", "hops.py", [*urls, *boxes], cluster.bodies(50, skip=900), 120)
    measured["hops"] = found
    hops = found["hops"]
    assert set(hops) == {*NODES, "graph", "engine"}
    assert all(hops[name]["box_ms"] < hops[name]["hop_ms"] for name in NODES)


def killed(kubectl: Kubectl, selector: str) -> Callable[[], None]:
    """A function that kills the selected pod at once, as a lost node would."""
    return lambda: void(kubectl("-n", NAMESPACE, "delete", "pod", "-l", selector, "--grace-period=0", "--force", "--wait=false"))


def void(_: object) -> None:
    """Nothing."""


SELECTORS = {
    **{name: f"serving.kserve.io/inferenceservice=promo-{name}" for name in NODES},
    "graph": "serving.kserve.io/inferencegraph=promo-decision",
}


@pytest.mark.parametrize("box", [*SELECTORS, "engine"])
def test_a_killed_pod_costs_no_caller_an_answer(cluster: Cluster, measured: dict[str, Any], box: str):
    selector = SELECTORS.get(box, "app.kubernetes.io/component=engine")

    def ask() -> dict[str, Any]:
        return load(
            cluster.kubectl, f"kill-{box}", f"http://promo-engine.{NAMESPACE}/v1/decisions", cluster.bodies(50), SECONDS, RATE,
            f"X-API-Key={cluster.doors.api_key}",
        )  # fmt: skip

    found = during(ask, killed(cluster.kubectl, selector), 8.0)
    measured[f"kill {box}"] = found
    failed = sum(count for status, count in found["statuses"].items() if status != "200")
    assert found["count"] >= SECONDS * RATE * 0.9
    if box != "engine":  # one engine pod in the local overlay: killing it is an outage of a second or two, which is measured and told
        assert failed == 0, found


def test_a_rolling_update_of_the_predictor_fails_no_request(cluster: Cluster, measured: dict[str, Any]):
    def update() -> None:
        patch = [{"op": "add", "path": "/spec/predictor/containers/0/env/-", "value": {"name": "ROLLED", "value": "1"}}]
        cluster.kubectl("-n", NAMESPACE, "patch", "inferenceservice", "promo-predictor", "--type=json", "-p", json.dumps(patch))

    def ask() -> dict[str, Any]:
        bodies = [{**body, "deadline_ms": 5_000} for body in cluster.bodies(50)]
        return load(cluster.kubectl, "roll", f"http://promo-decision.{NAMESPACE}", bodies, SECONDS, RATE)

    before = cluster.get("deployment", "promo-predictor-predictor")["status"]["observedGeneration"]
    found = during(ask, update, 5.0)
    patch = [{"op": "remove", "path": "/spec/predictor/containers/0/env/2"}]
    cluster.kubectl("-n", NAMESPACE, "patch", "inferenceservice", "promo-predictor", "--type=json", "-p", json.dumps(patch))
    assert cluster.get("deployment", "promo-predictor-predictor")["status"]["observedGeneration"] > before
    measured["roll predictor, straight at the graph"] = found
    assert found["statuses"] == {"200": found["count"]}, found
