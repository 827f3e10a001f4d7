"""The command's own checks: each refusal is a sentence and a status, and changes nothing."""

import fcntl
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines import run
from pipelines.run_folder import Origin, content_of, opened
from promolift.errors import InputError, UnavailableError
from promolift.java import check_java

ONE = Origin("hillstrom", "abc", 1, "code")


def failing(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = run.main(arguments)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return status, err.splitlines()[-1]


def test_wrong_input_is_a_sentence_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "run"
    for arguments, words in [
        (["--source", "nowhere"], "There is no source 'nowhere'; choose one of complete_journey, hillstrom, table."),
        (["--source", "hillstrom", "--path", "/no/such.csv"], "There is no file or folder '/no/such.csv'"),
        (["--source", "hillstrom", "--epochs", "-1"], "--epochs is -1"),
    ]:
        status, sentence = failing(["training", "--out", str(out), *arguments], capsys)
        assert (status, words in sentence) == (2, True), sentence
    assert not out.exists()


def test_a_folder_that_cannot_be_written_is_status_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("")
    status, sentence = failing(["training", "--source", "hillstrom", "--out", str(tmp_path / "file" / "run")], capsys)
    assert (status, "file/run" in sentence and sentence.endswith("choose another run folder with --out.")) == (4, True)


def test_missing_java_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="Java 17 or newer and there is no `java` on the PATH"):
        check_java()
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "java"
    program.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UnavailableError, match="is version 11"):
        check_java()


def test_a_folder_serves_one_run_at_a_time(tmp_path: Path):
    with opened(tmp_path, ONE, fresh=False), pytest.raises(UnavailableError, match="Another run is at work"):
        opened(tmp_path, ONE, fresh=False).__enter__()
    with (tmp_path / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_folder_is_kept_to_one_origin_until_fresh(tmp_path: Path):
    with opened(tmp_path, ONE, fresh=False) as folder:
        (folder / "lake" / "silver").mkdir(parents=True)
        (folder / "notes.txt").write_text("mine")
    other = Origin("complete_journey", "abc", 2, "code")
    with pytest.raises(InputError, match=r"source 'hillstrom' \(now 'complete_journey'\) and seed '1' \(now '2'\); add --fresh"):
        opened(tmp_path, other, fresh=False).__enter__()
    with opened(tmp_path, other, fresh=True):
        assert not (tmp_path / "lake").exists()
        assert (tmp_path / "notes.txt").read_text() == "mine"


def test_changed_code_rebuilds_the_lake_and_keeps_the_decisions(tmp_path: Path):
    with opened(tmp_path, ONE, fresh=False) as folder:
        (folder / "lake" / "silver").mkdir(parents=True)
        (folder / "lake" / "serving" / "decisions").mkdir(parents=True)
    with opened(tmp_path, ONE, fresh=False):
        assert (tmp_path / "lake" / "silver").exists()
    with opened(tmp_path, replace(ONE, code="changed"), fresh=False):
        assert not (tmp_path / "lake" / "silver").exists()
        assert (tmp_path / "lake" / "serving" / "decisions").exists()


def test_a_run_that_landed_nothing_does_not_claim_the_folder(tmp_path: Path):
    with opened(tmp_path, ONE, fresh=False):
        pass
    with opened(tmp_path, Origin("hillstrom", "mended", 1, "code"), fresh=False):
        assert '"hillstrom"' in (tmp_path / "run.json").read_text()


def test_content_follows_the_bytes_of_a_file_and_of_a_folder(tmp_path: Path):
    (tmp_path / "a").write_text("1")
    one, whole = content_of(str(tmp_path / "a")), content_of(str(tmp_path))
    (tmp_path / "a").write_text("2")
    assert content_of(str(tmp_path / "a")) != one
    assert content_of(str(tmp_path)) != whole
    assert content_of("") == ""


@pytest.mark.parametrize("command", [["training", "--source", "hillstrom"], ["dataset", "--source", "hillstrom"]])
def test_a_wrong_setting_names_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
):
    monkeypatch.setenv("PROMOLIFT_BUDGET_CENTS", "much")
    status, sentence = failing([*command, "--out", str(tmp_path / "run")], capsys)
    assert (status, sentence.startswith("Setting PROMOLIFT_BUDGET_CENTS has the value 'much'")) == (2, True)


def test_a_wrong_setting_stops_the_jobs_before_spark_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from spark_jobs import __main__ as jobs

    monkeypatch.setenv("PROMOLIFT_HOLDOUT_SHARE", "2")
    assert jobs.main(["build_features", "--lake", str(tmp_path)]) == 2
    assert "Setting PROMOLIFT_HOLDOUT_SHARE has the value '2'" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{", "[]", '{"source": "hillstrom"}'])
def test_a_damaged_record_of_the_run_is_named_and_replaced_by_fresh(tmp_path: Path, content: str):
    with opened(tmp_path, ONE, fresh=False) as folder:
        (folder / "lake" / "silver").mkdir(parents=True)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json is damaged .*add --fresh"):
        opened(tmp_path, ONE, fresh=False).__enter__()
    assert (tmp_path / "lake" / "silver").exists()
    with opened(tmp_path, ONE, fresh=True):
        assert not (tmp_path / "lake").exists()
