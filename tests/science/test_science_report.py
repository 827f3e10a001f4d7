"""Records of four steps -> targets, tables and page; and the command itself on a small file."""

import json
from pathlib import Path
from typing import Any

import pytest

from science import hillstrom, ihdp_tables
from science.__main__ import parse, run
from science.hillstrom_models import linear
from science.report import MAKERS, document, page, sentence, tables
from science.steps import finite
from science.tables import reached
from tests.science.hillstrom_rows import write_hillstrom

SHARE = {"count": 480, "worlds": 500, "rate": 0.96, "interval": [0.94, 0.975]}


def coverage(rate: float) -> dict[str, Any]:
    row = {"quantity": "value/aipw, price fixed", "truth_is": "population", **SHARE, "rate": rate, "bias": 0.01, "error_ratio": 1.0}
    naive = {**row, "quantity": "value/aipw as if each row were a shopper, price fixed", "rate": 0.8}
    return {"worlds": 500, "shoppers": 1600, "resamples": 200, "designs": {"skewed": [row, naive]}}


def curve(*, kept: bool) -> dict[str, Any]:
    shares = {answer: SHARE for answer in ("promoted", "refused", "cannot tell")}
    promise = {"model": "useless", "check": "verdict", "status": "promoted", "why": "noise", **SHARE, "alpha": 0.05, "largest_usual": 33}
    setting = {"mean_rows": 1000.0, "curve": [{"model": "oracle", "true_gain": 0.2, **shares}], "promises": [{**promise, "kept": kept}]}
    return {"worlds": 500, "resamples": 200, "settings": [setting]}


def ihdp(pehe: float) -> dict[str, Any]:
    figure = {"se": 0.02, "median": 0.6}
    model: dict[str, Any] = {key: {"mean": pehe, **figure} for key in (*ihdp_tables.FIGURES, *ihdp_tables.ALONE, "spread_in")}
    model["all"] = {key: {"mean": pehe, "se": 0.02} for key in model}
    published = {name: {"pehe_in": 0.88, "pehe_out": 0.95} for name in ("TARNet", "CFR-Wass")}
    counts = {"replications": 100, "numbers": [61, 160], "tried": 60, "of": 1_000, "seeds": [1]}
    return {**counts, "models": {"tarnet": model}, "reference": {"linear_per_arm": model}, "published": published}


@pytest.fixture(scope="module")
def records(tmp_path_factory: Any) -> dict[str, Any]:
    file = write_hillstrom(tmp_path_factory.mktemp("data") / "hillstrom.csv", rows=900)
    found = hillstrom.measure(path=str(file), splits=2, resamples=8, models={"one": linear, "other": linear})
    results = {"hillstrom": found, "ihdp": ihdp(0.7), "coverage": coverage(0.96), "operating_curve": curve(kept=True)}
    return {name: {"key": "k", "seconds": 1.0, "result": finite(result)} for name, result in results.items()}


def statuses(records: dict[str, Any]) -> dict[str, str]:
    return {target["what"]: target["status"] for target in document(records, quick=False)["targets"]}


def with_result(records: dict[str, Any], name: str, result: dict[str, Any]) -> dict[str, Any]:
    return {**records, name: {"key": "k", "seconds": 1.0, "result": result}}


def test_targets_are_met_or_missed_by_their_figures(records: dict[str, Any]):
    good = statuses(records)
    assert [status for what, status in good.items() if not what.startswith("Hillstrom")] == ["met"] * 6
    assert statuses(with_result(records, "coverage", coverage(0.91)))["Coverage of policy value, skewed propensities"] == "not met"
    gate = "Gate, 1,000 rows: promotes a model that is no better"
    assert statuses(with_result(records, "operating_curve", curve(kept=False)))[gate] == "not met"
    assert statuses(with_result(records, "ihdp", ihdp(0.9)))["IHDP, tarnet against TARNet, sqrt-PEHE within"] == "within error"
    assert statuses(with_result(records, "ihdp", ihdp(1.2)))["IHDP, tarnet against CFR-Wass, sqrt-PEHE out of sample"] == "not met"


def test_too_few_worlds_do_not_meet_a_target(records: dict[str, Any]):
    few = with_result(records, "coverage", {**coverage(0.96), "worlds": 499})
    assert statuses(few)["Coverage of policy value, skewed propensities"] == "not met"


def test_a_limit_may_be_missed_within_error():
    assert [reached(0.7, 0.71, 0.02), reached(0.74, 0.71, 0.02), reached(0.76, 0.71, 0.02)] == ["met", "within error", "not met"]
    assert reached(0.72, 0.71, None) == "not met"


def test_the_page_shows_every_table_targets_first(records: dict[str, Any]):
    found = document(records, quick=False)
    text, names = page(found), [table.name for table in tables(found)]
    assert names[0] == "targets"
    assert text.index(sentence(found)) < text.index("<table>")
    assert text.count("<table>") == len(names) == 9
    assert not any(loads in text for loads in ("<script", "<link", "src=", "@import", "url("))
    assert "<b>one</b>" in text and "**" not in text
    assert "quick run" not in text and "A quick run" in page({**found, "quick": True})


def test_a_step_that_was_not_run_is_said_everywhere(records: dict[str, Any]):
    found = document({**records, "ihdp": {"key": "k", "seconds": 0.0, "not_run": "No <file>."}}, quick=False)
    assert statuses({**records, "ihdp": {"key": "k", "seconds": 0.0, "not_run": "No file."}})["IHDP: error of the effect"] == "not run"
    assert "ihdp" not in [table.name for table in tables(found)]
    assert "No &lt;file&gt;." in page(found)


def test_the_command_writes_both_files_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file, out = write_hillstrom(tmp_path / "hillstrom.csv", rows=900), tmp_path / "out"
    options = parse(["--out", str(out), "--quick", "--only", "hillstrom", "--hillstrom", str(file)])
    run(options)
    first = json.loads((out / "result.json").read_text(), parse_constant=pytest.fail)
    assert set(first["steps"]) == set(MAKERS)
    assert "result" in first["steps"]["hillstrom"]
    assert "not_run" in first["steps"]["coverage"]
    assert "not run" in (out / "report.html").read_text()
    capsys.readouterr()
    run(options)
    assert "is reused" in capsys.readouterr().out
    assert json.loads((out / "result.json").read_text()) == first


def test_absent_data_do_not_stop_the_run(tmp_path: Path):
    found = run(parse(["--out", str(tmp_path), "--only", "hillstrom", "ihdp", "--hillstrom", str(tmp_path / "absent.csv")]))
    assert "absent.csv is missing" in found["steps"]["hillstrom"]["not_run"]
    assert "--ihdp" in found["steps"]["ihdp"]["not_run"]
