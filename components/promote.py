"""A version one stage on, or back: approval checked, graph exchanged and probed, guardrails watched, all of it in the trail.

Order of a move: registry's tags, trail, graph, probes, and a word of them in the trail. The trail is what counts: a process that dies in
between leaves the old stage (the tags are set again by the next move) or the new one (the next run brings the graph to where the trail is
and probes it). A move that fails after the trail has it is rolled back by itself. A canary is watched from its probes on: until then the
graph before may have answered.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.promotion_cluster import ClusterTarget
from components.promotion_registry import Registry
from components.promotion_target import RunTarget
from components.promotion_watch import SeenLog, broken, look, record
from promolift.contracts.artifacts import read_manifest, write_json
from promolift.drift.reference import read_reference
from promolift.errors import ConflictError, InputError, PromoliftError
from promolift.promotion.approval import approval_key, need_approval
from promolift.promotion.graph_change import changed, diff, graph_hash, need_exchangeable, window_of
from promolift.promotion.guardrails import Limits, read_limits
from promolift.promotion.stages import PATH, SHARE, Stage, next_stage
from promolift.promotion.trail import Action, Entry, Standing
from promolift.promotion.trail_table import TrailTable
from promolift.settings import load

SHADOW_S = 5.0
"""Between two looks at a shadow, each of which starts a program."""
TOLD_S = 60.0
"""Between two lines of a watch."""
ACTOR = "promotion"


@dataclass(frozen=True)
class Terms:
    """By what a promotion acts: the key of approvals, how long they hold, guardrails, and how long a stage is watched at most."""

    key: str
    days: float
    limits: Limits
    patience_s: float


@dataclass
class Promotion:
    """One version's promotion on one target."""

    target: RunTarget | ClusterTarget
    registry: Registry
    trail: TrailTable
    terms: Terms
    version: str

    def advance(self, to: str) -> bool:
        """Bring the version to the stage `to` and watch it there; whether it may go on. True at once where it is further already.

        Raises ConflictError, InputError or UnavailableError where nothing may move; then nothing has.
        """
        stage = next((one for one in PATH[1:] if one == to), None)
        if stage is None:
            raise InputError(f"A version is promoted to one of {', '.join(PATH[1:])}, not to '{to}'.")
        now = self.standing()
        if now.wish is not None:
            self.roll_back(now.wish.actor, now.wish.reason)
            return False
        self.settle()
        if now.stage not in PATH:
            _say(f"version {self.version} is {now.stage}: it goes nowhere")
            return False
        if PATH.index(now.stage) > PATH.index(stage):
            return True
        if now.stage != stage:
            if not self._may_move(now, stage):
                return False
            self._move(now, stage)
        elif stage in SHARE and self._since(stage).action != "serve":
            self._serve(stage)
        return True if stage == "champion" else self._watch(stage)

    def plan(self) -> str:
        """What the next move would change: stages, approval, and the graph's diff."""
        now = self.standing()
        if now.stage not in PATH[:-1]:
            return f"Version {self.version} is {now.stage}; nothing is to be done."
        stage = next_stage(now.stage)
        graph = self.target.graph()
        lines = [f"Version {self.version} ({now.model}) is {now.stage}; the next stage is {stage}."]
        approval = now.approval
        lines.append(f"Approved up to {approval.told['up_to']} by {approval.actor}." if approval else "Nobody has approved it.")
        return "\n".join([*lines, diff(graph, changed(graph, now.model, stage)) or "The graph stays as it is."])

    def roll_back(self, actor: str, reason: str, detail: dict[str, Any] | None = None) -> None:
        """Send every shopper to the model that served before, and say so in the trail. Raises ConflictError where nothing is to undo."""
        now = self.standing()
        entries = [self._entry(now, "rolled_back", actor, reason, detail=detail)]
        before = self._former() if now.stage == "champion" else None
        if now.stage == "champion" and before is None:
            raise ConflictError(f"Version {self.version} has no predecessor to go back to; promote another one instead.")
        if before is not None:
            entries.append(self._entry(before, "champion", actor, f"back, since {self.version} was rolled back"))
        self.trail.append(*entries)
        self._apply(now, "rolled_back", champion=before)
        self._mirror(entries)
        if before is not None:
            self.registry.crown(before.version)
        _say(f"version {self.version} is rolled back: {reason}")

    def standing(self) -> Standing:
        """Where the version is. Raises InputError for one that the trail does not know."""
        found = self.trail.standings().get(self.version)
        if found is None:
            raise InputError(f"Version {self.version} is unknown to the trail; `status` lists those that it knows.")
        return found

    def settle(self) -> None:
        """Finish what a process that died left: bring graph and tags to where the trail says.

        Raises ConflictError for a graph that is neither the one of the newest move nor the one before it: somebody edited it by hand.
        """
        moves = [entry for entry in self.trail.entries() if entry.graph]
        if not moves:
            return
        standing, newest = graph_hash(self.target.graph()), moves[-1]
        reigns = (self.target.champion().version, self.registry.champion())
        crowned = newest.stage_to != "champion" or reigns == (newest.model, newest.version)
        if standing == newest.graph and crowned:
            return
        if standing not in {entry.graph for entry in moves[-3:]}:  # the newest move has at most two entries, then the one before it
            raise ConflictError(
                f"The graph was edited by hand: it is {standing[:12]}, the trail's last move left {newest.graph[:12]}. Restore "
                f"{self.target.where} from the trail's stage, or roll the version back. Nothing was moved."
            )
        now = self.trail.standings()[newest.version]
        _say(f"an earlier promotion ended in the middle: bringing version {now.version} to {now.stage}")
        self._apply(now, now.stage)
        if now.stage == "champion":
            self.registry.crown(now.version)

    def _may_move(self, now: Standing, stage: Stage) -> bool:
        if now.paused:
            _say(f"version {self.version} is paused by {now.last.actor}: {now.last.reason}")
            return False
        evidence = self.registry.evidence(self.version)
        moment, key, days = datetime.now(UTC), self.terms.key, self.terms.days
        up_to = need_approval(now, evidence, self.registry.champion(), now=moment, key=key, days=days)
        if PATH.index(stage) > PATH.index(up_to):
            _say(f"version {self.version} is approved up to {up_to}; a reviewer's approval of {stage} is needed to go on")
            return False
        folder = self.registry.model(self.version)
        model = read_manifest(folder)
        need_exchangeable(self.target.champion(), model)
        read_reference(folder, model.version)  # a detector that is given another model's does not start
        return True

    def _move(self, now: Standing, stage: Stage) -> None:
        reason = f"approved by {now.approval.actor}" if now.approval else "approved"
        former = self.trail.standings().get(self.registry.champion()) if stage == "champion" else None
        entries: list[Entry] = []
        if former is not None and former.stage == "champion":
            entries.append(self._entry(former, "retired", ACTOR, f"version {self.version} took its place"))
        entries.append(self._entry(now, stage, ACTOR, reason))  # last: `settle` looks at the newest
        self.target.served()
        self._mirror(entries)
        self.trail.append(*entries)
        with self._or_back(stage):
            self._apply(now, stage)
            if stage == "champion":
                self.registry.crown(self.version)
        if stage == "shadow":
            _say(f"version {self.version} is shadow: it serves nobody")
        else:
            self._serve(stage)

    def _serve(self, stage: Stage) -> None:
        """Probe the stage's graph; the trail then says since when shoppers meet it."""
        now = self.standing()
        with self._or_back(stage):
            probed = self.target.probe(window_of(now.model, stage), self.target.champion().version, now.model)
        self.trail.append(self._entry(now, stage, ACTOR, probed, action="serve"))
        _say(f"version {self.version} is {stage}: {probed}")

    @contextmanager
    def _or_back(self, stage: Stage) -> Iterator[None]:
        """What fails in here takes the version back."""
        try:
            yield
        except (PromoliftError, OSError) as problem:
            self.roll_back(ACTOR, f"the move to {stage} failed: {problem}")
            raise

    def _mirror(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.registry.mirror(entry.version, entry.stage_to)

    def _apply(self, now: Standing, stage: Stage, champion: Standing | None = None) -> None:
        graph = changed(self.target.graph(), now.model, stage)
        model = self.registry.model(now.version) if stage in SHARE or stage == "champion" else None
        crowned = model if stage == "champion" else self.registry.model(champion.version) if champion else None
        self.target.put(graph, model if stage in SHARE else None, crowned)

    def _watch(self, stage: Stage) -> bool:
        """Look at the stage until its horizon; false when it was rolled back, or patience ended before. A pause only holds it."""
        horizon, began = self.terms.limits.stages[stage], self._since(stage).at  # type: ignore[index]
        deadline = time.monotonic() + self.terms.patience_s if self.terms.patience_s else float("inf")
        window, told = window_of(self.standing().model, stage), time.monotonic()
        log = SeenLog(self.target.lake, began, window, self.target.salt) if window else None
        while True:
            now = self.standing()
            if now.wish is not None:
                self.roll_back(now.wish.actor, now.wish.reason)
                return False
            count = self._look(stage, log, horizon.decisions) if log else self._shadow()
            if count is None:
                return False
            hours = (datetime.now(UTC) - began).total_seconds() / 3600
            if count >= horizon.decisions and hours >= horizon.hours and not now.paused:
                _say(f"version {self.version} has seen {count} decisions as {stage}, and no guardrail is broken")
                return True
            if time.monotonic() > told + TOLD_S:
                _say(f"version {self.version} is {stage}: {count} of {horizon.decisions} decisions, {hours:.1f} of {horizon.hours:g} h")
                told = time.monotonic()
            if time.monotonic() > deadline:
                seen = f"{count} of {horizon.decisions} decisions, {hours:.1f} of {horizon.hours:g} h"
                _say(f"version {self.version} stays {stage}: {seen}; the same command goes on watching")
                return False
            time.sleep(self.target.look_s if log else SHADOW_S)

    def _shadow(self) -> int:
        """Have the candidate answer what was logged; how many decisions it has answered."""
        model, most = self.registry.model(self.version), 2 * self.terms.limits.stages["shadow"].decisions
        found = self.target.shadow(model, most)
        write_json(self._report("shadow"), found)
        return int(found["decisions"])

    def _look(self, stage: Stage, log: SeenLog, planned: int) -> int | None:
        """One look at the guardrails: the canary's decisions so far, or None when one is broken and the version rolled back."""
        rows = log.read()
        shadow = json.loads(self._report("shadow").read_text(encoding="utf-8")) if self._report("shadow").exists() else {}
        guards = look(rows, log.window, self.terms.limits, shadow, planned)
        inside = sum(row.canary for row in rows)
        report = record(guards, inside, len(rows) - inside) | {"stage": stage, "at": datetime.now(UTC).isoformat(), "pace": log.pace()}
        write_json(self._report("guardrails"), report)
        if wrong := broken(guards):
            self.roll_back("guardrails", f"{wrong[0].name}: {wrong[0].detail}", {"guards": [asdict(guard) for guard in guards]})
            return None
        return inside

    def _report(self, name: str) -> Path:
        return self.target.folder / "rollout" / f"{name}-{self.version}.json"

    def _since(self, stage: Stage) -> Entry:
        """The entry since which the version is in the stage: the one that says that it is served, once there is one."""
        entries = self.trail.history(self.version)
        return next(e for e in reversed(entries) if e.stage_to == stage and (e.action == "serve" or e.stage_from != stage))

    def _former(self) -> Standing | None:
        """The version that this one replaced."""
        found = self.trail.standings()
        retired = [e for e in self.trail.entries() if e.stage_to == "retired" and found[e.version].stage == "retired"]
        return found[retired[-1].version] if retired else None

    def _entry(
        self, now: Standing, stage: Stage, actor: str, reason: str, *, action: Action = "move", detail: dict[str, Any] | None = None
    ) -> Entry:  # fmt: skip
        graph = graph_hash(changed(self.target.graph(), now.model, stage)) if action == "move" else ""
        text = json.dumps(detail or {}, sort_keys=True, default=str)
        made = Entry(0, now.version, now.model, action, now.stage, stage, actor, datetime.now(UTC), reason, graph=graph, detail=text)
        return replace(made, evidence=now.last.evidence, champion=self.registry.champion())


def _say(line: str) -> None:
    print(line, flush=True)


def promotion(
    folder: str, mlflow_uri: str, model_name: str, version: str, *, guardrails: str = "", patience_s: float = 0.0, context: str = ""
) -> Promotion:  # fmt: skip
    """The promotion of one version on what serves a run folder, or on its deployment in a kube `context`, by this process' settings."""
    settings, place = load(), Path(folder).resolve()
    limits = read_limits(Path(guardrails)) if guardrails else read_limits()
    terms = Terms(approval_key(place, settings), settings.approval_days, limits, patience_s)
    registry = Registry(mlflow_uri or f"sqlite:///{place / 'mlflow.db'}", model_name, place / "rollout" / "registry")
    target = ClusterTarget(place, context) if context else RunTarget(place, settings.hash_salt)
    return Promotion(target, registry, TrailTable(place / "lake"), terms, version)
