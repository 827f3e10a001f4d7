"""A candidate brought to the shoppers of a service that runs: real graph, real registry, real log; and everything that may stop it."""

import os
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from components.promote import Promotion, promotion
from pipelines.build_images import image_name
from pipelines.docker_runner import need_images
from promolift.contracts.artifacts import read_manifest
from promolift.contracts.tables import DECISIONS
from promolift.delta_rows import read_rows
from promolift.errors import ConflictError, InputError, UnavailableError
from promolift.policy.exploration import rollout_bucket
from promolift.promotion.approval import Person
from promolift.promotion.graph_change import window_in, window_of
from promolift.promotion.trail import standings
from serving.kserve.log_delta import read_decisions
from serving.review.__main__ import review_of
from tests.serving.candidates import add_candidate, fast_limits, report
from tests.serving.conftest import HEAVY
from tests.serving.test_serve import DECIDE, client_of, serving

pytestmark = [
    *HEAVY,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
BEA = Person("bea", frozenset({"reviewer"}))


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Path:
    """A run of its own with a champion in the registry; the model is a folder, since a promotion exchanges it."""
    folder = Path(shutil.copytree(run_folder, tmp_path / "run"))
    add_candidate(folder, "linear")
    return folder


@contextmanager
def traffic(served: dict[str, Any]) -> Iterator[Counter[str]]:
    """Shoppers who ask until the block ends; counts of the models that they met, and of failures."""
    met: Counter[str] = Counter()
    stop = threading.Event()

    def ask() -> None:
        with client_of(served) as client:
            while not stop.is_set():
                body = {"request_id": uuid.uuid4().hex, "shopper_id": uuid.uuid4().hex, "moment": "2017-12-01T10:00:00Z"}
                answer = client.post(DECIDE, json=body | {"deadline_ms": 5_000})
                failed = answer.status_code != 200 or "graph_unavailable" in answer.json()["degraded"]
                met["failed" if failed else answer.json()["versions"].get("predictor", "none").split("-")[0]] += 1

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield met
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def approved(run: Path, version: str, up_to: Any = "champion") -> None:
    review = review_of(run)
    review.approve(BEA, version, "read the evidence", up_to, review.evidence(version))


def of(run: Path, version: str, tmp_path: Path, canary: int = 30, patience: float = 60.0) -> Promotion:
    return promotion(str(run), "", "promolift-uplift", version, guardrails=str(fast_limits(tmp_path, canary)), patience_s=patience)


def stages(run: Path) -> dict[str, str]:
    return {version: one.stage for version, one in standings(review_of(run).trail.entries()).items()}


def by_pipeline(run: Path, version: str, tmp_path: Path, *options: str) -> None:
    """As users run it: every stage a task of KFP, the next one under a condition on the one before."""
    limits = str(fast_limits(tmp_path))
    command = ["promotion", "--run", str(run), "--version", version, "--guardrails", limits, "--patience", "60", *options]
    done = subprocess.run([sys.executable, "-m", "pipelines.run", *command], capture_output=True, text=True, check=False)
    assert (done.returncode, f"version {version} is champion: every probe met it" in done.stdout) == (0, True), done.stdout + done.stderr


def taken_back(run: Path, move: Promotion) -> None:
    """A champion that a reviewer orders back leaves its place to its predecessor; no pipeline is built for that."""
    review_of(run).roll_back(BEA, move.version, "earns less")
    command = [sys.executable, "-m", "pipelines.run", "promotion", "--run", str(run), "--version", move.version]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"version {move.version} is rolled back: earns less\n"), done.stdout + done.stderr
    assert stages(run) == {"1": "champion", move.version: "rolled_back"}
    assert (read_manifest(run / "serving_model").name, move.registry.champion()) == ("linear", "1")
    assert "every probe met it" in move.target.probe(None, move.target.champion().version, "")


