"""A folder of evidence -> its manifest of hashes and the one hash that names it; and whether it is still what was approved."""

import hashlib
import json
from pathlib import Path

from promolift.contracts.artifacts import write_json
from promolift.errors import InputError

MANIFEST = "dossier.json"


def seal(folder: Path) -> str:
    """Write the manifest of every file in the folder; returns the dossier's hash."""
    write_json(folder / MANIFEST, {"files": _hashes(folder)})
    return dossier_hash(folder)


def dossier_hash(folder: Path, place: str = "") -> str:
    """Hash of the manifest. Raises InputError where a file is missing, added or changed since it was sealed.

    `place`: what the error calls the folder, where it is a copy.
    """
    place = place or str(folder)
    try:
        content = (folder / MANIFEST).read_bytes()
        said: dict[str, str] = json.loads(content)["files"]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise InputError(f"{place} is no dossier ({problem}); train and register the candidate again.") from problem
    found = _hashes(folder)
    wrong = sorted(name for name in {*said, *found} if said.get(name) != found.get(name))
    if wrong:
        raise InputError(f"Evidence '{wrong[0]}' of the dossier {place} was changed after it was sealed; register the candidate again.")
    return hashlib.sha256(content).hexdigest()


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name != MANIFEST)
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
