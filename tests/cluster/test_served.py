"""Decisions through KServe's own router: the same as on one machine, and none lost while pods come and go."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from pydantic import SecretStr

from deployment.local import OUT
from deployment.render import MANIFESTS
from promolift.contracts.decisions import NODES, Envelope, dump, read_bytes, read_request
from promolift.kubectl import NAMESPACE, Kubectl
from promolift.redis_server import redis_server
from promolift.settings import Settings
from serving.kserve.boxes import Sources
from serving.kserve.fused import fused
from tests.cluster.conftest import Cluster, whole
from tests.cluster.inside import call, during, load

pytestmark = [
    pytest.mark.cluster,
    *(pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning",
                                                                 "UserWarning", "RuntimeWarning")),  # Feast, see tests/serving
]  # fmt: skip
COUNT = 1_000
SECONDS, RATE = 20, 20
ROLLED_S = 75
"""The new pod begins, and the old one, which the router's connections still lead to, ends 40 s after it was told to."""
MOST_FAILED = 0.01
"""Neither kube-proxy nor KServe's router tries a request again that met a Service between two sets of endpoints: one in 600 was seen."""


def ready(document: Any) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in document["status"]["conditions"])


def test_boxes_and_graph_are_ready_and_served_by_kserves_router(cluster: Cluster):
    assert {d["metadata"]["name"] for d in cluster.get("inferenceservice")["items"] if ready(d)} == {
        f"promo-{name}" for name in (*NODES, "detector")
    }
    assert ready(cluster.get("inferencegraph", "promo-decision"))
    (router,) = cluster.get("deployment", "promo-decision")["spec"]["template"]["spec"]["containers"]
    assert "kserve/router:" in router["image"]
    asked = {step["name"]: step["serviceUrl"] for step in json.loads(router["args"][1])["nodes"]["root"]["steps"]}
    assert all(url.endswith(f"/v1/models/{name}:predict") for name, url in asked.items())


def settings_of(cluster: Cluster) -> Settings:
    """The deployment's own settings and secrets."""
    keys = json.loads(cluster.kubectl.secret("promo-secrets", "token_keys"))
    return Settings(
        _env_file=MANIFESTS / "base/settings.env",
        hash_salt=cluster.kubectl.secret("promo-secrets", "hash_salt"),
        token_keys={name: SecretStr(value) for name, value in keys.items()},
    )


def copied(theirs: Any, ours: Any) -> None:
    """Features, budgets, reservations and caps of one Redis into an empty one, with what is left of their lives."""
    keys = list(theirs.scan_iter(count=1_000))
    with theirs.pipeline(transaction=False) as reading, ours.pipeline(transaction=False) as writing:
        for key in keys:
            reading.dump(key).pttl(key)
        answers = reading.execute()
        for key, value, left_ms in zip(keys, answers[::2], answers[1::2], strict=True):
            if value is not None:
                writing.restore(key, max(0, left_ms), value)
        writing.execute()


def test_a_thousand_decisions_are_those_of_one_process(cluster: Cluster, ledger_redis: Any, tmp_path: Path, measured: dict[str, Any]):
    whole(cluster)
    run, asked = cluster.deployed.run, [{**body, "deadline_ms": 5_000} for body in cluster.bodies(COUNT)]
    with redis_server(tmp_path / "redis") as url, redis.Redis.from_url(url) as ours, httpx.Client(timeout=10) as client:
        copied(ledger_redis, ours)
        answers = [client.post(cluster.doors.graph, json=body) for body in asked]
        assert {answer.status_code for answer in answers} == {200}
        sources = Sources(url, run / "serving_model", OUT / "registry.db", Path("serving/rules.yaml"), tmp_path / "spill")
        together = fused(sources, settings_of(cluster))
        expected = [together(read_request(body)) for body in asked]
    pairs = [(read_bytes(Envelope, answer.content), envelope) for answer, envelope in zip(answers, expected, strict=True)]
    unequal = [pair for pair in pairs if compared(pair[0]) != compared(pair[1])]
    measured["parity"] = {"asked": COUNT, "unequal": len(unequal)}
    assert unequal == [], [compared(envelope) for envelope in unequal[0]]


def compared(envelope: Envelope) -> dict[str, Any]:
    """Every field but times, and the token, which holds one."""
    assert envelope.decision is not None
    decision = replace(envelope.decision, expires_at=None)
    return dump(replace(envelope, decision=decision, timings_ms={}, received_at=None, token=None))


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

    def kill() -> None:
        kubectl("-n", NAMESPACE, "delete", "pod", "-l", selector, "--grace-period=0", "--force", "--wait=false")

    return kill


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

    found = during(ask, killed(cluster.kubectl, selector), 5.0)
    measured[f"kill {box}"] = found
    failed = sum(count for status, count in found["statuses"].items() if status != "200")
    assert found["count"] >= SECONDS * RATE * 0.9
    if box != "engine":  # one engine pod in the local overlay: killing it is an outage of a second or two, which is measured and told
        assert failed <= MOST_FAILED * found["count"], found


def test_a_rolling_update_of_the_predictor_fails_next_to_no_request(cluster: Cluster, measured: dict[str, Any]):
    def update() -> None:
        patch = [{"op": "add", "path": "/spec/predictor/containers/0/env/-", "value": {"name": "ROLLED", "value": "1"}}]
        cluster.kubectl("-n", NAMESPACE, "patch", "inferenceservice", "promo-predictor", "--type=json", "-p", json.dumps(patch))

    def ask() -> dict[str, Any]:
        bodies = [{**body, "deadline_ms": 5_000} for body in cluster.bodies(50)]
        return load(cluster.kubectl, "roll", f"http://promo-decision.{NAMESPACE}", bodies, ROLLED_S, RATE)

    before = cluster.get("deployment", "promo-predictor-predictor")["status"]["observedGeneration"]
    found = during(ask, update, 5.0)
    patch = [{"op": "remove", "path": "/spec/predictor/containers/0/env/2"}]
    cluster.kubectl("-n", NAMESPACE, "patch", "inferenceservice", "promo-predictor", "--type=json", "-p", json.dumps(patch))
    assert cluster.get("deployment", "promo-predictor-predictor")["status"]["observedGeneration"] > before
    measured["roll predictor, straight at the graph"] = found
    assert found["statuses"]["200"] >= (1 - MOST_FAILED) * found["count"], found
