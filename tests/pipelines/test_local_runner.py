"""KFP's local runner under our cache and progress: what is reused, what is said, what is left."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler

from pipelines.local_runner import run_pipeline
from promolift.errors import InputError, PromoliftError

STAGES = """
from kfp import dsl
from kfp.dsl import Dataset, Input, Output

@dsl.component(base_image="x:python3.11", install_kfp_package=False)
def write(root: str, text: str, made: Output[Dataset]) -> bool:
    import time
    from pathlib import Path
    if text == "large":
        held = bytearray(b"1") * (300 << 20)
        time.sleep(0.7)
    Path(root, "runs").mkdir(exist_ok=True)
    with Path(root, "runs", "write").open("a") as log:
        log.write(".")
    made.uri, made.metadata["length"] = f"{root}/made", len(text)
    Path(made.uri).write_text(text)
    return text != "stop"

@dsl.component(base_image="x:python3.11", install_kfp_package=False)
def read(root: str, made: Input[Dataset], fail: str) -> str:
    from pathlib import Path
    from promolift.errors import InputError
    with Path(root, "runs", "read").open("a") as log:
        log.write(".")
    if fail == "ours":
        raise InputError("Column 'x' is missing.")
    if fail:
        raise ValueError(fail)
    return Path(made.uri).read_text()

@dsl.pipeline(name="two")
def two(root: str, text: str, fail: str = ""):
    written = write(root=root, text=text).set_retry(2, backoff_duration="30s").set_memory_limit("4G")
    with dsl.If(written.outputs["Output"] == True):
        read(root=root, made=written.outputs["made"], fail=fail).set_display_name("read-it").set_retry(2)
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("stages")
    (folder / "two_stages.py").write_text(STAGES)
    sys.path.insert(0, str(folder))
    try:
        from two_stages import two  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(folder))
    compiler.Compiler().compile(two, str(folder / "two.yaml"))
    return (folder / "two.yaml").read_text()


def run(pipeline: str, folder: Path, **arguments: str) -> tuple[dict[str, Any], str]:
    screen = io.StringIO()
    tasks = run_pipeline(pipeline, {"root": str(folder), **arguments}, folder / "work", folder / "log", screen)
    return tasks, screen.getvalue()


def runs(folder: Path, task: str) -> int:
    return len((folder / "runs" / task).read_text())


def test_a_line_a_task_and_everything_else_in_the_log(two: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    tasks, screen = run(two, tmp_path, text="hello")

    assert [line.split()[0] for line in screen.splitlines()] == ["write", "read-it"]
    assert tasks["read-it"].outputs == {"Output": "hello"}
    assert tasks["write"].outputs["made"].metadata["length"] == 5
    assert "KFP Executor" in (tmp_path / "log").read_text()
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "work" / "tmp").exists()
    assert "TMPDIR" not in os.environ or not os.environ["TMPDIR"].startswith(str(tmp_path))


def test_peak_memory_is_known_task_by_task(two: str, tmp_path: Path):
    tasks, _ = run(two, tmp_path, text="large")
    assert 300 / 1024 < tasks["write"].peak_gib < 0.5
    assert tasks["read-it"].peak_gib < 0.25


def test_unchanged_tasks_are_reused_and_say_what_they_gave(two: str, tmp_path: Path):
    run(two, tmp_path, text="hello")
    tasks, screen = run(two, tmp_path, text="hello")

    assert all(task.reused and task.peak_gib is None for task in tasks.values())
    assert screen.count("unchanged") == 2
    assert tasks["write"].outputs["made"].metadata["length"] == 5
    assert (runs(tmp_path, "write"), runs(tmp_path, "read")) == (1, 1)


def test_going_back_to_earlier_arguments_runs_again_because_the_files_were_overwritten(two: str, tmp_path: Path):
    for text in ("one", "two", "one"):
        tasks, _ = run(two, tmp_path, text=text)
        assert tasks["read-it"].outputs == {"Output": text}
    assert (runs(tmp_path, "write"), runs(tmp_path, "read")) == (3, 3)


def test_a_lost_output_is_made_again_and_so_is_what_follows(two: str, tmp_path: Path):
    run(two, tmp_path, text="hello")
    (tmp_path / "made").unlink()
    run(two, tmp_path, text="hello")
    assert (runs(tmp_path, "write"), runs(tmp_path, "read")) == (2, 2)


def test_a_false_condition_skips_its_tasks(two: str, tmp_path: Path):
    assert list(run(two, tmp_path, text="stop")[0]) == ["write"]


def test_the_failing_stages_own_error_is_raised_without_a_retry_and_the_rest_is_kept(two: str, tmp_path: Path):
    with pytest.raises(InputError, match=r"^Column 'x' is missing\.$"):
        run(two, tmp_path, text="hello", fail="ours")
    assert runs(tmp_path, "read") == 1
    tasks, screen = run(two, tmp_path, text="hello")
    assert tasks["write"].reused
    assert not tasks["read-it"].reused
    assert "unchanged" in screen


def test_any_other_failure_names_the_task_its_last_words_and_the_log(two: str, tmp_path: Path):
    with pytest.raises(PromoliftError, match=r"^read-it failed: ValueError: bang\. Everything it printed is in .*log\.$"):
        run(two, tmp_path, text="hello", fail="bang")


def test_the_cache_holds_one_entry_a_task(two: str, tmp_path: Path):
    for text in ("one", "two"):
        run(two, tmp_path, text=text)
    entries = sorted((tmp_path / "work" / "cache").glob("*.json"))
    assert [e.name.split(".")[0] for e in entries] == ["read", "write"]
    assert json.loads(entries[1].read_text())["made"]["metadata"]["length"] == 3


@pytest.mark.parametrize("content", ["", "[]", "null"])
def test_a_damaged_entry_of_the_cache_runs_its_task_again(two: str, tmp_path: Path, content: str):
    run(two, tmp_path, text="hello")
    for entry in tmp_path.rglob("write.*.json"):
        entry.write_text(content)
    tasks, _ = run(two, tmp_path, text="hello")
    assert not tasks["write"].reused
    assert tasks["read-it"].outputs == {"Output": "hello"}
