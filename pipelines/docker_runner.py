"""A run folder -> KFP's DockerRunner for it: every stage in the image of its dependency group, as a cluster would start it."""

import os
import re
from pathlib import Path

from docker.types import Mount
from kfp import local

from pipelines.build_images import check_engine, is_there
from promolift.errors import UnavailableError

IMAGES = re.compile(r"image: (promolift/\S+)")


def docker_runner(folder: Path, path: str) -> local.DockerRunner:
    """Runner whose containers see the run's folder, and what `path` names, at the same places as this machine does.

    They run as the caller, so that the folder stays the caller's; their own file system is read-only but for /tmp; they share this
    machine's network, since Redis and MLflow may be given by a loopback address.
    """
    mounts = [Mount(str(folder), str(folder), type="bind")]
    if path:
        place = Path(path).resolve()
        there = str(place if place.is_dir() else place.parent)
        mounts.append(Mount(there, there, type="bind", read_only=True))
    return local.DockerRunner(
        mounts=mounts, user=f"{os.getuid()}:{os.getgid()}", network_mode="host", read_only=True, tmpfs={"/tmp": "exec"},  # noqa: S108
    )  # fmt: skip


def need_images(pipeline: str) -> None:
    """Raises UnavailableError without an engine, and for the first image of the YAML that it does not have."""
    check_engine()
    for name in sorted(set(IMAGES.findall(pipeline))):
        if not is_there(name):
            raise UnavailableError(f"There is no image {name}; build it with `make images` (its tag follows pins and source).")
