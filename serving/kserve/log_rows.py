"""Entries of the ledger's stream -> rows of the decision log's two tables, `decisions` and `ledger_events`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from arro3.core import Array, DataType, Field, Schema
from arro3.core import Table as ArrowTable

from promolift.contracts.decisions import Decision, Envelope, read_bytes
from promolift.contracts.tables import Dtype, Table

ARROW: dict[Dtype, DataType] = {
    "string": DataType.utf8(), "int64": DataType.int64(), "float64": DataType.float64(), "timestamp": DataType.timestamp("us", tz="UTC"),
}  # fmt: skip
"""Delta's own Arrow (arro3) and not pyarrow, which would be the largest part of the serving image."""
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
Row = dict[str, Any]


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


def arrow_schema(table: Table) -> Schema:
    """The Arrow form of a table of the contract."""
    return Schema([Field(c.name, ARROW[c.dtype], nullable=c.nullable) for c in table.columns])


def arrow_table(table: Table, rows: Sequence[Row]) -> ArrowTable:
    """The rows in Arrow's form; a column that a row lacks is null there."""
    arrays = [_array([row.get(column.name) for row in rows], column.dtype) for column in table.columns]
    return ArrowTable.from_arrays(arrays, schema=arrow_schema(table))


def _array(values: list[Any], dtype: Dtype) -> Array:
    if dtype != "timestamp":
        return Array(values, ARROW[dtype])
    return Array([None if v is None else (v - EPOCH) // MICROSECOND for v in values], DataType.int64()).cast(ARROW[dtype])


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
