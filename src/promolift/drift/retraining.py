"""Looks, labels and time -> whether a model is trained again, and for which cause; one cause starts one training.

A cause is named by what it is about (an alarm by the first day of its episode), so the same alarm seen again tomorrow, or after a training
that brought no better model, is the same cause. What stops a training that is due, a cool-down or a budget, is said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Any, Literal

from deltalake import CommitProperties, write_deltalake
from deltalake.exceptions import DeltaError
from pydantic import Field

from promolift.contracts.tables import RETRAININGS
from promolift.delta_rows import Row, arrow_table, created, selected
from promolift.errors import ConflictError, UnavailableError
from promolift.storage import Place
from promolift.yaml_file import read_yaml

POLICY = Path(__file__).with_suffix(".yaml")
Kind = Literal["alarm", "outcomes", "schedule", "labels"]
Status = Literal["begun", "registered", "refused"]
DECISIVE = frozenset({"score", "choice"})
"""Kinds of columns whose drift is one of decisions itself."""
BUDGET_DAYS = 30
EVERYTHING = "a decision"
"""The whole policy, as it is called in a reason."""
SURE = 0.95
"""That none of the measured profits and costs is too far from what was predicted by chance (Bonferroni)."""


@dataclass(frozen=True)
class Policy:
    """The numbers of retraining.yaml, which says what each of them means."""

    confirm: Annotated[int, Field(ge=1)]
    changed: Annotated[float, Field(ge=0, le=1)]
    cool_down_days: Annotated[float, Field(ge=0)]
    most_a_month: Annotated[int, Field(ge=0)]
    least_share: Annotated[float, Field(ge=0, le=1)]
    schedule_days: Annotated[int, Field(ge=1)]
    unseen_days: Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Cause:
    """Why a training begins. `id` is the same for as long as the cause is."""

    id: str
    kind: Kind
    model: str
    reason: str


@dataclass(frozen=True)
class Measured:
    """Cents of a decision: measured with their standard error, and what the model had predicted."""

    effect: float
    error: float
    predicted: float


@dataclass(frozen=True)
class InService:
    """What is known of the model in service: its looks, oldest first, the last day of its training, and of labels that are closed now.

    `earned`, `paid`: profit and promo cost that were measured beside what was predicted, by whose they are: EVERYTHING for the policy
    against the holdout, else the promo among randomised decisions; empty where nothing was measured yet.
    """

    name: str
    looks: Sequence[Mapping[str, Any]]
    trained_to: date
    labels_to: date
    earned: Mapping[str, Measured] = field(default_factory=dict)
    paid: Mapping[str, Measured] = field(default_factory=dict)


def read_policy(path: Path = POLICY) -> Policy:
    """The policy. Raises InputError with file and line for a missing, unknown or impossible number."""
    file = read_yaml(path, "Retraining policy", "--policy")
    policy: Policy = file.checked(Policy, file.mapping(), "")
    return policy


def due(model: InService, past: Sequence[Row], policy: Policy, now: datetime) -> tuple[Cause | None, str]:
    """The cause to train for now, or None with a sentence that says why not."""
    causes = [
        cause for cause in (_alarm(model, policy), _outcomes(model, policy), _labels(model, policy), _schedule(model, policy, now)) if cause
    ]
    if not causes:
        return None, "nothing to train for: no confirmed alarm that matters, profit as predicted, no labels enough, not yet time"
    done = {row["cause"] for row in past}
    new = [cause for cause in causes if cause.id not in done]
    if not new:
        return None, f"{causes[0].reason}; a training was begun for it already"
    begun = sorted(row["at"] for row in past if row["status"] == "begun")
    if begun and now - begun[-1] < timedelta(days=policy.cool_down_days):
        return None, f"{new[0].reason}; the last training began {begun[-1]:%Y-%m-%d}, cool-down is {policy.cool_down_days:g} days"
    month = [at for at in begun if now - at < timedelta(days=BUDGET_DAYS)]
    if len(month) >= policy.most_a_month:
        return None, f"{new[0].reason}; {len(month)} trainings in {BUDGET_DAYS} days are the budget"
    return new[0], new[0].reason


def begun_in(root: str, past: Sequence[Row]) -> Cause | None:
    """The cause of the training that was begun in `root` and has not ended, for one that died."""
    ended = {row["cause"] for row in past if row["status"] != "begun"}
    begun = [row for row in past if row["root"] == root and row["cause"] not in ended]
    return Cause(*(begun[-1][name] for name in ("cause", "kind", "model", "reason"))) if begun else None


def _alarm(model: InService, policy: Policy) -> Cause | None:
    """The running episode of alarms, once the same column has alarmed in enough looks and changes enough decisions."""
    episode = _episode(model.looks)
    if len(episode) < policy.confirm:
        return None
    last = episode[-policy.confirm :]
    confirmed = set.intersection(*({_about(finding) for finding in look["findings"]} for look in last))
    decisive = [f for f in last[-1]["findings"] if _about(f) in confirmed and _matters(f, policy)]
    if not decisive:
        return None
    since, column, segment = episode[0]["day"], *_about(decisive[0])
    reason = f"'{column}' has drifted{f' in {segment}' if segment else ''} since {since}: {decisive[0]['most']}"
    return Cause(f"alarm:{model.name}:{since}", "alarm", model.name, reason)


def _about(finding: Mapping[str, Any]) -> tuple[str, str]:
    return finding["column"], finding.get("segment", "")


def _episode(looks: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The newest looks for as long as each found drift, oldest first; days without enough rows neither end nor lengthen it."""
    told = [look for look in looks if look["status"] != "too few rows"]
    start = next((place for place in range(len(told), 0, -1) if told[place - 1]["status"] != "drift"), 0)
    return told[start:]


