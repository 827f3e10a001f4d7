"""Entries of the ledger's stream -> rows of the decision log's two tables, `decisions` and `ledger_events`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from promolift.contracts.decisions import Decision, Envelope, read_bytes
from promolift.delta_rows import Row


@dataclass
class Rows:
    """Rows of both tables, and the records that cannot be read, with the reason."""

    decisions: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    unreadable: list[tuple[bytes, str]] = field(default_factory=list)


def rows_of(entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> Rows:
    """The rows of (stream id, fields); an entry without fields was deleted."""
    found = Rows()
    for identifier, fields in entries:
        record = fields.get(b"record", b"")
        if not fields:
            continue
        try:
            if fields.get(b"kind") == b"event":
                found.events.append(event_row(identifier.decode(), record))
            else:
                found.decisions.append(decision_row(identifier.decode(), record, fields.get(b"budgets", b"").decode()))
        except (ValueError, KeyError, TypeError) as problem:
            found.unreadable.append((record, str(problem)))
    return found


def decision_row(identifier: str, record: bytes, budgets: str) -> Row:
    """One row of `decisions`. Raises ValueError for a record that is no decided envelope."""
    envelope = read_bytes(Envelope, record)
    if envelope.decision is None:
        raise ValueError(f"A record of request '{envelope.request.request_id}' in the decision stream has no decision.")
    return {
        **_of_decision(envelope.decision),
        **_of_envelope(envelope),
        "envelope": record.decode(),
        "entry_id": identifier,
        "budgets": budgets,
    }


def event_row(identifier: str, record: bytes) -> Row:
    """One row of `ledger_events`."""
    event = json.loads(record)
    at = datetime.fromtimestamp(event.pop("at_ms") / 1000, UTC)
    return {"event_id": identifier, "at": at, "rate": 0.0, "step": 0.0, **event}


def _of_decision(decision: Decision) -> Row:
    return {
        "decision_id": decision.decision_id, "promo_id": decision.promo_id, "reason": decision.reason, "bucket": decision.bucket,
        "propensity": decision.propensities[decision.promo_id], "expected_profit_cents": decision.expected_value,
        "reserved_cents": decision.reserved_cents,
    }  # fmt: skip


def _of_envelope(envelope: Envelope) -> Row:
    request = envelope.request
    return {
        "request_id": request.request_id, "shopper_id": request.shopper_id, "moment": datetime.fromisoformat(request.moment),
        "model_version": envelope.scores.model_version if envelope.scores else "none", "latency_ms": envelope.timings_ms.get("total", 0.0),
    }  # fmt: skip
