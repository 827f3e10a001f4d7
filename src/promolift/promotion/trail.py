"""Who did what to which model version, when and why: entries that each hold the hash of the one before, and what they add up to.

The chain makes a change of an old entry visible to whoever verifies it (Haber and Stornetta, 1991): an entry's hash covers all of its
fields and the hash before it. It does not stop somebody who can write the table from writing the whole of it anew; whoever keeps the
newest hash elsewhere sees that too.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from promolift.errors import ConflictError, InputError
from promolift.promotion.stages import LIVE, MOVES, Stage

Action = Literal["register", "approve", "refuse", "move", "serve", "pause", "resume", "roll_back"]
GENESIS = "0" * 64
"""What the first entry holds as the hash before it."""


@dataclass(frozen=True)
class Entry:
    """One line of the trail.

    `serve` says that the graph of a stage answers and was probed. `stage_from` and `stage_to` are equal where nothing moved.
    `evidence`: hash of the dossier; `champion`: the version that reigned then; `graph`: hash of the graph that the stage means;
    `detail`: JSON, by action.
    """

    seq: int
    version: str
    model: str
    action: Action
    stage_from: Stage
    stage_to: Stage
    actor: str
    at: datetime
    reason: str
    evidence: str = ""
    champion: str = ""
    graph: str = ""
    detail: str = "{}"
    previous: str = GENESIS
    hash: str = ""

    @property
    def told(self) -> Mapping[str, object]:
        """What `detail` says."""
        found: Mapping[str, object] = json.loads(self.detail)
        return found


@dataclass(frozen=True)
class Standing:
    """Where one version is: its stage, whether it is paused, its newest approval, and its newest entry."""

    version: str
    model: str
    stage: Stage
    paused: bool
    approval: Entry | None
    last: Entry
    wish: Entry | None = None
    """A reviewer's order to roll it back that nobody has carried out yet."""


def digest(entry: Entry) -> str:
    """Hash of everything in the entry but its own hash."""
    fields = {**asdict(entry), "at": _iso(entry.at)}
    del fields["hash"]
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def linked(entry: Entry, before: Entry | None) -> Entry:
    """The entry as the next one after `before`, sealed."""
    placed = replace(entry, seq=before.seq + 1 if before else 1, previous=before.hash if before else GENESIS)
    return replace(placed, hash=digest(placed))


def verify(entries: Iterable[Entry], before: Entry | None = None) -> str:
    """The sentence of the first entry that does not fit what is before it; "" for a sound chain. `before`: verified already."""
    seq, previous = (before.seq, before.hash) if before else (0, GENESIS)
    for entry in entries:
        if entry.seq != seq + 1:
            return f"entry {seq + 1} is missing: after {seq} comes {entry.seq}"
        if entry.previous != previous:
            return f"entry {entry.seq} does not continue entry {seq}: it names another hash"
        if entry.hash != digest(entry):
            return f"entry {entry.seq} was changed after it was written: its hash is another"
        seq, previous = entry.seq, entry.hash
    return ""


def standings(entries: Iterable[Entry], earlier: Mapping[str, Standing] | None = None) -> dict[str, Standing]:
    """Every version's standing, in the order in which they were first told of; `earlier`: what the entries before these add up to."""
    found = dict(earlier) if earlier else {}
    for entry in entries:
        found[entry.version] = _after(found.get(entry.version), entry)
    return found


def _after(earlier: Standing | None, entry: Entry) -> Standing:
    approval, paused, wish = (earlier.approval, earlier.paused, earlier.wish) if earlier else (None, False, None)
    if entry.action in ("pause", "resume"):
        paused = entry.action == "pause"
    if entry.action == "approve":
        approval = entry
    if entry.action == "roll_back":
        wish = entry
    if entry.stage_to in ("rolled_back", "refused", "retired"):
        wish, paused = None, False
    return Standing(entry.version, entry.model, entry.stage_to, paused, approval, entry, wish)


def check(entry: Entry, last: Entry | None, found: Mapping[str, Standing]) -> None:
    """Raises ConflictError for a move that the standing does not allow, InputError for one without actor, reason or a sound clock."""
    if not entry.actor or not entry.reason.strip():
        raise InputError("Every change of a version needs an actor and a reason; say why.")
    if last is not None and entry.at < last.at:
        raise InputError(
            f"The clock says {_iso(entry.at)}, but the trail's last entry is of {_iso(last.at)}; set the clock right. Nothing was changed."
        )
    now = found.get(entry.version)
    if entry.action == "register":
        return
    if now is None:
        raise InputError(f"Version {entry.version} is unknown to the trail; register it by training, or name another with --version.")
    if now.stage != entry.stage_from:
        raise ConflictError(f"Version {entry.version} is {now.stage}, not {entry.stage_from}: somebody else moved it meanwhile.")
    if entry.stage_to != entry.stage_from and entry.stage_to not in MOVES[entry.stage_from]:
        allowed = ", ".join(MOVES[entry.stage_from]) or "nothing"
        raise ConflictError(f"From {entry.stage_from} a version goes to {allowed}, not to {entry.stage_to}.")
    busy = [one.version for one in found.values() if one.stage in LIVE and one.version != entry.version]
    if entry.stage_to in LIVE and busy:
        raise ConflictError(f"Version {busy[0]} is on its way already; one version at a time. Wait for it, or roll it back.")


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")
