"""The ledger's stream and the spool -> the decision log, at least once relayed and each entry once written.

Order of one drain: read, write, acknowledge. A crash between the last two leaves entries pending; they are read again first and only
what is new is written. Entries leave the stream once written.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import redis
from deltalake.exceptions import DeltaError

from promolift.policy.ledger import Ledger
from serving.kserve.log_rows import Rows, rows_of
from serving.kserve.redis_client import connect
from serving.kserve.spool import Spool, Stopped, repeat

log = logging.getLogger(__name__)
GROUP, CONSUMER, BATCH, BATCHES = "decision_log", "relay", 2_000, 10
"""A running relay looks up after so many batches, to say that it is alive and to give expired reservations back."""


class Sink(Protocol):
    """Where the log is kept."""

    def write(self, rows: Rows, again: bool) -> None:
        """Keep the rows; `again`: some of them may be kept already. Raises when it cannot be sure that all are."""
        ...


class DecisionLog:
    """Moves what one ledger has in its stream into one sink; the only consumer of the stream."""

    def __init__(self, ledger: Ledger, sink: Sink, spill: Path) -> None:
        self._ledger, self._sink, self._spool = ledger, sink, Spool(spill, ledger)
        self._join()
        self._pending = True

    def _join(self) -> None:
        """Make the group of readers unless it is there."""
        try:
            self._ledger.client.xgroup_create(self._ledger.stream, GROUP, id="0", mkstream=True)
        except redis.ResponseError as problem:
            if "BUSYGROUP" not in str(problem):
                raise

    def drain(self, most: int | None = None) -> int:
        """Write everything that waits now, or so many batches of it; returns how many entries were read."""
        self._spool.settle()
        try:
            count = self._drain_stream("0", None) if self._pending else 0
            return count + self._drain_stream(">", most)
        except redis.ResponseError as problem:
            if "NOGROUP" not in str(problem):
                raise
            log.warning("Redis has lost its stream of decisions; a new one is read from its beginning.")
            self._join()
            return 0

    def _drain_stream(self, start: str, most: int | None) -> int:
        """Batches until one is not full; `start` "0" reads what was delivered and never acknowledged, ">" what is new.

        Under steady traffic something new has always come while a batch was written: whoever waits for an empty stream never returns.
        """
        count, stream, full = 0, self._ledger.stream, True
        while full and most != 0 and (answer := self._ledger.client.xreadgroup(GROUP, CONSUMER, {stream: start}, count=BATCH)):
            entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]] = answer[0][1]
            if not entries:
                break
            full, most = len(entries) == BATCH, None if most is None else most - 1
            self._pending = True  # until the acknowledgement, whatever fails in between
            rows = rows_of(entries)
            for record, problem in rows.unreadable:
                self._spool.put_aside(record, problem)
            self._sink.write(rows, again=start == "0")
            identifiers = [identifier for identifier, _ in entries]
            self._ledger.client.xack(stream, GROUP, *identifiers)
            self._ledger.client.xdel(stream, *identifiers)
            self._pending = False
            count += len(entries)
        return count


def relay(redis_url: str, sink: Sink, spill: Path, stopped: Stopped, alive: Path | None = None) -> int:
    """Drain about once a second and return due reservations to the budget, until `stopped(seconds)` is true (None: drain once).

    Returns how many entries were written. Raises UnavailableError when Redis is down at the start; later it waits for its return.
    """
    ledger = Ledger(connect(redis_url, timeout_s=10))
    decision_log = DecisionLog(ledger, sink, spill)
    count = 0

    def work() -> None:
        nonlocal count
        count += decision_log.drain(None if stopped is None else BATCHES)
        ledger.expire()

    repeat(work, stopped, alive, redis.RedisError, OSError, DeltaError)
    return count
