"""What the detector says of the champion, and what its lake knows -> whether to train again; and what came of it, linked to the cause."""

import json
import urllib.error
import urllib.request
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from promolift.contracts.artifacts import read_manifest, read_verdict
from promolift.contracts.tables import EVERYBODY, EXAMPLES, LIFT
from promolift.delta_rows import read_rows
from promolift.drift.reference import JSON
from promolift.drift.retraining import EVERYTHING, POLICY, Cause, InService, Measured, Retrainings, begun_in, due, read_policy
from promolift.errors import InputError, UnavailableError
from promolift.promotion.dossier import dossier_hash
from promolift.promotion.trail_table import TrailTable
from promolift.storage import exists, read_text

TIMEOUT_S = 10.0


def decide(served: str, detector: str, policy: str, root: str, at: str = "") -> dict[str, Any]:
    """Decide, and note a training that begins. Returns {"due", "reason", "cause"}; `at`: now, ISO 8601, "" for the clock.

    `served`: folder of the served run, or its place in S3; `detector`: URL, "" for none (schedule and labels only); `root`: where the
    training is kept. One that was begun there and has not ended goes on. Raises InputError where nothing is served or a moment is none,
    UnavailableError when the detector does not answer.
    """
    now, champion = _moment(at), _champion(f"{served}/lake")
    table = Retrainings(f"{served}/lake")
    past = table.rows()
    if unfinished := begun_in(root, past):
        print(f"retraining of {unfinished.model}: goes on, {unfinished.reason}", flush=True)
        return {"due": True, "reason": unfinished.reason, "cause": vars(unfinished)}
    model = _in_service(served, champion, detector)
    cause, reason = due(model, past, read_policy(Path(policy) if policy else POLICY), now)
    print(f"retraining of {champion}: {'begins' if cause else 'no'}, {reason}", flush=True)
    if cause:
        table.begin(cause, root, now)
    return {"due": cause is not None, "reason": reason, "cause": vars(cause) if cause else None}


def link(served: str, cause: dict[str, Any], root: str, at: str, *, registered: bool) -> dict[str, Any]:
    """Note what came of a training whose files are at `at`: the candidate with its dossier, or that the gate refused. Returns that."""
    candidate, evidence, folder = "", "", Path(at)
    if registered:
        candidate = read_manifest(folder / "models" / read_verdict(folder / "evaluation" / "verdict.json").chosen).version
        evidence = dossier_hash(folder / "dossier")
    Retrainings(f"{served}/lake").end(Cause(**cause), root, datetime.now(UTC), candidate=candidate, dossier=evidence)
    return {"cause": cause["id"], "candidate": candidate, "dossier": evidence}


def _moment(at: str) -> datetime:
    try:
        found = datetime.fromisoformat(at) if at else datetime.now(UTC)
    except ValueError as problem:
        raise InputError(f"--at is '{at}', which is no moment; write it as 2026-11-29T12:00:00Z.") from problem
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _champion(lake: str) -> str:
    reigning = [standing.model for standing in TrailTable(lake).standings().values() if standing.stage == "champion"]
    if not reigning:
        raise InputError(f"No version is champion in the trail of {lake}; train one first.")
    return reigning[-1]


def _in_service(served: str, model: str, detector: str) -> InService:
    examples = f"{served}/lake/{EXAMPLES.path}"
    newest = read_rows(examples, ["max(window_end) AS newest"])[0]["newest"]
    if newest is None:
        raise InputError(f"'{examples}' has no closed label; build the data set first.")
    looks = _asked(f"{detector.rstrip('/')}/v1/versions/{quote(model)}/looks").get("looks", ()) if detector else ()
    measured = _lift(f"{served}/lake", model)
    earned, paid = (_beside_predicted(measured, metric) for metric in ("profit_cents", "cost_cents"))
    return InService(model, looks, _trained_to(served, model) or newest.date(), newest.date(), earned, paid)


def _lift(lake: str, model: str) -> dict[str, dict[str, Any]]:
    """Rows of gold/lift by metric, of the model's policy (EVERYTHING), then of each promo that it gave; {} before the first `make lift`."""
    if not exists(f"{lake}/{LIFT.path}/_delta_log"):
        return {}
    where = f"WHERE experiment = 'decisions' AND segment = '{EVERYBODY}' AND method = 'cuped'"
    found: dict[str, dict[str, Any]] = {}
    for row in read_rows(f"{lake}/{LIFT.path}", ("contrast", "bucket", "arm", "metric", "effect", "error"), where):
        if (row["contrast"], row["arm"]) == ("model", model):
            found.setdefault(EVERYTHING, {})[row["metric"]] = row
        if (row["contrast"], row["bucket"]) == ("model_arm", model):
            found.setdefault(row["arm"], {})[row["metric"]] = row
    return dict(sorted(found.items(), key=lambda item: (item[0] != EVERYTHING, item[0])))


def _beside_predicted(lift: dict[str, dict[str, Any]], metric: str) -> dict[str, Measured]:
    both = {name: of for name, of in lift.items() if {metric, f"predicted_{metric}"} <= of.keys()}
    return {name: Measured(of[metric]["effect"], of[metric]["error"], of[f"predicted_{metric}"]["effect"]) for name, of in both.items()}


def _trained_to(served: str, model: str) -> date | None:
    """Last day of the model's training, by its reference; None where the run has none of this very model."""
    try:
        reference = json.loads(read_text(f"{served}/models/{model.rpartition('-')[0]}/{JSON}"))
    except FileNotFoundError:
        return None
    return date.fromisoformat(reference["period"][1]) if reference["version"] == model else None


def _asked(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 (the URL is the operator's)
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as problem:
        if problem.code == 404:  # no event has named the model yet
            return {}
        raise UnavailableError(f"The detector answers {problem.code} at {url}; look at its log.") from problem
    except (OSError, ValueError) as problem:
        raise UnavailableError(f"The detector does not answer at {url} ({problem}); start it, or leave --detector out.") from problem
