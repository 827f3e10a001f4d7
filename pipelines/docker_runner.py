"""A run folder -> KFP's DockerRunner for it: every stage in the image of its dependency group, as a cluster would start it."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from docker.types import Mount
from kfp import local
from kfp.local import docker_task_handler

from pipelines.build_images import check_engine, is_there
from promolift.errors import UnavailableError

STORAGE, SETTINGS = "AWS_", "PROMOLIFT_"
IMAGES = re.compile(r"image: (promolift/\S+)")


@contextmanager
def docker_runner(folder: Path, *paths: str, passed: tuple[str, ...] = (STORAGE,)) -> Iterator[local.DockerRunner]:
    """Runner whose containers see the run's folder, and what `paths` name, at the same places as this machine does.

    They run as the caller, so that the folder stays the caller's, and with a list of users that has the caller, since Hadoop asks it;
    their own file system is read-only but for /tmp; they share this machine's network, since Redis and MLflow may be given by a loopback
    address, and the variables of this process whose names begin with one of `passed`: where S3 is, unless told otherwise.
    """
    users = folder / ".users"
    users.write_text(f"promolift:x:{os.getuid()}:{os.getgid()}::/tmp:/usr/sbin/nologin\n", encoding="utf-8")
    mounts = [Mount(str(folder), str(folder), type="bind"), Mount("/etc/passwd", str(users), type="bind", read_only=True)]
    places = [Path(path).resolve() for path in paths if path]
    for there in {str(place if place.is_dir() else place.parent) for place in places}:
        mounts.append(Mount(there, there, type="bind", read_only=True))
    original = docker_task_handler.run_docker_container
    docker_task_handler.run_docker_container = run_container
    try:
        yield local.DockerRunner(
            mounts=mounts, user=f"{os.getuid()}:{os.getgid()}", network_mode="host", read_only=True, tmpfs={"/tmp": "exec"},  # noqa: S108
            environment={name: value for name, value in os.environ.items() if name.startswith(passed)},
        )  # fmt: skip
    finally:
        docker_task_handler.run_docker_container = original


def run_container(client: Any, image: str, command: list[str], volumes: Mapping[str, Any], **options: Any) -> int:
    """Run the container to its end and return its status, its output printed as it comes; an interrupt removes it.

    KFP's own (2.17) lets Docker remove the container, and takes one that is gone before it asks for the status for a success.
    """
    container = client.containers.run(image=image, command=command, detach=True, volumes=volumes, **options)
    try:
        for part in container.logs(stream=True, follow=True):
            print(part.decode(errors="replace"), end="")
        return int(container.wait()["StatusCode"])
    finally:
        container.remove(force=True)


def need_images(pipeline: str) -> None:
    """Raises UnavailableError without an engine, and for the first image of the YAML that it does not have."""
    check_engine()
    for name in sorted(set(IMAGES.findall(pipeline))):
        if not is_there(name):
            raise UnavailableError(f"There is no image {name}; build it with `make images` (its tag follows pins and source).")
