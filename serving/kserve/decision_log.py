"""The ledger's stream and the spill file -> the decision log, at least once relayed and each entry once written.

Order of one drain: read, write, acknowledge. A crash between the last two leaves entries pending; they are read again first and only
what is new is written. Entries leave the stream once written. What was answered without the ledger waits in the spill file; the ledger
is told of it, so that it neither holds a budget for what nobody was given nor answers a retry otherwise.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import redis
from deltalake.exceptions import DeltaError

from promolift.contracts.decisions import Decision, Envelope, dump_bytes, read_bytes
from promolift.errors import ConflictError, usable
from promolift.policy.ledger import Change, Ledger
from serving.kserve.constraints import fingerprint
from serving.kserve.log_rows import Rows, rows_of
from serving.kserve.redis_client import connect

GROUP, CONSUMER, BATCH = "decision_log", "relay", 2_000
SUPERSEDED = Change("relay", "the shopper was answered without the ledger")
log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where the log is kept."""

    def write(self, rows: Rows, again: bool) -> None:
        """Keep the rows; `again`: some of them may be kept already. Raises when it cannot be sure that all are."""
        ...


class DecisionLog:
    """Moves what one ledger has in its stream into one sink; the only consumer of the stream."""

    def __init__(self, ledger: Ledger, sink: Sink, spill: Path) -> None:
        self._ledger, self._sink, self._spill = ledger, sink, spill
        try:
            ledger.client.xgroup_create(ledger.stream, GROUP, id="0", mkstream=True)
        except redis.ResponseError as problem:
            if "BUSYGROUP" not in str(problem):
                raise
        self._pending = True

    def drain(self) -> int:
        """Write everything that waits now; returns how many entries were read."""
        self._settle_spill()
        count = self._drain_stream("0") if self._pending else 0
        return count + self._drain_stream(">")

    def _drain_stream(self, start: str) -> int:
        """Batches until none is left; `start` "0" reads what was delivered and never acknowledged, ">" what is new."""
        count, stream = 0, self._ledger.stream
        while answer := self._ledger.client.xreadgroup(GROUP, CONSUMER, {stream: start}, count=BATCH):
            entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]] = answer[0][1]
            if not entries:
                break
            self._pending = True  # until the acknowledgement, whatever fails in between
            rows = rows_of(entries)
            self._keep(rows)
            self._sink.write(rows, again=start == "0")
            identifiers = [identifier for identifier, _ in entries]
            self._ledger.client.xack(stream, GROUP, *identifiers)
            self._ledger.client.xdel(stream, *identifiers)
            self._pending = False
            count += len(entries)
        return count

    def _keep(self, rows: Rows) -> None:
        """A record that cannot be read (cut off by a full disk) is kept beside the spill and holds up no other."""
        for record, problem in rows.unreadable:
            place = self._spill.with_suffix(".unreadable")
            spill_to(place)(record)
            log.warning("A record of the decision log cannot be read and is kept in %s (%s).", place, problem)

    def _settle_spill(self) -> None:
        taken = self._spill.with_suffix(".taken")
        if self._spill.exists() and not taken.exists():
            with self._spill.open("ab") as lines:
                fcntl.flock(lines, fcntl.LOCK_EX)
                self._spill.rename(taken)
        if not taken.exists():
            return
        for line in filter(None, taken.read_bytes().splitlines()):
            self._settle(line)
        taken.unlink()

    def _settle(self, record: bytes) -> None:
        try:
            envelope = read_bytes(Envelope, record)
        except ValueError as problem:
            self._keep(Rows(unreadable=[(record, str(problem))]))
            return
        request, decision = envelope.request, dump_bytes(envelope.decision)
        before = self._ledger.settle(request.request_id, fingerprint(request), decision, record)
        stood = read_bytes(Decision, before) if before else None
        if stood is not None and stood.reservation_id is not None:
            try:
                self._ledger.release(stood.reservation_id, SUPERSEDED)
            except ConflictError as problem:
                log.warning("%s", problem)


def spill_to(path: Path) -> Callable[[bytes], None]:
    """A function that appends one record to a file of lines, for the time without Redis.

    Raises UnavailableError now, rather than at the first record, when the file cannot be written.
    """
    with usable(path, "name another file with --spill"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()

    def spill(record: bytes) -> None:
        with path.open("ab", buffering=0) as lines:
            fcntl.flock(lines, fcntl.LOCK_EX)
            # The relay may have taken the file away between our opening and our lock; what is written then would be lost with it.
            if not path.exists() or path.stat().st_ino != os.fstat(lines.fileno()).st_ino:
                return spill(record)
            lines.write(record + b"\n")
        return None

    return spill


def relay(redis_url: str, sink: Sink, spill: Path, stopped: Callable[[float], bool] | None) -> int:
    """Drain about once a second and return due reservations to the budget, until `stopped(seconds)` is true (None: drain once).

    Returns how many entries were written. Raises UnavailableError when Redis is down at the start; later it waits for its return.
    """
    ledger = Ledger(connect(redis_url, timeout_s=10))
    decision_log = DecisionLog(ledger, sink, spill)
    count, over = 0, False
    while not over:
        over = stopped is None or stopped(1.0)
        try:
            count += decision_log.drain()
            ledger.expire()
        except (redis.RedisError, OSError, DeltaError) as problem:
            log.warning("The decision log could not be written and is tried again (%s: %s).", type(problem).__name__, problem)
    return count
