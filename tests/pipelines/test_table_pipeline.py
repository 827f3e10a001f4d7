"""Somebody's own experiment through the whole training pipeline: a good effect is found, and what was estimated is said first."""

import html
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipelines.trial import ROWS, trial

ROOT = Path(__file__).parents[2]


def run(path: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.run", "training", "--source", "table", "--path", str(path), "--out", str(out)]
    return subprocess.run(
        [*command, "--epochs", "4", "--learners", "x_learner", "--search-trials", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.whole
def test_somebodys_own_experiment_is_trained_judged_and_registered(tmp_path: Path):
    done = run(trial(tmp_path), tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    kinds = {"age": "number", "income": "amount", "income_is_missing": "number", "city": "text"}
    assert (summary["sources"]["covariates"], summary["sources"]["estimated_propensities"]) == (kinds, True)
    assert summary["tables"]["gold/examples"]["rows"] == ROWS and summary["tables"]["silver/trials"]["quarantined"] == 0
    assert summary["gate"]["verdict"] == "promoted", summary["gate"]["reasons"]
    assert summary["gate"]["metrics"][summary["gate"]["chosen"]]["rate/qini"]["interval"][0] > 0
    assert set(summary["training"]) == {"uplift_net", "lightgbm", "response", "x_learner"} == set(summary["gate"]["metrics"])
    assert "earns most" in summary["gate"]["who_wins"] and summary["gate"]["who_wins"] in done_report(tmp_path)
    studies = sorted(path.name for path in (tmp_path / "run" / "search").glob("*.json"))
    assert studies == ["lightgbm.json", "uplift_net.json", "x_learner.json"]
    metrics = json.loads((tmp_path / "run" / "evaluation" / "metrics.json").read_text())
    assert metrics["propensities"] == "estimated: the arm shares of the file"
    assert {s["segment"] for s in metrics["segments"]} == {"city Bern", "city Genf"}
    report = done_report(tmp_path)
    assert report.index("Propensities were not logged") < report.index("The policy maximises") < report.index("income (amount)")


def done_report(folder: Path) -> str:
    return html.unescape((folder / "run" / "report.html").read_text())


def test_a_mistake_in_the_yaml_file_ends_the_run_before_anything_is_made(tmp_path: Path):
    path = trial(tmp_path)
    path.write_text(path.read_text().replace("trial.parquet", "gone.parquet"))
    done = run(path, tmp_path / "run")
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert done.stderr.strip().splitlines()[-1].startswith(f"There is no file or folder '{tmp_path / 'gone.parquet'}'")
