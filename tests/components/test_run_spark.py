"""A stage that starts another room's program passes its records and its sentences on."""

from pathlib import Path

import pytest

from components.run_spark import run
from components.subprogram import run_program
from promolift.errors import ExpectationError, InputError, PromoliftError, UnavailableError

PROGRAM = """
import sys

print("reading")
print('{"job": "build_features", "rows": 3}')
print("{not json")
print(*sys.argv[2:], sep="\\n", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "some_room.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}")
    return "some_room"


def test_records_are_returned_and_every_line_is_passed_on(room: str, capfd: pytest.CaptureFixture[str]):
    assert run_program(room, ["0"]) == [{"job": "build_features", "rows": 3}]
    assert capfd.readouterr().out.splitlines()[:3] == ["reading", '{"job": "build_features", "rows": 3}', "{not json"]


@pytest.mark.parametrize(("status", "error"), [(2, InputError), (3, ExpectationError), (4, UnavailableError), (1, PromoliftError)])
@pytest.mark.parametrize("said", ["promolift.errors.InputError: Column 'x' is missing.", "some_room: Column 'x' is missing."])
def test_the_programs_own_sentence_is_raised_by_the_class_of_its_status(room: str, status: int, error: type[PromoliftError], said: str):
    noise = ["Traceback", said, "\tat java.lang.Thread", ""]
    with pytest.raises(error) as caught:
        run_program(room, [str(status), *noise])
    assert type(caught.value) is error
    assert str(caught.value) == "Column 'x' is missing."


def test_without_a_sentence_the_last_line_is_raised(room: str):
    with pytest.raises(PromoliftError, match="Killed"):
        run_program(room, ["137", "starting", "Killed", ""])


@pytest.mark.slow
def test_a_job_nobody_knows_is_refused_by_the_jobs_own_program(tmp_path: Path):
    with pytest.raises(InputError, match="bake_cake"):
        run(["bake_cake"], str(tmp_path))
    assert list(tmp_path.iterdir()) == []
