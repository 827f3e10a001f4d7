"""The folder of a run: made, locked, and kept to one source and seed; what is missing on this machine is said before anything starts."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from promolift.contracts.artifacts import write_json
from promolift.errors import InputError
from promolift.locks import held

MADE: tuple[str, ...] = (
    "lake", "truth", "models", "evaluation", "search", "measured_truth", "docs", "champion", "stages", "serving_model", "redis",
    "mlruns", ".kfp", "logs",
    "mlflow.db", "registry.db", "run.json", "report.html", "summary.json", "pipeline.log", "serving.json", "serving.log",
    "api_keys.json", "token_keys.json", "versions", "undelivered.jsonl", "undelivered.taken", "undelivered.unreadable",
)  # fmt: skip
"""Everything that runs write into their folder; `--fresh` deletes these and nothing else."""
REFINED: tuple[str, ...] = ("landing", "bronze", "silver", "gold", "lineage")
"""Parts of the lake that follow from the source; the log of decisions beside them does not."""


@dataclass(frozen=True)
class Origin:
    """What a run's lake was made from. Silver only ever adds rows, so another source, content or seed needs another folder.

    `code`: hash of the source of the stages that land and refine; when it alone changes, the same data are refined anew.
    """

    source: str
    content: str
    seed: int
    code: str


def content_of(*paths: str) -> str:
    """Hash of the files (and of every file below folders) at `paths`; empty for an empty path. Raises InputError if one is not there."""
    if not all(paths):
        return ""
    digest = hashlib.sha256()
    for path in paths:
        for file in _files(Path(path)):
            with file.open("rb") as stream:
                digest.update(f"{file.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def _files(place: Path) -> list[Path]:
    if not place.exists():
        raise InputError(f"There is no file or folder '{place}'; give --path the place of the source's data.")
    return sorted(f for f in (place.rglob("*") if place.is_dir() else [place]) if f.is_file())


@contextmanager
def opened(folder: Path, origin: Origin, *, fresh: bool) -> Iterator[Path]:
    """Make and lock `folder` for one run of `origin`, yield it resolved.

    Raises UnavailableError when it cannot be written or another run holds it, InputError when it holds a run of another origin.
    """
    place = folder.resolve()
    taken = f"Another run is at work in {place}; wait for it or choose another folder with --out."
    with held(place / ".lock", "choose another run folder with --out", taken):
        if fresh:
            _empty(place)
        _claim(place, origin)
        yield place


def _empty(folder: Path) -> None:
    for name in MADE:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _origin(record: Path) -> Origin:
    try:
        return Origin(**json.loads(record.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as cause:
        raise InputError(
            f"{record} is damaged ({cause}), so nobody knows what the run was made from; add --fresh to replace the run."
        ) from cause


def _claim(folder: Path, origin: Origin) -> None:
    record = folder / "run.json"
    built = record.exists() and (folder / "lake" / "silver").exists()
    before = _origin(record) if built else origin
    given = ("source", "content", "seed")
    changed = [
        f"{name} '{getattr(before, name)}' (now '{new}')" for name in given if getattr(before, name) != (new := getattr(origin, name))
    ]
    if changed:
        raise InputError(
            f"The folder {folder} holds a run of {' and '.join(changed)}; add --fresh to replace it, or choose another with --out."
        )
    if before.code != origin.code:
        print("  the code that lands and refines the data has changed, so the lake is built anew")
        for layer in REFINED:
            shutil.rmtree(folder / "lake" / layer, ignore_errors=True)
    write_json(record, origin)
