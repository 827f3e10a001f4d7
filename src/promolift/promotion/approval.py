"""Who may do what to a version, and the signed approval that a promotion acts on.

The signature is an HMAC-SHA256 over what was approved, under the key of PROMOLIFT_APPROVAL_KEY that the reviewer's page and the promotion
share: an entry that somebody writes into the table without the key approves nothing.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, get_args

from promolift.errors import ConflictError, InputError, usable
from promolift.promotion.stages import PATH, Stage
from promolift.promotion.trail import Entry, Standing
from promolift.settings import Settings

Role = Literal["viewer", "author", "reviewer"]
ROLES: tuple[Role, ...] = get_args(Role)
LEAST_KEY_BYTES = 32


@dataclass(frozen=True)
class Person:
    """Who acts, and as what."""

    name: str
    roles: frozenset[str]

    def need(self, role: Role) -> None:
        """Raises ConflictError without the role."""
        if role not in self.roles:
            raise ConflictError(f"'{self.name}' is no {role}, so nothing was changed; ask somebody who is.")


def need_other(person: Person, author: str) -> None:
    """Raises ConflictError when the approver trained the candidate."""
    if person.name == author:
        raise ConflictError(f"'{person.name}' is the author of this version, and nobody approves his own; ask another reviewer.")


def signed(entry: Entry, up_to: Stage, key: str) -> Entry:
    """The approval with its detail: how far it goes, and the signature. Raises InputError for a short key or a stage off the path."""
    if up_to not in PATH[1:]:
        raise InputError(f"An approval reaches one of {', '.join(PATH[1:])}, not '{up_to}'.")
    detail = {"up_to": up_to, "signature": _signature(entry, up_to, key)}
    return replace(entry, detail=json.dumps(detail, sort_keys=True))


def need_approval(standing: Standing, evidence: str, champion: str, *, now: datetime, key: str, days: float) -> Stage:
    """How far the version may go. Raises ConflictError: not approved, changed evidence, another champion, too old, or a bad signature."""
    entry = standing.approval
    if entry is None:
        raise ConflictError(f"Version {standing.version} is not approved; a reviewer approves it on the page or with `approve`.")
    told: Mapping[str, object] = entry.told
    up_to: Stage = told.get("up_to")  # type: ignore[assignment] # compared below
    if up_to not in PATH or not hmac.compare_digest(str(told.get("signature", "")), _signature(entry, up_to, key)):
        raise ConflictError(f"The approval of version {standing.version} (entry {entry.seq}) is not signed with our key; approve it again.")
    if entry.evidence != evidence:
        raise ConflictError(
            f"The evidence of version {standing.version} changed after its approval ({entry.evidence[:12]}, now {evidence[:12]}); "
            "read it again and approve it again."
        )
    if entry.champion != champion:
        raise ConflictError(
            f"Version {standing.version} was approved against champion {entry.champion or 'none'}, but {champion or 'none'} reigns now; "
            "compare them anew and approve it again."
        )
    if now - entry.at > timedelta(days=days):
        raise ConflictError(f"The approval of version {standing.version} is older than {days:g} days; approve it again.")
    return up_to


def _signature(entry: Entry, up_to: Stage, key: str) -> str:
    if len(key.encode()) < LEAST_KEY_BYTES:
        raise InputError(f"PROMOLIFT_APPROVAL_KEY must have {LEAST_KEY_BYTES} bytes or more; the page and the promotion share it.")
    parts = [entry.version, entry.model, entry.evidence, entry.champion, entry.actor, entry.at.isoformat(timespec="microseconds"), up_to]
    return hmac.new(key.encode(), json.dumps(parts).encode(), hashlib.sha256).hexdigest()


def approval_key(folder: Path, settings: Settings) -> str:
    """The key of PROMOLIFT_APPROVAL_KEY; for a run folder without one, a key of its own that stays with it. Raises UnavailableError."""
    given = settings.approval_key.get_secret_value()
    path = folder / "rollout" / "approval_key"
    with usable(path, "set PROMOLIFT_APPROVAL_KEY instead"):
        if not given and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(0o600)
            path.write_text(secrets.token_urlsafe(32), encoding="utf-8")
        return given or path.read_text(encoding="utf-8")
