"""Which model a finished run serves: its own candidate as champion, else the champion that reigns."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.register_model import register
from pipelines.finish import finish
from promolift.contracts.artifacts import Check, ModelManifest, Verdict, write_json
from promolift.contracts.promos import Promo, SourceCard

CARD = SourceCard("tiny", "all", "", "profit", "converted", 1.0, "2020-01-01T00:00:00Z", (Promo("a", "deli", 0.2, 100),), False)
NAME = "promolift-uplift"


def finished(run: Path, content: str, *, promoted: bool = True) -> dict[str, Any]:
    """A run whose candidate `content` was judged; its summary, as far as the report needs it, after registration if promoted."""
    folder = run / "models" / "lightgbm"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_text(content)
    knots = {"a": ((0.0, 1.0),)}
    manifest = ModelManifest("lightgbm", content * 8, "hash", ("x",), (), {}, CARD.promos, "profit", knots, {}, 1, "now")
    write_json(folder / "manifest.json", manifest)
    verdict = Verdict("lightgbm", promoted, (Check("qini", "passed", 1.0, 0.0, "Above 0."),), () if promoted else ("Too little.",))
    write_json(run / "evaluation" / "verdict.json", verdict)
    write_json(run / "evaluation" / "metrics.json", {})
    write_json(run / "lake" / "landing" / "source.json", CARD)
    uri = f"sqlite:///{run}/mlflow.db"
    made = register(str(run / "models"), str(run / "evaluation"), str(run / "lake"), uri, NAME) if promoted else None
    gate = {"chosen": "lightgbm", "verdict": "promoted" if promoted else "refused", "reasons": list(verdict.reasons), "checks": []}
    card = {"name": "tiny", "real": "all", "simulated": "", "objective": "profit", "as_of": CARD.as_of}
    summary = {
        "sources": {**card, "estimated_propensities": False, "covariates": {}}, "tables": {}, "commit": "unknown",
        "expectations": {}, "online": None, "training": {}, "gate": gate, "truth": None, "registry": made,
        "seconds": {"evaluate-uplift": 1.0, "total": 1.0}, "peak_gib": {"evaluate-uplift": 0.5}, "reused": [],
    }  # fmt: skip
    write_json(run / "summary.json", summary)
    finish(run, summary, uri)
    return summary


def served(run: Path) -> str:
    assert json.loads((run / "serving_model" / "manifest.json").read_text())["name"] == "lightgbm"
    return (run / "serving_model" / "model.tflite").read_text()


def test_the_first_promoted_model_is_served_and_a_later_challenger_does_not_replace_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first = finished(tmp_path, "first")
    assert first["registry"]["aliases"] == ["challenger", "champion"]
    assert served(tmp_path) == "first"
    (tmp_path / "serving_model" / "stale").write_text("")

    second = finished(tmp_path, "second")
    assert second["registry"]["aliases"] == ["challenger"]
    assert served(tmp_path) == "first"
    assert not (tmp_path / "serving_model" / "stale").exists()
    assert "lightgbm is promoted, version 2 of promolift-uplift" in capsys.readouterr().out


def test_a_new_version_carries_its_report(tmp_path: Path):
    from mlflow import MlflowClient

    made = finished(tmp_path, "first")["registry"]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    found = {file.path for file in client.list_artifacts(client.get_model_version(NAME, made["version"]).run_id)}
    assert {"report.html", "summary.json", "model", "evaluation"} <= found


def test_a_refused_model_is_not_served_and_the_reason_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    finished(tmp_path, "first", promoted=False)
    assert not (tmp_path / "serving_model").exists()
    said = capsys.readouterr().out
    assert "lightgbm is refused\n  Too little.\n" in said
    report = (tmp_path / "report.html").read_text()
    assert "Nothing was registered" in report and "0.50 GiB" in report
