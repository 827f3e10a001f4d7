"""What the detector says of the champion, and what its lake knows -> whether to train again; and what came of it, linked to the cause."""

import json
import urllib.error
import urllib.request
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from promolift.contracts.artifacts import read_manifest, read_verdict
from promolift.contracts.tables import EXAMPLES
from promolift.delta_rows import read_rows
from promolift.drift.retraining import POLICY, Cause, Retrainings, Watched, begun_in, due, read_policy
from promolift.errors import InputError, UnavailableError
from promolift.promotion.dossier import dossier_hash
from promolift.promotion.trail_table import TrailTable

TIMEOUT_S = 10.0


def decide(served: str, detector: str, policy: str, root: str, at: str = "") -> dict[str, Any]:
    """Decide, and note a training that begins. Returns {"due", "reason", "cause"}; `at`: now, ISO 8601, "" for the clock.

    `served`: folder of the served run, or its place in S3; `detector`: URL, "" for none (schedule and labels only); `root`: where the
    training is kept. One that was begun there and has not ended goes on. Raises InputError where nothing is served or a moment is none,
    UnavailableError when the detector does not answer.
    """
    now, lake = _moment(at), f"{served}/lake"
    table = Retrainings(lake)
    past = table.rows()
    if unfinished := begun_in(root, past):
        print(f"retraining of {unfinished.model}: goes on, {unfinished.reason}", flush=True)
        return {"due": True, "reason": unfinished.reason, "cause": vars(unfinished)}
    watched = _watched(lake, detector)
    cause, reason = due(watched, past, read_policy(Path(policy) if policy else POLICY), now)
    print(f"retraining of {watched.model}: {'begins' if cause else 'no'}, {reason}", flush=True)
    if cause:
        table.begin(cause, root, now)
    return {"due": cause is not None, "reason": reason, "cause": vars(cause) if cause else None}


def link(served: str, cause: dict[str, Any], root: str, at: str, *, registered: bool) -> dict[str, Any]:
    """Note what came of a training whose files are at `at`: the candidate with its dossier, or that the gate refused. Returns that."""
    candidate, evidence, folder = "", "", Path(at)
    if registered:
        candidate = read_manifest(folder / "models" / read_verdict(folder / "evaluation" / "verdict.json").chosen).version
        evidence = dossier_hash(folder / "dossier")
    Retrainings(f"{served}/lake").end(Cause(**cause), root, candidate, evidence, datetime.now(UTC))
    return {"cause": cause["id"], "candidate": candidate, "dossier": evidence}


def _moment(at: str) -> datetime:
    try:
        found = datetime.fromisoformat(at) if at else datetime.now(UTC)
    except ValueError as problem:
        raise InputError(f"--at is '{at}', which is no moment; write it as 2026-11-29T12:00:00Z.") from problem
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _watched(lake: str, detector: str) -> Watched:
    reigning = [standing for standing in TrailTable(lake).standings().values() if standing.stage == "champion"]
    if not reigning:
        raise InputError(f"No version is champion in the trail of {lake}; train one first.")
    model = reigning[-1].model
    newest = max((row["window_end"] for row in read_rows(f"{lake}/{EXAMPLES.path}", ["window_end"])), default=None)
    if newest is None:
        raise InputError(f"'{lake}/{EXAMPLES.path}' has no closed label; build the data set first.")
    if not detector:
        return Watched(model, (), newest.date(), newest.date())
    answer = _asked(f"{detector.rstrip('/')}/v1/versions/{quote(model)}")
    if "trained_to" not in answer:
        return Watched(model, (), newest.date(), newest.date())
    looks = _asked(f"{detector.rstrip('/')}/v1/versions/{quote(model)}/looks")["looks"]
    return Watched(model, looks, date.fromisoformat(answer["trained_to"]), newest.date())


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
