"""Stages in containers: a failing one is a failure, the folder is the caller's, and a missing image is named. Skipped without Docker."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import docker
import pytest
from kfp.local import docker_task_handler

from pipelines.build_images import BASE
from pipelines.docker_runner import docker_runner, need_images, run_container
from promolift.errors import UnavailableError


def engine_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "image", "inspect", BASE], capture_output=True, check=False).returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not engine_answers(), reason=f"no Docker engine with the image {BASE} answers"),
]


@pytest.mark.parametrize("status", [0, 3])
def test_a_container_keeps_its_status_and_its_output_and_leaves_nothing(status: int, capsys: pytest.CaptureFixture[str]):
    client = docker.from_env()
    before = len(client.containers.list(all=True))
    found = [run_container(client, BASE, ["sh", "-c", f"echo said; exit {status}"], {}) for _ in range(5)]
    assert found == [status] * 5
    assert capsys.readouterr().out == "said\n" * 5
    assert len(client.containers.list(all=True)) == before
    client.close()


def test_what_a_container_writes_is_the_callers_and_its_own_files_are_read_only(tmp_path: Path):
    original = docker_task_handler.run_docker_container
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "given").write_text("1")
    (tmp_path / "run").mkdir()
    with docker_runner(tmp_path / "run", str(tmp_path / "data" / "given")) as runner:
        options: dict[str, Any] = dict(runner.container_run_args)
        client = docker.from_env()
        script = f"cp {tmp_path}/data/given {tmp_path}/run/made && touch /tmp/x && ! touch /x && ! touch {tmp_path}/data/y"
        assert run_container(client, BASE, ["sh", "-c", script], {}, **options) == 0
        client.close()
    assert docker_task_handler.run_docker_container is original
    assert (tmp_path / "run" / "made").read_text() == "1"
    assert (tmp_path / "run" / "made").stat().st_uid == os.getuid()


def test_an_image_that_is_not_there_is_named():
    with pytest.raises(UnavailableError, match=r"There is no image promolift/none:1; build it with `make images`"):
        need_images("image: promolift/none:1\n")