def _matters(finding: Mapping[str, Any], policy: Policy) -> bool:
    impact = finding.get("impact")
    return finding["kind"] in DECISIVE or bool(impact and impact["changed"] >= policy.changed)


def _outcomes(model: InService, policy: Policy) -> Cause | None:
    """Calibration of effects and of the response that is paid for, in the large: the policy's first, then each promo's.

    A single cause a model: the greatest of many predictions is too high a little, always.
    """
    count = len(model.earned) + len(model.paid)
    if not count:
        return None
    z = NormalDist().inv_cdf(1 - (1 - SURE) / 2 / count)
    for whose, of in model.earned.items():
        if (most := of.effect + z * of.error) < policy.least_share * of.predicted:
            reason = f"{_whose(whose)} brought {most:.1f} cents at most where {of.predicted:.1f} were predicted"
            return Cause(f"outcomes:{model.name}", "outcomes", model.name, reason)
    for whose, of in model.paid.items():
        if policy.least_share * (least := of.effect - z * of.error) > of.predicted:
            reason = f"{_whose(whose)} cost {least:.1f} cents at least where {of.predicted:.1f} were predicted"
            return Cause(f"outcomes:{model.name}", "outcomes", model.name, reason)
    return None


def _whose(name: str) -> str:
    return name if name == EVERYTHING else f"a decision with {name}"


def _labels(model: InService, policy: Policy) -> Cause | None:
    unseen = (model.labels_to - model.trained_to).days
    if unseen < policy.unseen_days:
        return None
    times = unseen // policy.unseen_days
    return Cause(f"labels:{model.name}:{times}", "labels", model.name, f"{unseen} days of closed labels are newer than the model")


def _schedule(model: InService, policy: Policy, now: datetime) -> Cause | None:
    age = (now.date() - model.trained_to).days
    if age < policy.schedule_days:
        return None
    times = age // policy.schedule_days
    return Cause(f"schedule:{model.name}:{times}", "schedule", model.name, f"training ends {age} days ago")


class Retrainings:
    """The table of causes and trainings of one lake; of two that begin for one cause at the same moment one is refused."""

    def __init__(self, lake: Place) -> None:
        self._lake = lake

    def rows(self) -> Sequence[Row]:
        """Every row, oldest first. Raises UnavailableError when the table cannot be read."""
        try:
            names = [column.name for column in RETRAININGS.columns]
            return selected(created(self._lake, RETRAININGS), names, "ORDER BY at")
        except (DeltaError, OSError) as problem:
            raise UnavailableError(f"The table of retrainings of {self._lake} cannot be read ({problem}).") from problem

    def begin(self, cause: Cause, root: str, now: datetime) -> None:
        """Note that a training begins. Raises ConflictError where one has begun for this cause, or begins in this moment."""
        table = created(self._lake, RETRAININGS)
        if selected(table, ["cause"], f"WHERE cause = '{cause.id}'"):
            raise ConflictError(f"A training was begun for {cause.id} already; nothing was started.")
        self._write(table, self._row(cause, now, "begun", root))

    def end(self, cause: Cause, root: str, now: datetime, *, candidate: str = "", dossier: str = "") -> None:
        """Note what came of it: a registered candidate with the hash of its dossier, or, without one, that the gate refused."""
        status: Status = "registered" if candidate else "refused"
        row = self._row(cause, now, status, root) | {"candidate": candidate, "dossier": dossier}
        self._write(created(self._lake, RETRAININGS), row)

    @staticmethod
    def _row(cause: Cause, now: datetime, status: Status, root: str) -> Row:
        about = {"cause": cause.id, "kind": cause.kind, "model": cause.model, "reason": cause.reason}
        return {**about, "at": now.astimezone(UTC), "status": status, "root": root, "candidate": "", "dossier": ""}

    def _write(self, table: Any, row: Row) -> None:
        try:
            once = CommitProperties(max_commit_retries=0)
            write_deltalake(table, arrow_table(RETRAININGS, [row]), mode="append", commit_properties=once)
        except (DeltaError, OSError) as problem:
            if "Failed to commit" in str(problem):
                raise ConflictError("Somebody else noted a training in this moment; look again. Nothing was started.") from problem
            raise UnavailableError(f"The table of retrainings of {self._lake} cannot be written ({problem}).") from problem
