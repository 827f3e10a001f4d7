"""The whole training pipeline on a small e-mail experiment in Hillstrom's format: run, run again, and run on bad input."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable

from tests.contracts.folders import drawn

ROOT = Path(__file__).parents[2]
ROWS = 6000
TASKS = {
    "land-events", "ingest-events", "validate-silver", "build-examples", "validate-gold", "validate-training", "materialize-features",
    "train-uplift", "train-baselines", "fetch-champion", "evaluate-uplift", "fit-detector", "register-model",
}  # fmt: skip


def experiment(path: Path) -> Path:
    """Old buyers of men's goods are won by the men's e-mail, of women's goods by the other one; new ones are annoyed by both.

    Who spends much visits anyway, which leads the response model astray.
    """
    rng = np.random.default_rng(5)
    mens, segment, new, history = rng.integers(0, 2, ROWS), rng.integers(0, 3, ROWS), np.arange(ROWS) % 2, rng.uniform(30, 500, ROWS)
    won = ((segment == 1) & (mens == 1) | (segment == 2) & (mens == 0)) & (new == 0)
    visit = rng.random(ROWS) < 0.07 + 0.3 * (history > 300) + 0.4 * won - 0.05 * ((segment > 0) & (new == 1))
    bought = visit & (rng.random(ROWS) < 0.3)
    lines = ["recency,history_segment,history,mens,womens,zip_code,newbie,channel,segment,visit,conversion,spend"]
    names = ("No E-Mail", "Mens E-Mail", "Womens E-Mail")
    for i in range(ROWS):
        place, channel = ("Urban", "Rural")[i % 2], ("Web", "Phone")[i % 2]
        about = f"{1 + i % 12},x,{history[i]:.2f},{mens[i]},{1 - mens[i]},{place},{i % 2},{channel},{names[segment[i]]}"
        lines.append(f"{about},{int(visit[i])},{int(bought[i])},{20.5 if bought[i] else 0}")
    path.write_text("\n".join(lines) + "\n")
    return path


def run(out: Path, path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.run", "training", "--source", "hillstrom", "--path", str(path), "--out", str(out)]
    return subprocess.run([*command, "--epochs", "2", *more], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("training")
    data = experiment(folder / "experiment.csv")
    return folder / "run", data, run(folder / "run", data)


def summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def versions(out: Path) -> dict[str, int]:
    return {p.parent.name: DeltaTable(str(p.parent)).version() for p in (out / "lake").glob("*/*/_delta_log")}


@pytest.mark.whole
def test_a_run_ends_with_a_report_a_summary_and_a_model_to_serve(first: tuple[Path, Path, Any]):
    out, _, done = first
    assert done.returncode == 0, done.stdout + done.stderr
    found = summary(out)
    assert set(found["seconds"]) - {"total"} == TASKS
    assert set(found["peak_gib"]) >= TASKS - {"fetch-champion"} and 1 < found["peak_gib"]["ingest-events"] < 6
    assert {path.name for path in out.iterdir()} <= drawn("run folder")
    assert found["tables"]["gold/examples"]["rows"] == ROWS
    assert set(found["training"]) == {"uplift_net", "lightgbm", "response"}
    assert all(result["failed"] == 0 for result in found["expectations"].values())
    assert found["online"]["shoppers"] == ROWS
    assert found["truth"] is None
    assert f"{found['gate']['chosen']} is {found['gate']['verdict']}" in done.stdout
    report = (out / "report.html").read_text()
    assert report.index("Verdict") < report.index("rate/qini") < report.index("qini/raw-local") < report.index("What is real")
    assert "http" not in report.replace("docs/", "")
    assert found["gate"]["verdict"] == "promoted"
    assert all(reason.startswith("Power: ") for reason in found["gate"]["reasons"])
    assert (found["registry"]["version"], found["registry"]["aliases"]) == ("1", ["challenger", "champion"])
    served = [(out / place / "model.tflite").read_bytes() for place in ("serving_model", f"models/{found['gate']['chosen']}")]
    assert served[0] == served[1]
    assert (out / "registry.db").stat().st_size > 0
    assert (out / "redis" / "dump.rdb").stat().st_size > 0


@pytest.mark.whole
def test_a_second_run_reuses_what_is_unchanged_and_gives_the_same_verdict(first: tuple[Path, Path, Any]):
    out, data, _ = first
    before, tables = summary(out), versions(out)
    done = run(out, data)
    assert done.returncode == 0, done.stdout + done.stderr
    after = summary(out)
    assert set(before["seconds"]) - set(after["reused"]) == {"total", "materialize-features", "fetch-champion"}
    assert after["gate"] == before["gate"]
    assert versions(out) == tables


@pytest.mark.whole
def test_bad_input_stops_the_run_with_its_sentence_and_leaves_the_tables(first: tuple[Path, Path, Any], tmp_path: Path):
    out, data, _ = first
    tables, rows = versions(out), data.read_text().splitlines()
    bad = tmp_path / "bad.csv"
    bad.write_text("\n".join([*rows[:3], rows[3].replace("E-Mail", "Letter")]) + "\n")
    for folder, words in [(out, "add --fresh to replace it"), (tmp_path / "new", "Letter")]:
        done = run(folder, bad)
        assert done.returncode == 2
        assert words in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stdout + done.stderr
    assert versions(out) == tables