@pytest.mark.parametrize("options", [pytest.param((), marks=pytest.mark.whole), ("--fused",)])
def test_an_approved_candidate_becomes_champion_and_no_shopper_notices(run: Path, tmp_path: Path, options: tuple[str, ...]):
    version = add_candidate(run, "second", seed=2)
    approved(run, version)
    with serving(run, *options) as served, traffic(served) as met:
        move = of(run, version, tmp_path)
        while met["linear"] < 20:
            time.sleep(0.1)
        assert "serviceName: promo-predictor-candidate" not in move.plan()  # the shadow changes nothing
        if options:
            assert all(move.advance(stage) for stage in ("shadow", "canary_10", "canary_50", "champion"))
        else:
            by_pipeline(run, version, tmp_path)
        assert (met["failed"], met["second"] > 0) == (0, True)
        assert move.advance("shadow") is True  # further already
        if options:
            taken_back(run, move)
            return
    assert stages(run) == {"1": "retired", version: "champion"}
    assert read_manifest(run / "serving_model").name == "second"
    assert window_in(move.target.graph()) is None
    assert (move.registry.champion(), report(run, "shadow", version)["agreement"]) == (version, 1.0)
    logged = [e for e in read_decisions(run / "lake") if e.scores and not e.request.shopper_id.startswith("probe:")]
    assert {e.scores.model_version.split("-")[0] for e in logged if e.scores} == {"linear", "second"}


@pytest.mark.whole
def test_the_image_promotes_what_this_machine_serves(run: Path, tmp_path: Path):
    try:
        need_images(f"image: {image_name('promote')}\n")
    except UnavailableError as problem:
        pytest.skip(str(problem))
    version = add_candidate(run, "second", seed=2)
    approved(run, version)
    with serving(run) as served, traffic(served) as met:
        while met["linear"] < 20:
            time.sleep(0.1)
        by_pipeline(run, version, tmp_path, "--on", "docker")
        assert (met["failed"], met["second"] > 0) == (0, True)
    assert stages(run) == {"1": "retired", version: "champion"}
    assert {path.stat().st_uid for path in (run / "rollout").rglob("*")} == {os.getuid()}


def test_a_broken_guardrail_rolls_back_within_one_look_and_says_why(run: Path, tmp_path: Path):
    """Nobody knows these shoppers, so models fall back to priors; the candidate's has another favourite."""
    prior = {"*": {"meat_20": (2.0, 1.0, 7.0), "deli_10": (900.0, 800.0, 7.0), "bakery_5": (2.0, 1.0, 7.0)}}
    version = add_candidate(run, "greedy", prior=prior)
    approved(run, version)
    with serving(run) as served, traffic(served) as met:
        move = of(run, version, tmp_path, canary=400)
        while met["linear"] < 20:
            time.sleep(0.1)
        assert move.advance("shadow") and report(run, "shadow", version)["mix_shift"]["deli_10"] > 0.2
        # What the shadow foretold would excuse the canary; a reviewer who overlooked it is what guardrails are for.
        (run / "rollout" / f"shadow-{version}.json").unlink()
        assert move.advance("canary_10") is False
        assert met["failed"] == 0
    now = standings(review_of(run).trail.entries())[version]
    assert (now.stage, now.last.actor) == ("rolled_back", "guardrails")
    assert now.last.reason.split(":")[0] in {"mix", "no_promo", "spend"}
    assert window_in(move.target.graph()) is None and stages(run)["1"] == "champion"


