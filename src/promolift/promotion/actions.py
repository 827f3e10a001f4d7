"""What people do to a version: approve, refuse, pause, resume, roll back. Page, API and command line act through here, and nowhere else."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from promolift.errors import ConflictError, InputError
from promolift.promotion.approval import Person, need_other, signed
from promolift.promotion.dossier import dossier_hash
from promolift.promotion.stages import LIVE, MOVES, Stage
from promolift.promotion.trail import Action, Entry, Standing
from promolift.promotion.trail_table import TrailTable
from promolift.storage import Place, copy

DOSSIERS = "serving/dossiers"
"""Below a lake: one folder a version."""


def acts_for(now: Standing) -> tuple[Action, ...]:
    """What a reviewer may do with a version of this standing."""
    if now.stage in LIVE:
        held: tuple[Action, ...] = ("resume",) if now.paused else ("pause",)
        early: tuple[Action, ...] = ("refuse",) if "refused" in MOVES[now.stage] else ()
        return ("approve", *early, *held, "roll_back")
    of_stage: dict[Stage, tuple[Action, ...]] = {"candidate": ("approve", "refuse"), "champion": ("roll_back",)}
    return of_stage.get(now.stage, ())


def dossier_place(lake: Place, version: str) -> str:
    """Where a version's dossier lies in the lake."""
    return f"{lake}/{DOSSIERS}/{version}"


@dataclass
class Review:
    """Acts of people on the trail of one lake; `key` signs approvals."""

    lake: Place
    trail: TrailTable
    key: str
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def standing(self, version: str) -> Standing:
        """Where the version is. Raises InputError for one that the trail does not know."""
        found = self.trail.standings().get(version)
        if found is None:
            raise InputError(f"Version '{version}' is unknown; the list of candidates has those that training registered.")
        return found

    def author(self, version: str) -> str:
        """Who registered the version."""
        return next(e.actor for e in self.trail.history(version) if e.action == "register")

    def champion(self) -> str:
        """The version that reigns; "" for none."""
        return next((v for v, standing in self.trail.standings().items() if standing.stage == "champion"), "")

    def approve(self, person: Person, version: str, reason: str, up_to: Stage, evidence: str) -> Entry:
        """Approve it up to a stage. `evidence`: the hash of what the approver has read.

        Raises ConflictError without the role, for the author himself, for other evidence than the dossier's; InputError without a reason.
        """
        now = self._allowed(person, version, "approve")
        need_other(person, self.author(version))
        if (found := self.evidence(version)) != evidence or found != now.last.evidence:
            raise ConflictError(f"The evidence of version {version} is {found[:12]}, not the {evidence[:12]} that you read; read it again.")
        entry = self._entry(now, "approve", now.stage, person, reason)
        return self._append(signed(entry, up_to, self.key))

    def refuse(self, person: Person, version: str, reason: str) -> Entry:
        """Refuse a candidate, or one in shadow."""
        return self._act(person, version, "refuse", reason, "refused")

    def pause(self, person: Person, version: str, reason: str) -> Entry:
        """Let it go no further; guardrails go on watching."""
        return self._act(person, version, "pause", reason)

    def resume(self, person: Person, version: str, reason: str) -> Entry:
        """Let it go on."""
        return self._act(person, version, "resume", reason)

    def roll_back(self, person: Person, version: str, reason: str) -> Entry:
        """Order it back; whoever runs the promotion carries it out at its next look."""
        return self._act(person, version, "roll_back", reason)

    def evidence(self, version: str) -> str:
        """The hash of the dossier as it lies in the lake now. Raises InputError when it was changed."""
        with TemporaryDirectory() as folder:
            place = dossier_place(self.lake, version)
            copy(place, Path(folder) / "dossier")
            return dossier_hash(Path(folder) / "dossier", place)

    def _allowed(self, person: Person, version: str, action: Action) -> Standing:
        """Where the version is. Raises ConflictError where this person may not do that to it."""
        person.need("reviewer")
        now, word = self.standing(version), action.replace("_", " ")
        if action not in acts_for(now):
            can = ", ".join(acts_for(now)).replace("_", " ") or "nothing"
            raise ConflictError(f"Version {version} is {now.stage}: {word} is not for it; possible: {can}.")
        return now

    def _act(self, person: Person, version: str, action: Action, reason: str, stage: Stage | None = None) -> Entry:
        now = self._allowed(person, version, action)
        return self._append(self._entry(now, action, stage or now.stage, person, reason))

    def _entry(self, now: Standing, action: Action, stage: Stage, person: Person, reason: str) -> Entry:
        made = Entry(0, now.version, now.model, action, now.stage, stage, person.name, self.now(), reason.strip())
        return replace(made, evidence=now.last.evidence, champion=self.champion())

    def _append(self, entry: Entry) -> Entry:
        return self.trail.append(entry)[0]
