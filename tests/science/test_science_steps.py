"""Steps are reused exactly while nothing changed that they depend on, and one that cannot run does not stop the others."""

import json
from pathlib import Path
from typing import Any

import pytest

from promolift.errors import InputError
from science import steps as steps_module
from science.steps import Step, code_of, done, file_of, finite


def quiet(line: str) -> None:
    assert line


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """A module `science.counted` in a folder of its own, whose measure counts its calls."""
    package = tmp_path / "code" / "science"
    package.mkdir(parents=True)
    (package / "counted.py").write_text("from science.below import VALUE\n")
    (package / "below.py").write_text("VALUE = 1\n")
    monkeypatch.setattr(steps_module, "ROOT", tmp_path / "code")
    monkeypatch.setattr(steps_module, "PLACES", {"science": tmp_path / "code"})
    made: list[int] = []

    class Module:
        @staticmethod
        def measure(**settings: Any) -> dict[str, Any]:
            if settings.get("worlds") == 0:
                raise InputError("No worlds were asked for.")
            made.append(1)
            return {"number": len(made), **settings}

    monkeypatch.setattr(steps_module.importlib, "import_module", lambda name: Module)
    return made


def run(step: Step, out: Path, wanted: bool = True) -> dict[str, Any]:
    return done(step, out, wanted=wanted, told=quiet)


def test_a_finished_step_is_reused_until_settings_code_or_data_change(calls: list[int], tmp_path: Path):
    data = tmp_path / "data.csv"
    data.write_text("1")
    step = Step("counted", "science.counted", {"worlds": 5}, data)
    first = run(step, tmp_path / "out")
    assert run(step, tmp_path / "out") == first
    assert run(step, tmp_path / "out", wanted=False) == first
    assert len(calls) == 1
    run(Step("counted", "science.counted", {"worlds": 6}, data), tmp_path / "out")
    assert len(calls) == 2
    run(step, tmp_path / "out")
    data.write_text("2")
    run(step, tmp_path / "out")
    assert len(calls) == 4
    (tmp_path / "code/science/below.py").write_text("VALUE = 2\n")  # not the step's own module
    run(step, tmp_path / "out")
    assert len(calls) == 5


def test_a_broken_record_is_done_again(calls: list[int], tmp_path: Path):
    step = Step("counted", "science.counted")
    run(step, tmp_path)
    (tmp_path / "steps/counted.json").write_text("{")
    run(step, tmp_path)
    assert len(calls) == 2


@pytest.mark.usefixtures("calls")
def test_what_cannot_run_says_why_and_leaves_no_record(tmp_path: Path):
    refused = run(Step("counted", "science.counted", {"worlds": 0}), tmp_path)
    assert refused["not_run"] == "No worlds were asked for."
    assert run(Step("counted", "science.counted", without="Give a file."), tmp_path)["not_run"] == "Give a file."
    assert "not asked for" in run(Step("counted", "science.counted"), tmp_path, wanted=False)["not_run"]
    assert not (tmp_path / "steps").exists()


def test_code_below_a_step_is_its_code_too():
    names = {path.name for path in code_of("science.hillstrom")}
    assert {"hillstrom.py", "hillstrom_models.py", "boosting.py", "conventions.py", "curves.py"} <= names
    assert "page.py" not in names
    assert file_of("numpy") is None
    assert file_of("promolift.uplift.conventions.DEFINITIONS") is None


def test_records_are_json_without_nan():
    found = finite({"a": float("nan"), "b": (1.5, float("inf")), "c": [{"d": "NaN"}]})
    assert json.loads(json.dumps(found, allow_nan=False)) == {"a": None, "b": [1.5, None], "c": [{"d": "NaN"}]}
