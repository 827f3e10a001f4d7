"""The ledger's stream and the spill file -> the Delta table `decisions`, each decision exactly once.

Order of one drain: read, commit to Delta, acknowledge. A crash between the last two leaves entries pending; they are read again
first and merged by decision_id, so they are not written twice. Fresh entries are appended. Entries leave the stream once written.
"""

import json
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import redis
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from promolift.contracts.decisions import Decision, Envelope, read_envelope
from promolift.contracts.tables import DECISIONS, Dtype
from promolift.errors import usable
from promolift.policy.ledger import Ledger
from serving.kserve.redis_client import connect

GROUP, CONSUMER, BATCH = "decision_log", "relay", 2_000
COMPACT_EVERY = 200
"""Commits between two compactions: a commit a second leaves as many small files."""
ARROW: dict[Dtype, pa.DataType] = {
    "string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "timestamp": pa.timestamp("us", tz="UTC"),
}  # fmt: skip
SCHEMA = pa.schema([pa.field(c.name, ARROW[c.dtype], nullable=c.nullable) for c in DECISIONS.columns])
log = logging.getLogger(__name__)


class DecisionLog:
    """Moves records of one ledger into one Delta table; the only consumer of its stream."""

    def __init__(self, client: Any, stream: str, table: Path, spill: Path) -> None:
        self._client, self._stream, self._spill = client, stream, spill
        try:
            client.xgroup_create(stream, GROUP, id="0", mkstream=True)
        except redis.ResponseError as problem:
            if "BUSYGROUP" not in str(problem):
                raise
        with usable(table, "name another place with --table", DeltaError):
            table.parent.mkdir(parents=True, exist_ok=True)
            self._table = DeltaTable.create(str(table), SCHEMA, mode="ignore", name=DECISIONS.name, description=DECISIONS.doc)
        self._pending = True

    def drain(self) -> int:
        """Write everything that waits now; returns how many records were read."""
        count = self._drain_spill()
        if self._pending:
            count += self._drain_stream("0", self._merge)
        return count + self._drain_stream(">", self._append)

    def _drain_stream(self, start: str, write: Callable[[Sequence[dict[str, Any]]], None]) -> int:
        """Batches until none is left; `start` "0" reads what was delivered and never acknowledged, ">" what is new."""
        count = 0
        while answer := self._client.xreadgroup(GROUP, CONSUMER, {self._stream: start}, count=BATCH):
            entries = answer[0][1]
            if not entries:
                break
            self._pending = True  # until the acknowledgement, whatever fails in between
            write(self._readable([fields[b"record"] for _, fields in entries if fields]))
            identifiers = [identifier for identifier, _ in entries]
            self._client.xack(self._stream, GROUP, *identifiers)
            self._client.xdel(self._stream, *identifiers)
            self._pending = False
            count += len(entries)
        return count

    def _readable(self, records: Sequence[bytes]) -> list[dict[str, Any]]:
        """The rows of the records. One that cannot be read (cut off by a full disk) is kept beside the spill and holds up no other."""
        rows = []
        for record in records:
            try:
                rows.append(_row(record))
            except (ValueError, KeyError) as problem:
                place = self._spill.with_suffix(".unreadable")
                spill_to(place)(record)
                log.warning("A record of the decision log cannot be read and is kept in %s (%s).", place, problem)
        return rows

    def _append(self, rows: Sequence[dict[str, Any]]) -> None:
        self._table.update_incremental()
        write_deltalake(self._table, _arrow(rows), mode="append")
        if self._table.version() % COMPACT_EVERY == 0:
            self._table.optimize.compact()

    def _merge(self, rows: Sequence[dict[str, Any]]) -> None:
        self._table.update_incremental()
        unique = {row["decision_id"]: row for row in rows}
        merge = self._table.merge(
            _arrow(list(unique.values())), "t.decision_id = s.decision_id", source_alias="s", target_alias="t"
        )  # fmt: skip
        merge.when_not_matched_insert_all().execute()

    def _drain_spill(self) -> int:
        taken = self._spill.with_suffix(".taken")
        if self._spill.exists() and not taken.exists():
            self._spill.rename(taken)
        if not taken.exists():
            return 0
        rows = self._readable([line for line in taken.read_bytes().splitlines() if line])
        if rows:
            self._merge(rows)
        taken.unlink()
        return len(rows)


def spill_to(path: Path) -> Callable[[bytes], None]:
    """A function that appends one record to a file of lines, for the time without Redis.

    Raises UnavailableError now, rather than at the first record, when the file cannot be written.
    """
    with usable(path, "name another file with --spill"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()

    def spill(record: bytes) -> None:
        with path.open("ab") as lines:
            lines.write(record + b"\n")

    return spill


def relay(redis_url: str, table: Path, spill: Path, stopped: Callable[[float], bool] | None) -> int:
    """Drain about once a second and return due reservations to the budget, until `stopped(seconds)` is true (None: drain once).

    Returns how many records were written. Raises UnavailableError when Redis is down at the start; later it waits for its return.
    """
    client = connect(redis_url, timeout_s=10)
    ledger = Ledger(client)
    decision_log = DecisionLog(client, ledger.stream, table, spill)
    count, over = 0, False
    while not over:
        over = stopped is None or stopped(1.0)
        try:
            count += decision_log.drain()
            ledger.expire()
        except (redis.RedisError, OSError, DeltaError) as problem:
            log.warning("The decision log could not be written and is tried again (%s: %s).", type(problem).__name__, problem)
    return count


def read_decisions(table: Path) -> list[Envelope]:
    """Every logged envelope, for explaining and replaying."""
    column = DeltaTable(str(table)).to_pyarrow_table(columns=["envelope"]).column("envelope")
    return [read_envelope(json.loads(text)) for text in column.to_pylist()]


def _arrow(rows: Sequence[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def _row(record: bytes) -> dict[str, Any]:
    envelope = read_envelope(json.loads(record))
    if envelope.decision is None:
        raise ValueError(f"A record of request '{envelope.request.request_id}' in the decision stream has no decision.")
    return {**_of_decision(envelope.decision), **_of_envelope(envelope), "envelope": record.decode()}


def _of_decision(decision: Decision) -> dict[str, Any]:
    return {
        "decision_id": decision.decision_id, "promo_id": decision.promo_id, "reason": decision.reason, "bucket": decision.bucket,
        "propensity": decision.propensities[decision.promo_id], "expected_profit_cents": decision.expected_value,
        "reserved_cents": decision.reserved_cents,
    }  # fmt: skip


def _of_envelope(envelope: Envelope) -> dict[str, Any]:
    request = envelope.request
    return {
        "request_id": request.request_id, "shopper_id": request.shopper_id, "moment": datetime.fromisoformat(request.moment),
        "model_version": envelope.scores.model_version if envelope.scores else "none", "latency_ms": envelope.timings_ms.get("total", 0.0),
    }  # fmt: skip
