"""A candidate in the real InferenceGraph: approved, its share measured through KServe's router, broken on purpose, taken back."""

import json
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.promote import Promotion, promotion
from deployment.local import OUT, Plan, deploy
from promolift.contracts.artifacts import read_manifest
from promolift.contracts.tables import DECISIONS
from promolift.delta_rows import read_rows
from promolift.errors import ConflictError
from promolift.kubectl import NAMESPACE
from promolift.policy.exploration import rollout_bucket
from promolift.promotion.approval import Person
from promolift.promotion.graph_change import SERVICE, window_in, window_of
from serving.review.__main__ import review_of
from tests.cluster.conftest import Cluster
from tests.serving.candidates import add_candidate, fast_limits

pytestmark = [
    pytest.mark.cluster,
    *(pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning", "ResourceWarning", "UserWarning")),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]
BEA = Person("bea", frozenset({"reviewer"}))
ASKED, CALLERS, PAUSE_S = 1_000, 4, 0.1
SLOW_MS = 200
HARMED = """
import dataclasses, sys, time
from serving.kserve import predictor
real = predictor.Predictor.__call__
def harmed(self, envelope):
    answer = real(self, envelope)
    {harm}
    return answer
predictor.Predictor.__call__ = harmed
from serving.kserve.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
HARMS = {
    "slow": "time.sleep(0.25)",
    "always promotes": (
        "answer = dataclasses.replace(answer, scores=dataclasses.replace(answer.scores, value=(1e6,) * len(answer.scores.value), "
        "lower=(1e6,) * len(answer.scores.lower))) if answer.scores else answer"
    ),
}


@pytest.fixture(scope="module")
def run(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deployed run with a registry and a trail of its own, where the model in service is champion."""
    folder = tmp_path_factory.mktemp("canary") / "run"
    for name in ("serving_model", "evaluation"):
        shutil.copytree(cluster.deployed.run / name, folder / name)
    (folder / "lake/landing").mkdir(parents=True)
    shutil.copyfile(cluster.deployed.run / "lake/landing/source.json", folder / "lake/landing/source.json")
    add_candidate(folder, read_manifest(folder / "serving_model").name)
    return folder


@contextmanager
def traffic(cluster: Cluster) -> Iterator[Counter[str]]:
    """Shoppers, each of whom asks the engine once, until the block ends; counts of answers that lacked a part, and of those that did not.

    Nobody knows them, so that none has reached a cap: models fall back to priors.
    """
    met: Counter[str] = Counter()
    stop, (known,) = threading.Event(), cluster.bodies(1)

    def ask() -> None:
        with httpx.Client(base_url=cluster.doors.engine, headers={"X-API-Key": cluster.doors.api_key}, timeout=10) as client:
            while not stop.is_set():
                body = {**known, "request_id": uuid.uuid4().hex, "shopper_id": uuid.uuid4().hex, "deadline_ms": 5_000}
                answer = client.post("/v1/decisions", json=body)
                parts = set(answer.json().get("degraded", ())) if answer.status_code == 200 else {"graph_unavailable"}
                lacking = parts & {"graph_unavailable", "deadline", "model_error"}
                met["failed" if lacking else "answered"] += 1
                if lacking:
                    print(f"{datetime.now(UTC):%H:%M:%S.%f} {answer.status_code} {lacking}")
                time.sleep(PAUSE_S)

    with ThreadPoolExecutor(CALLERS) as pool:
        asking = [pool.submit(ask) for _ in range(CALLERS)]
        try:
            yield met
        finally:
            stop.set()
    for one in asking:
        one.result()


def candidate(run: Path, name: str, up_to: Any) -> tuple[str, datetime]:
    """An approved version, and when it was approved."""
    version, review = add_candidate(run, name, seed=2), review_of(run)
    review.approve(BEA, version, "read the evidence", up_to, review.evidence(version))
    return version, datetime.now(UTC)


def limits(folder: Path, canary: int) -> Path:
    path = fast_limits(folder, canary)
    path.write_text(path.read_text().replace("slow_ms: 5000", f"slow_ms: {SLOW_MS}").replace("no_promo: 0.3", "no_promo: 0.15"))
    return path


def of(cluster: Cluster, run: Path, version: str, folder: Path, canary: int = 2_000) -> Promotion:
    about = {"guardrails": str(limits(folder, canary)), "patience_s": 240.0, "context": cluster.kubectl.context}
    return promotion(str(run), "", "promolift-uplift", version, **about)  # type: ignore[arg-type]


def decided_by(move: Promotion, model: str) -> list[datetime]:
    """When the model's decisions were logged, by the ledger's clock."""
    rows = read_rows(
        f"{move.target.lake}/{DECISIONS.path}", ("entry_id",), f"WHERE model_version = '{model}' AND shopper_id NOT LIKE 'probe:%'"
    )
    return sorted(datetime.fromtimestamp(int(row["entry_id"].partition("-")[0]) / 1000, UTC) for row in rows)


def harm(cluster: Cluster, how: str) -> Callable[[], None]:
    """A function that makes the candidate's predictor ill: the same image and model, and a fault of ours around its answer."""

    def patch() -> None:
        command = ["python", "-c", HARMED.format(harm=HARMS[how])]
        change = [{"op": "replace", "path": "/spec/predictor/containers/0/command", "value": command}]
        cluster.kubectl("-n", NAMESPACE, "patch", "inferenceservice", SERVICE, "--type=json", "-p", json.dumps(change))

    return patch


def rolled_back(cluster: Cluster, move: Promotion, how: str) -> dict[str, Any]:
    """Make the canary ill and watch it go: what broke, and how long shoppers still met it."""
    harm(cluster, how)()
    assert move.advance("canary_10") is False
    now = move.standing()
    assert (now.stage, now.last.actor) == ("rolled_back", "guardrails"), now.last.reason
    return {"reason": now.last.reason, "rollback_s": met_after(move, now.last.at)}


def met_after(move: Promotion, at: datetime) -> float:
    """Seconds for which shoppers met the version after a moment."""
    time.sleep(10)  # the relay writes what was decided until now
    return round((decided_by(move, move.standing().model)[-1] - at).total_seconds(), 1)


def test_an_approved_candidate_serves_its_share_and_a_slow_one_is_taken_back(
    cluster: Cluster, run: Path, tmp_path: Path, measured: dict[str, Any]
):
    with traffic(cluster) as met:
        version, approved = candidate(run, "second", "canary_10")
        command = ["promotion", "--run", str(run), "--version", version, "--guardrails", str(limits(tmp_path, 30)), "--patience", "240"]
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.run", *command, "--on", "cluster"], capture_output=True, text=True, check=False
        )
        move = of(cluster, run, version, tmp_path)
        now = move.standing()
        assert (done.returncode, now.stage) == (0, "canary_10"), done.stdout + done.stderr
        first = min(at for at in decided_by(move, now.model) if at > approved) - approved
        share = shares(cluster, move)
        with pytest.raises(ConflictError, match="A canary is in the graph"):
            deploy(cluster.kubectl, Plan(cluster.deployed.run, "", OUT))
        broken = rolled_back(cluster, move, "slow")
    measured["canary"] = {"approval_to_first_decision_s": round(first.total_seconds(), 1), **share, **broken, **met}
    assert "slow" in broken["reason"]
    assert met["failed"] == 0
    assert (broken["rollback_s"] <= 60, window_in(move.target.graph())) == (True, None)


def shares(cluster: Cluster, move: Promotion) -> dict[str, Any]:
    """Shoppers ask the router twice: each must meet the model that his bucket says, both times."""
    window = window_of(move.standing().model, "canary_10")
    assert window is not None
    shoppers = [f"probe:{uuid.uuid4().hex}" for _ in range(ASKED)]
    with (
        httpx.Client(timeout=10) as client,
        cluster.kubectl.forwarded("svc/promo-decision", 80) as port,
        ThreadPoolExecutor(CALLERS) as pool,
    ):

        def met(shopper: str) -> str:
            body = {"request_id": uuid.uuid4().hex, "shopper_id": shopper, "moment": "2017-12-01T10:00:00Z", "deadline_ms": 5_000}
            return str(client.post(f"http://127.0.0.1:{port}", json=body).json()["versions"]["predictor"])

        answers = [list(pool.map(met, shoppers)) for _ in range(2)]
    wanted = [rollout_bucket(shopper, move.target.salt) in window for shopper in shoppers]
    found = [[model == move.standing().model for model in part] for part in answers]
    assert found == [wanted, wanted]
    return {"asked_twice": ASKED, "share": sum(wanted) / ASKED, "sticky": 1.0}


def test_a_candidate_that_always_promotes_is_taken_back(cluster: Cluster, run: Path, tmp_path: Path, measured: dict[str, Any]):
    with traffic(cluster) as met:
        version, _ = candidate(run, "third", "champion")
        move = of(cluster, run, version, tmp_path)
        assert move.advance("shadow")
        threading.Thread(target=once_there(move, harm(cluster, "always promotes")), daemon=True).start()
        assert move.advance("canary_10") is False
    now = move.standing()
    measured["canary that always promotes"] = {"reason": now.last.reason, **met}
    assert (now.stage, now.last.actor, met["failed"]) == ("rolled_back", "guardrails", 0)
    assert now.last.reason.split(":")[0] in {"no_promo", "mix", "spend"}


def once_there(move: Promotion, act: Callable[[], None]) -> Callable[[], None]:
    """Act as soon as the trail has the version at 10 % and the graph its Switch."""

    def waiting() -> None:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and not (move.standing().stage == "canary_10" and window_in(move.target.graph())):
            time.sleep(1)
        time.sleep(5)  # the probes of the move see a sound candidate
        act()

    return waiting


def test_a_new_champion_is_served_by_every_box_and_can_be_ordered_back(
    cluster: Cluster, run: Path, tmp_path: Path, measured: dict[str, Any]
):
    standing = read_manifest(run / "serving_model").version
    with traffic(cluster) as met:
        version, _ = candidate(run, "fourth", "champion")
        move = of(cluster, run, version, tmp_path, canary=30)
        assert all(move.advance(stage) for stage in ("shadow", "canary_10", "canary_50", "champion"))
        assert move.target.champion().version == move.standing().model
        assert "every probe met it" in move.target.probe(None, move.standing().model, "")
        ordered = review_of(run).roll_back(BEA, version, "earns less").at
        assert move.advance("champion") is False
        assert "every probe met it" in move.target.probe(None, standing, "")
        back_s = met_after(move, ordered)
    measured["champion and back"] = {"rollback_s": back_s, **met}
    assert back_s <= 60
    assert (move.target.champion().version, move.registry.champion()) == (standing, "1")
    assert met["failed"] <= 0.01 * met.total(), met
