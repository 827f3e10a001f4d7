"""A file of named keys, of which only hashes are kept: the engine's API keys and the reviewers' tokens."""

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from promolift.contracts.artifacts import write_json
from promolift.errors import InputError


@dataclass(frozen=True)
class Holder:
    """Whose key it is, and what it allows."""

    name: str
    grants: frozenset[str]


@dataclass(frozen=True)
class KeyFile:
    """`allowed`: grants that there are; `word`: what errors call one; `command`: what writes the file."""

    path: Path
    allowed: Sequence[str]
    word: str
    command: str

    def add(self, name: str, grants: list[str]) -> str:
        """A new key for `name`, shown once. Raises InputError for an unknown grant, or a name that has a key."""
        unknown = [grant for grant in grants if grant not in self.allowed]
        if unknown or not grants:
            raise InputError(f"{self.word} '{''.join(unknown[:1])}' is unknown; give one or more of {', '.join(self.allowed)}.")
        document = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {"keys": []}
        if any(entry["name"] == name for entry in document["keys"]):
            raise InputError(f"'{name}' has a key in {self.path}; delete its entry first, or choose another name.")
        key = secrets.token_urlsafe(32)
        document["keys"].append({"name": name, "scopes": grants, "sha256": hash_of(key)})
        write_json(self.path, document)
        return key

    def read(self) -> dict[str, Holder]:
        """Holders by the hash of their key. Raises InputError for a file that cannot be used."""
        try:
            entries = json.loads(self.path.read_text(encoding="utf-8"))["keys"]
            return {str(entry["sha256"]): Holder(str(entry["name"]), frozenset(entry["scopes"])) for entry in entries}
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise InputError(f"The file of keys {self.path} cannot be used ({problem}); write it with `{self.command}`.") from problem


def hash_of(key: str) -> str:
    """What the file keeps of a key. Random keys of 256 bits need no slow hash."""
    return hashlib.sha256(key.encode()).hexdigest()
