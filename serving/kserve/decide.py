"""A served run -> decisions asked of its engine: one explained in words, or many summed up (latency, share of no_promo, errors)."""

import json
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from deltalake import DeltaTable

from promolift.contracts.artifacts import read_source_card
from promolift.contracts.promos import NO_PROMO
from promolift.contracts.tables import FEATURES
from promolift.delta_rows import read_rows
from promolift.errors import InputError, UnavailableError

TIMEOUT_S, LOGGED_S = 10.0, 10.0


@dataclass(frozen=True)
class Question:
    """What to ask: the served run, one shopper or shoppers of the run in turn, how many, as of when, how many at a time."""

    folder: Path
    shopper: str | None = None
    count: int = 1
    moment: str | None = None
    threads: int = 1
    skip: int = 0
    """Shoppers to pass over first: caps count by the moment asked about, so whoever was asked about it before may have theirs already."""


@dataclass(frozen=True)
class Reply:
    """One answer: HTTP status (0: none came), its document, milliseconds as the caller sees them."""

    status: int
    document: dict[str, Any]
    ms: float


def decide(question: Question, as_json: bool) -> int:
    """Ask and print. Exit status 0 when every answer is a decision, 1 otherwise."""
    replies = ask(question)
    summary = summarise(replies)
    explained = explanation(question.folder, replies[-1])
    if as_json:
        print(json.dumps({**summary, "last": explained or replies[-1].document}, indent=2, sort_keys=True))
    else:
        print(readable(replies[-1], explained) if question.count == 1 else _table(summary))
    return 0 if summary["errors"] == 0 else 1


def ask(question: Question) -> list[Reply]:
    """All replies in order. Raises InputError for a wrong question, UnavailableError when nobody serves the run."""
    if question.count < 1 or question.threads < 1 or question.skip < 0:
        given = f"--count is {question.count}, --threads {question.threads} and --skip {question.skip}"
        raise InputError(f"{given}; the first two must be at least 1, --skip at least 0.")
    served, bodies = _served(question.folder), requests(question)
    with _client(served) as client, ThreadPoolExecutor(question.threads) as pool:
        return list(pool.map(lambda body: _post(client, body), bodies))


def explanation(folder: Path, reply: Reply) -> dict[str, Any] | None:
    """The reply's decision as the log explains it ({"text", "envelope"}); None when it does not arrive there in time."""
    if not _decided(reply):
        return None
    deadline = time.monotonic() + LOGGED_S
    with _client(_served(folder)) as client:
        while time.monotonic() < deadline:
            answer = client.get(f"/v1/decisions/{reply.document['decision_id']}")
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
            time.sleep(0.2)
    return None


def _client(served: dict[str, Any]) -> httpx.Client:
    return httpx.Client(base_url=served["url"], headers={"X-API-Key": served["api_key"]}, timeout=TIMEOUT_S)


def summarise(replies: Sequence[Reply]) -> dict[str, Any]:
    """Count, errors, latency (ms), share of no_promo, reasons, promos and what was degraded; an error is any answer without a decision."""
    decisions = [reply.document for reply in replies if _decided(reply)]
    p50, p95, p99 = np.percentile([reply.ms for reply in replies], [50, 95, 99])
    withheld = sum(decision["promo_id"] == NO_PROMO for decision in decisions)
    return {
        "count": len(replies),
        "errors": len(replies) - len(decisions),
        "latency_ms": {"p50": round(float(p50), 2), "p95": round(float(p95), 2), "p99": round(float(p99), 2)},
        "share_no_promo": round(withheld / len(decisions), 4) if decisions else None,
        "reasons": dict(Counter(decision["reasons"][0] for decision in decisions).most_common()),
        "promos": dict(Counter(decision["promo_id"] for decision in decisions).most_common()),
        "degraded": dict(Counter(what for decision in decisions for what in decision["degraded"]).most_common()),
    }


def readable(reply: Reply, explained: dict[str, Any] | None) -> str:
    """One reply for people."""
    if not _decided(reply):
        return f"no decision (HTTP {reply.status}): {json.dumps(reply.document)}"
    words = explained["text"] if explained else f"{json.dumps(reply.document, indent=2)}\nnot in the log yet"
    token = f"\nToken for the till: {reply.document['token']}" if reply.document["token"] else ""
    return f"{words}{token}\nAnswered in {reply.ms:.1f} ms."


def _table(summary: dict[str, Any]) -> str:
    latency = summary["latency_ms"]
    return "\n".join([
        f"{summary['count']} decisions, {summary['errors']} errors",
        f"latency p50 {latency['p50']} ms, p95 {latency['p95']} ms, p99 {latency['p99']} ms",
        f"share of no_promo {summary['share_no_promo']}",
        *(f"  {reason}: {count}" for reason, count in summary["reasons"].items()),
    ])  # fmt: skip


def _served(folder: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads((folder / "serving.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as problem:
        raise UnavailableError(f"Nobody serves {folder}; start it with `python -m serving.kserve serve --run {folder}`.") from problem
    except (OSError, ValueError) as problem:
        raise UnavailableError(
            f"{folder / 'serving.json'} cannot be read ({problem}); stop what serves {folder} and start it again."
        ) from problem
    return document


def requests(question: Question) -> list[dict[str, Any]]:
    """The bodies to post, shoppers of the run in turn. Raises InputError without a table of features to take them from."""
    lake = question.folder / "lake"
    shoppers = [question.shopper] if question.shopper else _shoppers(lake, question.count, question.skip)
    moment = question.moment or _end_of_data(lake)
    return [
        {"request_id": uuid.uuid4().hex, "shopper_id": shoppers[index % len(shoppers)], "moment": moment, "channel": "app"}
        for index in range(question.count)
    ]


def _shoppers(lake: Path, count: int, skip: int) -> list[str]:
    """At most `count` shoppers of the run, evenly spaced over their sorted ids, beginning `skip` further on."""
    path = lake / FEATURES.path
    if not DeltaTable.is_deltatable(str(path)):
        raise InputError(f"There is no table of features at {path} to take shoppers from; give one with --shopper.")
    known = sorted(row["shopper_id"] for row in read_rows(path, ("DISTINCT shopper_id",)))
    places = np.linspace(0, len(known) - 1, min(count, len(known)))
    return [known[(int(place) + skip) % len(known)] for place in places]


def _end_of_data(lake: Path) -> str:
    """The run's own end of data, so that dates in rules and caps mean what they meant then; now, where the run has none."""
    try:
        moment = datetime.fromisoformat(read_source_card(lake).as_of)
    except InputError:
        moment = datetime.now(UTC)
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _post(client: httpx.Client, body: dict[str, Any]) -> Reply:
    started = time.perf_counter()
    try:
        answer = client.post("/v1/decisions", json=body)
        status, document = answer.status_code, answer.json()
    except (httpx.HTTPError, ValueError) as problem:
        status, document = 0, {"error": f"{type(problem).__name__}: {problem}"}
    return Reply(status, document, (time.perf_counter() - started) * 1000)


def _decided(reply: Reply) -> bool:
    return reply.status == 200 and bool(reply.document.get("decision_id"))
