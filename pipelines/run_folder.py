"""The folder of a run and the root of its data (the folder itself, or a prefix in S3): made, locked, kept to one source and seed."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from promolift.contracts.artifacts import json_text
from promolift.errors import InputError
from promolift.locks import held
from promolift.storage import copy, delete, exists, is_remote, read_text, write_text

MADE: tuple[str, ...] = (
    "lake", "truth", "models", "evaluation", "search", "measured_truth", "docs", "champion", "stages", "serving_model", "redis",
    "mlruns", ".kfp", ".users", "logs",
    "mlflow.db", "registry.db", "run.json", "report.html", "summary.json", "pipeline.log", "serving.json", "serving.log",
    "api_keys.json", "token_keys.json", "versions", "rollout", "dossier",
    "undelivered.jsonl", "undelivered.taken", "undelivered.unreadable",
)  # fmt: skip
"""Everything that runs write into their folder; `--fresh` deletes these and nothing else."""
READ_HERE: tuple[str, ...] = (
    "models", "evaluation", "dossier", "measured_truth", "docs", "stages", "champion", "registry.db", "redis",
    "lake/lineage", "lake/landing/source.json",
)  # fmt: skip
"""What a report, a registration and a served model are made from."""
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
def opened(folder: Path, origin: Origin, *, root: str = "", fresh: bool = False) -> Iterator[Path]:
    """Make and lock `folder` for one run of `origin`, yield it resolved. `root`: where its data are, if not in the folder.

    Raises UnavailableError when it cannot be written or another run holds it, InputError when it holds a run of another origin.
    """
    place = folder.resolve()
    taken = f"Another run is at work in {place}; wait for it or choose another folder with --out."
    with held(place / ".lock", "choose another run folder with --out", taken):
        if fresh:
            _empty(place, root or place)
        _claim(root or str(place), origin)
        yield place


def brought(root: str, folder: Path) -> None:
    """Copy what reports and serving read from S3 into the folder; nothing where both are one. Tables stay where they are."""
    if is_remote(root):
        for name in READ_HERE:
            delete(folder / name)
            if exists(f"{root}/{name}"):
                copy(f"{root}/{name}", folder / name)


def _empty(*places: str | Path) -> None:
    for place in places:
        for name in MADE:
            delete(f"{place}/{name}")


def _origin(record: str) -> Origin:
    try:
        return Origin(**json.loads(read_text(record)))
    except (OSError, ValueError, TypeError) as cause:
        raise InputError(
            f"{record} is damaged ({cause}), so nobody knows what the run was made from; add --fresh to replace the run."
        ) from cause


def _claim(root: str, origin: Origin) -> None:
    record = f"{root}/run.json"
    built = exists(record) and exists(f"{root}/lake/silver")
    before = _origin(record) if built else origin
    given = ("source", "content", "seed")
    changed = [
        f"{name} '{getattr(before, name)}' (now '{new}')" for name in given if getattr(before, name) != (new := getattr(origin, name))
    ]
    if changed:
        raise InputError(
            f"The folder {root} holds a run of {' and '.join(changed)}; add --fresh to replace it, or choose another with --out."
        )
    if before.code != origin.code:
        print("  the code that lands and refines the data has changed, so the lake is built anew")
        for layer in REFINED:
            delete(f"{root}/lake/{layer}")
    write_text(record, json_text(origin))
