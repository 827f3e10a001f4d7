"""Folders of this machine and prefixes of S3 under one spelling: DIR/name or s3a://bucket/prefix/name (s3:// is the same place).

What S3 is, is said by the environment: AWS_ENDPOINT_URL (nothing: Amazon's own), AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION.
Tables are opened where they lie. What libraries want as plain files (models, pages, studies) is copied by `kept`.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from promolift.errors import PromoliftError, UnavailableError

Place = str | Path
SCHEMES = ("s3a://", "s3://")


def is_remote(place: Place) -> bool:
    """Whether the place is in S3."""
    return str(place).startswith(SCHEMES)


def spelled(place: Place) -> str:
    """The one spelling of a place: an absolute path, or s3a://…, which Spark and delta-rs know and a KFP launcher leaves alone."""
    return "s3a://" + str(place).split("://", 1)[1].rstrip("/") if is_remote(place) else str(Path(place).absolute())


def read_text(place: Place) -> str:
    """A file's text. Raises FileNotFoundError, UnavailableError when S3 refuses."""
    with reached(place) as (system, path), system.open_input_stream(path) as stream:
        return str(stream.read().decode("utf-8"))


def write_text(place: Place, text: str) -> None:
    """Write a file as a whole; the folders above it are made."""
    with reached(place) as (system, path):
        _make_folder(system, os.path.dirname(path))  # noqa: PTH120 (Arrow's paths are text)
        with system.open_output_stream(path) as stream:
            stream.write(text.encode())


def exists(place: Place) -> bool:
    """Whether a file or a folder is there; in S3 a folder is there when something lies below it."""
    return bool(info(place).type.name != "NotFound")


def info(place: Place) -> Any:
    """Arrow's FileInfo: type, size in bytes, mtime in UTC."""
    with reached(place) as (system, path):
        return system.get_file_info(path)


def files(folder: Place, ending: str = "") -> list[str]:
    """Places of the files directly in a folder, sorted; none where there is no folder."""
    from pyarrow import fs  # noqa: PLC0415 (as in `reached`)

    with reached(folder) as (system, path):
        found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(f"{spelled(folder)}/{one.base_name}" for one in found if one.is_file and one.base_name.endswith(ending))


def copy(source: Place, target: Place) -> None:
    """Copy a file, or everything below a folder."""
    from pyarrow import fs  # noqa: PLC0415 (as in `reached`)

    with reached(source) as (one, start), reached(target) as (other, end):
        if one.get_file_info(start).is_file:
            _make_folder(other, os.path.dirname(end))  # noqa: PTH120 (Arrow's paths are text)
            with one.open_input_stream(start) as stream, other.open_output_stream(end) as out:
                shutil.copyfileobj(stream, out)
        else:
            _make_folder(other, end)
            fs.copy_files(start, end, source_filesystem=one, destination_filesystem=other)


def replace(folder: Path, target: Place) -> None:
    """Put a new folder of this machine in the place of another: by renames; in S3 file by file, and what it does not have goes."""
    if not is_remote(target):
        old = Path(f"{target}.old")
        shutil.rmtree(old, ignore_errors=True)
        if Path(target).exists():
            Path(target).rename(old)
        folder.rename(target)
        shutil.rmtree(old, ignore_errors=True)
        return
    from pyarrow import fs  # noqa: PLC0415 (as in `reached`)

    copy(folder, target)
    new = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    with reached(target) as (system, path):
        there = system.get_file_info(fs.FileSelector(path, recursive=True))
        for one in there:
            if one.is_file and one.path.removeprefix(f"{path}/") not in new:
                system.delete_file(one.path)


def delete(place: Place) -> None:
    """Delete a file, or a folder with everything below it, if it is there."""
    with reached(place) as (system, path):
        found = system.get_file_info(path)
        if found.is_file:
            system.delete_file(path)
        elif found.type.name != "NotFound":
            system.delete_dir(path)


@contextmanager
def kept(root: Place, *parts: str) -> Iterator[str]:
    """A folder of this machine with the named parts (files or folders) of `root`: `root` itself, or a copy of what S3 has.

    Whatever changed in the copy is in S3 when the block ends, by an error too: what other tasks write beside it meanwhile stays.
    An error's sentence names the place in S3.
    """
    if not is_remote(root):
        yield str(root)
        return
    with TemporaryDirectory() as folder:
        for part in parts:
            if exists(f"{root}/{part}"):
                copy(f"{root}/{part}", Path(folder) / part)
        before = _stamps(Path(folder))
        try:
            yield folder
        except PromoliftError as error:
            error.args = tuple(str(text).replace(folder, spelled(root)) for text in error.args)
            raise
        finally:
            _return(Path(folder), before, spelled(root))


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {str(path.relative_to(folder)): (state.st_size, state.st_mtime_ns) for path, state in found.items()}


def _return(folder: Path, before: dict[str, tuple[int, int]], root: str) -> None:
    after = _stamps(folder)
    for name, stamp in after.items():
        if before.get(name) != stamp:
            copy(folder / name, f"{root}/{name}")
    for name in before.keys() - after.keys():
        delete(f"{root}/{name}")


def _make_folder(system: Any, path: str) -> None:
    """Make a folder for files to come; S3 knows none but the bucket, which must be there."""
    if system.type_name == "local":
        system.create_dir(path)


@contextmanager
def reached(place: Place, **options: Any) -> Iterator[tuple[Any, str]]:
    """Arrow's file system of a place, and the path in it. Raises UnavailableError when S3 refuses.

    `options`: more of Arrow's S3FileSystem.
    """
    from pyarrow import fs  # noqa: PLC0415 (takes a third of a second, and the serving image has no Arrow)

    if not is_remote(place):
        yield fs.LocalFileSystem(), spelled(place)
        return
    try:
        yield _s3(**options), spelled(place).removeprefix("s3a://")
    except FileNotFoundError:
        raise
    except OSError as problem:
        where = os.environ.get("AWS_ENDPOINT_URL", "Amazon")
        raise UnavailableError(
            f"S3 at {where} refuses '{place}' ({str(problem).split(' Detail:')[0]}); check the address, its keys and the bucket."
        ) from problem


def _s3(**options: Any) -> Any:
    from pyarrow import fs  # noqa: PLC0415 (as in `reached`)

    scheme, _, host = os.environ.get("AWS_ENDPOINT_URL", "").partition("://")
    endpoint = {"scheme": scheme, "endpoint_override": host.rstrip("/")} if host else {}
    return fs.S3FileSystem(**endpoint, region=region(), connect_timeout=5, request_timeout=60, **options)


def delta_options() -> dict[str, str]:
    """What delta-rs must be told beyond the environment: that an endpoint without TLS is meant."""
    return {"allow_http": "true"} if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://") else {}


def region() -> str:
    """S3's region by the environment."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
