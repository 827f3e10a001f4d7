"""A small fault run: clients and Redis are killed, nothing is overspent or lost; and the judge sees what it must see."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtests.faults import holds

SOUND = {
    "overspent": 0, "answered_in_two_ways": 0, "acknowledged_but_not_logged": 0, "logged_twice": 0, "committed": 5, "commits_logged": 5,
    "commits_acknowledged": 5,
}  # fmt: skip


def report(overspent: int = 100, **ledger: int) -> dict[str, Any]:
    return {"ledger": {**SOUND, **ledger}, "check_then_increment": {"overspent": overspent}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"overspent": 0}, "the baseline did not overspend"),
        ({"answered_in_two_ways": 1}, "two ways"),
        ({"acknowledged_but_not_logged": 1}, "not in the log"),
        ({"logged_twice": 1}, "twice"),
        ({"commits_logged": 4}, "not those of the log"),
        ({"commits_acknowledged": 6}, "acknowledged and lost"),
    ],
)
def test_everything_that_must_hold_is_looked_at(change: dict[str, int], words: str):
    [sentence] = holds(report(**change))
    assert words in sentence
    assert holds(report()) == []
    assert "overspent" in holds({"ledger": {**SOUND, "overspent": 1}, "check_then_increment": {"overspent": 1}})[0]


@pytest.mark.slow
def test_a_small_fault_run_loses_and_overspends_nothing(tmp_path: Path):
    command = [sys.executable, "-m", "loadtests.faults", "--count", "25000", "--out", str(tmp_path / "faults")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = json.loads((tmp_path / "faults" / "faults.json").read_text())
    assert (done.returncode, found["wrong"]) == (0, []), done.stdout + done.stderr
    assert found["ledger"]["killed"]["client"] > 3 and found["ledger"]["most_committed_and_reserved"] > 0
