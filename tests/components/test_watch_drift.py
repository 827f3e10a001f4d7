"""The decision to train again, from a real trail, a real table of examples and a detector's answers over HTTP."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from components.watch_drift import decide, link
from promolift.contracts.artifacts import ModelManifest, Verdict, write_json
from promolift.contracts.tables import EVERYBODY, EXAMPLES, LIFT
from promolift.drift.retraining import Retrainings
from promolift.errors import InputError, UnavailableError
from promolift.promotion.dossier import seal
from promolift.promotion.trail import Entry
from promolift.promotion.trail_table import TrailTable
from tests.serving.conftest import listening

MODEL = "net-000000000000"
FINDING = {"column": "spend", "kind": "feature", "most": "higher", "impact": {"changed": 0.5, "cents": 9.0}}


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A run whose trail has a champion, trained up to 2026-01-20, and whose labels are closed up to 2026-02-01."""
    lake = tmp_path / "served" / "lake"
    now = datetime(2026, 1, 1, tzinfo=UTC)
    TrailTable(lake).append(Entry(0, "1", MODEL, "register", "champion", "champion", "a", now, "the first", "hash", "1"))
    write_deltalake(
        str(lake / EXAMPLES.path), pa.table({"window_end": pa.array([datetime(2026, 2, 1, tzinfo=UTC)], pa.timestamp("us", "UTC"))})
    )
    write_json(tmp_path / "served/models/net/reference.json", {"version": MODEL, "period": ["2025-01-01", "2026-01-20"]})
    return tmp_path / "served"


@pytest.fixture
def detector() -> Iterator[str]:
    """Two looks in a row at the champion, in which the same column alarms."""
    looks = [{"day": f"2026-02-0{day}", "status": "drift", "findings": [FINDING]} for day in (1, 2)]
    answers = {f"/v1/versions/{MODEL}/looks": {"looks": looks}}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        known = scope["path"] in answers
        await send({"type": "http.response.start", "status": 200 if known else 404, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(answers.get(scope["path"], {})).encode()})

    with listening(application) as url:
        yield url


def test_an_alarm_begins_one_training_which_goes_on_where_it_died_and_is_linked(served: Path, detector: str, tmp_path: Path):
    root, at = str(tmp_path / "again"), "2026-02-03T00:00:00Z"
    first = decide(str(served), detector, "", root, at)
    assert first["due"] and first["cause"]["id"] == f"alarm:{MODEL}:2026-02-01"
    assert decide(str(served), detector, "", root, at) == first  # the training died: the same command goes on
    other = decide(str(served), detector, "", str(tmp_path / "other"), at)
    assert not other["due"] and "a training was begun for it already" in other["reason"]
    folder = tmp_path / "again"
    write_json(folder / "models" / "lightgbm" / "manifest.json", ModelManifest(
        "lightgbm", "1" * 64, "", (), (), {}, (), "profit", {}, {}, 1, "2026-02-03T00:00:00+00:00",
    ))  # fmt: skip
    write_json(folder / "evaluation" / "verdict.json", Verdict("lightgbm", True, (), ()))
    write_json(folder / "dossier" / "model.json", {"name": "lightgbm"})
    evidence = seal(folder / "dossier")
    assert link(str(served), first["cause"], root, str(folder), registered=True) == {
        "cause": first["cause"]["id"], "candidate": "lightgbm-111111111111", "dossier": evidence,
    }  # fmt: skip
    assert [row["status"] for row in Retrainings(served / "lake").rows()] == ["begun", "registered"]
    assert not decide(str(served), detector, "", root, at)["due"]


def test_without_a_detector_only_age_and_labels_count(served: Path):
    assert not decide(str(served), "", "", "r", "2026-04-01T00:00:00Z")["due"]
    assert decide(str(served), "", "", "r", "2026-04-20T00:00:00Z")["cause"]["id"] == f"schedule:{MODEL}:1"  # 90 days after 2026-01-20
    later = pa.array([datetime(2026, 3, 21, tzinfo=UTC)], pa.timestamp("us", "UTC"))
    write_deltalake(str(served / "lake" / EXAMPLES.path), pa.table({"window_end": later}), mode="append")
    assert decide(str(served), "", "", "s", "2026-05-10T00:00:00Z")["cause"]["id"] == f"labels:{MODEL}:1"


def test_a_policy_or_a_promo_that_brings_less_than_half_of_what_was_predicted_or_costs_twice_that_is_trained_again(served: Path):
    def measured(arm: str, metric: str, effect: float, error: float = 0.0, contrast: str = "model") -> dict[str, Any]:
        row: dict[str, Any] = {c.name: {"float64": 0.0, "int64": 0}.get(c.dtype, "") for c in LIFT.columns}
        bucket = "policy" if contrast == "model" else MODEL if contrast == "model_arm" else "other-1"
        about = {"experiment": "decisions", "contrast": contrast, "bucket": bucket, "arm": arm, "segment": EVERYBODY, "method": "cuped"}
        return row | about | {"metric": metric, "effect": effect, "error": error}

    def bring(*rows: dict[str, Any]) -> Any:
        write_deltalake(str(served / "lake" / LIFT.path), pa.Table.from_pylist(list(rows)), mode="overwrite")
        return decide(str(served), "", "", "r", "2026-02-03T00:00:00Z")

    policy = (measured(MODEL, "profit_cents", 9.0, 1.0), measured(MODEL, "predicted_profit_cents", 20.0))
    assert not bring(measured("other-1", "profit_cents", 1.0), measured("other-1", "predicted_profit_cents", 20.0))["due"]
    assert not bring(*policy)["due"]
    cost = (
        measured("deli_10", "cost_cents", 9.0, 0.5, "model_arm"),
        measured("deli_10", "predicted_cost_cents", 4.5, contrast="model_arm"),
    )
    assert not bring(*policy, *cost)["due"]
    earlier = (
        measured("deli_10", "profit_cents", 5.0, 1.0, "other"),
        measured("deli_10", "predicted_profit_cents", 20.0, contrast="other"),
    )
    assert not bring(*policy, *earlier)["due"]  # that was another model
    kind = "model_arm"
    promo = (measured("deli_10", "profit_cents", 5.0, 1.0, kind), measured("deli_10", "predicted_profit_cents", 20.0, contrast=kind))
    found = bring(*policy, *promo)
    assert found["cause"]["id"] == f"outcomes:{MODEL}"  # with two comparisons, 2.24 standard errors
    assert found["reason"] == "a decision with deli_10 brought 7.2 cents at most where 20.0 were predicted"


def test_what_cannot_be_decided_is_said_and_nothing_begins(served: Path, tmp_path: Path):
    with pytest.raises(UnavailableError, match=r"does not answer at http://127.0.0.1:9/"):
        decide(str(served), "http://127.0.0.1:9", "", "r")
    with pytest.raises(InputError, match="--at is 'soon'"):
        decide(str(served), "", "", "r", "soon")
    with pytest.raises(InputError, match="No version is champion"):
        decide(str(tmp_path / "nothing"), "", "", "r")
    assert not Retrainings(served / "lake").rows() and not (tmp_path / "nothing").exists()