def test_orders_of_reviewers_are_obeyed_at_the_next_look(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    version = add_candidate(run, "second", seed=2)
    review = review_of(run)
    approved(run, version, "canary_10")
    with serving(run) as served, traffic(served) as met:
        move = of(run, version, tmp_path)
        while met["linear"] < 20:
            time.sleep(0.1)
        assert move.advance("shadow")
        review.pause(BEA, version, "wait")
        assert move.advance("canary_10") is False and stages(run)[version] == "shadow"
        review.resume(BEA, version, "go on")
        killed_in_the_middle(of(run, version, tmp_path), of(run, version, tmp_path), monkeypatch)
        assert move.advance("canary_10") is True
        watched_by_its_own_answers(run, move)
        assert move.advance("canary_50") is False and stages(run)[version] == "canary_10"  # approved no further
        review.roll_back(BEA, version, "a complaint")
        began = time.monotonic()
        assert move.advance("canary_50") is False
        assert time.monotonic() - began < 10
    assert (stages(run)[version], review.standing(version).last.actor) == ("rolled_back", "bea")


def killed_in_the_middle(dying: Promotion, next_run: Promotion, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trail has the move, the graph has not: the next run brings the graph to where the trail is."""
    monkeypatch.setattr(dying.target, "put", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        dying.advance("canary_10")
    assert (dying.standing().stage, window_in(dying.target.graph())) == ("canary_10", None)
    next_run.settle()
    assert window_in(next_run.target.graph()) == window_of(dying.standing().model, "canary_10")


def watched_by_its_own_answers(run: Path, move: Promotion) -> None:
    """What the graph before answered to the canary's shoppers is not counted, however long the exchange took."""
    moved, served = (entry for entry in move.trail.history(move.version) if entry.stage_to == "canary_10")
    assert (moved.action, served.action, "met second" in served.reason) == ("move", "serve", True)
    window = window_of(move.standing().model, "canary_10")
    assert window is not None
    rows = read_rows(f"{run}/lake/{DECISIONS.path}", ("entry_id", "shopper_id", "model_version"), "WHERE shopper_id NOT LIKE 'probe:%'")
    inside = [
        (datetime.fromtimestamp(int(row["entry_id"].partition("-")[0]) / 1000, UTC), row["model_version"].split("-")[0])
        for row in rows if rollout_bucket(row["shopper_id"], move.target.salt) in window
    ]  # fmt: skip
    before, since = ([model for at, model in inside if (at >= served.at) is later and at >= moved.at] for later in (False, True))
    assert ("linear" in before, "linear" in since, "second" in since) == (True, False, True)
    assert 30 <= report(run, "guardrails", move.version)["canary"] <= len(since)


def test_what_may_not_move_leaves_everything_as_it_was(run: Path, tmp_path: Path):
    version = add_candidate(run, "second", seed=2)
    fast = str(fast_limits(tmp_path))
    with pytest.raises(UnavailableError, match="serve the run first"):
        promotion(str(run), "", "promolift-uplift", version, guardrails=fast).plan()
    with serving(run):
        move = of(run, version, tmp_path)
        with pytest.raises(ConflictError, match="is not approved"):
            move.advance("shadow")
        approved(run, version)
        with pytest.raises(InputError, match="unknown to the trail"):
            of(run, "9", tmp_path).advance("shadow")
        graph = run / "rollout" / "graph.yaml"
        assert of(run, version, tmp_path, patience=1).advance("shadow") is False  # nobody asks, so it sees nothing
        (foreign := move.registry.model(version) / "reference.json").write_text("{}")
        with pytest.raises(InputError, match=r"reference\.json' is no reference"):
            move.advance("canary_10")
        foreign.unlink()
        kept = graph.read_text()
        graph.write_text(kept.replace("promo-constraints", "promo-other"))
        with pytest.raises(ConflictError, match="The graph was edited by hand"):
            of(run, version, tmp_path).advance("canary_10")
        graph.write_text(kept)
        (next((run / "mlruns").rglob("evidence/verdict.json"))).write_text("{}")
        for path in (run / "mlruns").rglob("evidence/verdict.json"):
            path.write_text("{}")
        with pytest.raises(InputError, match=r"Evidence 'verdict\.json'"):
            of(run, version, tmp_path).advance("canary_10")
    assert stages(run) == {"1": "champion", version: "shadow"}
    with pytest.raises(UnavailableError, match="registry at 'sqlite:///"):
        promotion(str(run), "sqlite:////proc/nowhere/mlflow.db", "promolift-uplift", version, guardrails=fast)
