"""What an image is built from, and the sentence where none can be built."""

from pathlib import Path

import pytest

from pipelines import build_images
from pipelines.images import ENTRIES, source_files


@pytest.mark.parametrize("group", ENTRIES)
def test_the_builds_folder_holds_the_groups_source_and_nothing_else(tmp_path: Path, group: str):
    build_images.lay_out(group, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"Dockerfile", "requirements.txt", "app"}
    packages = (tmp_path / "requirements.txt").read_text()
    pinned = [line for line in packages.splitlines() if not line.startswith(" ")]
    assert all("==" in line and line.endswith("\\") for line in pinned), "a package without hashes"
    assert any(line.startswith("kfp==") for line in pinned) and "kfp-kubernetes" not in packages
    rooms = {path.relative_to(tmp_path / "app").parts[0] for path in (tmp_path / "app").rglob("*.py")}
    own = {entry.split(".")[0] for entry in ENTRIES[group] if "/" not in entry}
    assert own | {"src"} <= rooms and "tests" not in rooms and "pipelines" not in rooms
    assert (tmp_path / "app/src/promolift/errors.py").is_file()


def test_what_a_stage_reads_beside_its_code_travels_with_it():
    carried = {path.name for path in source_files("serving")}
    assert {"shared.lua", "reserve.lua", "rules.yaml", "graph.yaml"} <= carried


def test_without_docker_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("PATH", "")
    assert build_images.main(["validate"]) == 4
    assert "docker, which is not on the PATH; install Docker." in capsys.readouterr().err


def test_an_unknown_group_is_named(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        build_images.main(["spork"])
    assert "there is no image 'spork'; there are spark," in capsys.readouterr().err
