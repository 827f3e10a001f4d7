"""compose.yaml: settings of the manifests, what has to be given; and its container serves a run and keeps what it decided."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from pipelines.build_images import image_name, is_there
from promolift.redis_server import free_port

COMPOSE, RUN = Path("compose.yaml"), Path("build/docker")
VARIABLE = re.compile(r"\$\{(\w+)(?::(-|\?)([^}]*))?\}")
READY_S = 120


def service(**variables: str) -> dict[str, Any]:
    """The one service, with its variables put in as Compose does."""
    text = VARIABLE.sub(lambda m: variables[m[1]] if m[1] in variables or m[2] != "-" else m[3], COMPOSE.read_text())
    (found,) = yaml.safe_load(text)["services"].values()
    return dict(found)


def test_its_settings_are_those_of_the_manifests() -> None:
    (file,) = service(ONLINE="online", RUN="/run", OWNER="1:1")["env_file"]
    (settings,) = yaml.safe_load(Path("manifests/base/kustomization.yaml").read_text())["configMapGenerator"]
    assert [Path(file)] == [Path("manifests/base", name) for name in settings["envs"]]


def test_a_variable_that_is_not_set_is_asked_for() -> None:
    asked = {m[1]: m[3] for m in VARIABLE.finditer(COMPOSE.read_text()) if m[2] == "?"}
    assert set(asked) == {"ONLINE", "RUN", "OWNER"} and all(asked.values())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, Any]]:
    """A copy of the run, served by the container that compose.yaml describes."""
    if shutil.which("docker") is None or not is_there(image_name("online")):
        pytest.skip("no Docker engine with the image `online` answers (make images)")
    if not (RUN / "serving_model").is_dir():
        pytest.skip(f"no finished run in {RUN} to serve (python -m pipelines.run training --on docker --out {RUN})")
    run = shutil.copytree(RUN, tmp_path / "run")
    told = service(ONLINE=image_name("online"), RUN=str(run), OWNER=f"{os.getuid()}:{os.getgid()}", PORT=str(free_port()))
    lines = Path(*told["env_file"]).read_text().splitlines()
    address, port, inside = told["ports"][0].split(":")
    options = {key: told[key] for key in ("user", "volumes", "init", "read_only", "cap_drop", "security_opt")}
    options |= {"tmpfs": dict.fromkeys(told["tmpfs"], ""), "ports": {f"{inside}/tcp": (address, int(port))}}
    environment = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    client = docker.from_env()
    container = client.containers.run(told["image"], told["command"], environment=environment, detach=True, **options)
    try:
        wait_healthy(container, told["healthcheck"]["test"][1:])
        yield run, container
    finally:
        container.remove(force=True)
        client.close()


def wait_healthy(container: Any, check: list[str]) -> None:
    deadline = time.monotonic() + READY_S
    while container.exec_run(check).exit_code:
        container.reload()
        assert container.status == "running" and time.monotonic() < deadline, container.logs().decode()[-2000:]
        time.sleep(1)


def asked(*command: str) -> str:
    return subprocess.run([sys.executable, "-m", "serving.kserve", *command], capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_its_container_decides_and_keeps_its_decisions_for_replay(served: tuple[Path, Any]) -> None:
    run, container = served
    told = json.loads(asked("decide", "--run", str(run), "--count", "20", "--json"))
    assert (told["count"], told["errors"], told["degraded"]) == (20, 0, {})
    container.stop(timeout=60)
    assert container.wait()["StatusCode"] == 0
    assert "20 of 20 logged decisions" in asked("replay", "--run", str(run))
    assert all(path.stat().st_uid == os.getuid() for path in run.rglob("*"))
