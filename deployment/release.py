"""A finished run -> its model and feature registry in S3, under an address that no other content has, and its features online."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployment.render import Release
from promolift.contracts.artifacts import ModelManifest, read_manifest
from promolift.drift.reference import files_in
from promolift.errors import InputError, UnavailableError
from promolift.storage import delta_options, reached, region

BUCKET = "promolift"
NEEDED = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def deliver(run: Path, registry: Path) -> Release:
    """Put the model, its drift reference where it has one, and registry.db into the bucket. Raises UnavailableError when S3 refuses."""
    manifest, folder = manifest_of(run), run / "serving_model"
    files = {name: folder / name for name in ("model.tflite", "manifest.json", *files_in(folder))} | {"registry.db": registry}
    content = hashlib.sha256(b"".join(path.read_bytes() for path in files.values())).hexdigest()[:12]
    address = f"{BUCKET}/models/{manifest.name}-{content}"
    with _store() as store:
        store.create_dir(BUCKET)
        for name, path in files.items():
            with store.open_output_stream(f"{address}/{name}") as out:
                out.write(path.read_bytes())
    return Release(f"s3://{address}", manifest.sha256)


def forget() -> None:
    """Delete the bucket with everything in it: models and decision log."""
    with _store() as store:
        if store.get_file_info(BUCKET).type.name != "NotFound":
            store.delete_dir(BUCKET)


def manifest_of(run: Path) -> ModelManifest:
    """The manifest of the run's model. Raises InputError without one."""
    try:
        return read_manifest(run / "serving_model")
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise InputError(f"{run} has no model to serve ({problem}); make a run with `make demo`, or name one with --run.") from problem


def materialize(run: Path, redis_url: str, registry: Path) -> None:
    """Put the run's features online, described in a new registry file. Raises PromoliftError with the program's sentence."""
    registry.unlink(missing_ok=True)
    command = [sys.executable, "-m", "feature_repo", "--lake", str(run / "lake"), "--registry", str(registry)]
    # By the environment: everybody on a machine sees a program's arguments, and the URL has a password.
    environment = {**os.environ, "PROMOLIFT_REDIS_URL": redis_url}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if found.returncode:
        raise UnavailableError(f"The features of {run} cannot be put online: {found.stderr.strip().splitlines()[-1]}")


def credentials() -> dict[str, str]:
    """The S3 endpoint and keys that pods shall use, from the environment. Raises InputError for what is missing."""
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        raise InputError(f"{', '.join(missing)} must be set: pods fetch the model from S3 and write the decision log there.")
    plain = {"AWS_ALLOW_HTTP": "true"} if delta_options() else {}
    return {**{name: os.environ[name] for name in NEEDED}, "AWS_REGION": region(), "AWS_DEFAULT_REGION": region(), **plain}


@contextmanager
def _store() -> Iterator[Any]:
    """S3 with the right to make and delete the bucket. Raises InputError without its keys, UnavailableError when it refuses."""
    credentials()
    with reached(f"s3a://{BUCKET}", allow_bucket_creation=True, allow_bucket_deletion=True) as (store, _):
        yield store
