"""Answers given without the ledger -> a file of lines; a file of lines -> the ledger told of them, once it is back.

The ledger is told so that it neither holds a budget for what nobody was given nor answers a retry otherwise.
"""

import fcntl
import logging
import os
from collections.abc import Callable
from pathlib import Path

import redis

from promolift.contracts.decisions import Decision, Envelope, dump_bytes, read_bytes
from promolift.errors import ConflictError, usable
from promolift.policy.ledger import Change, Ledger
from serving.kserve.constraints import fingerprint
from serving.kserve.redis_client import connect

SUPERSEDED = Change("relay", "the shopper was answered without the ledger")
EVERY_S = 1.0
Stopped = Callable[[float], bool] | None
"""Waits so many seconds and says whether to end; None: look once."""
log = logging.getLogger(__name__)


class Spool:
    """The file of one pod or run, with the ledger that is to hear of it; one process settles it."""

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self._path, self._ledger = path, ledger

    def settle(self) -> None:
        """Tell the ledger of every record and delete the file. Raises redis.RedisError; what was not told is told the next time."""
        taken = self._path.with_suffix(".taken")
        if self._path.exists() and not taken.exists():
            with self._path.open("ab") as lines:
                fcntl.flock(lines, fcntl.LOCK_EX)
                self._path.rename(taken)
        if not taken.exists():
            return
        for line in filter(None, taken.read_bytes().splitlines()):
            self._settle(line)
        taken.unlink()

    def put_aside(self, record: bytes, problem: str) -> None:
        """A record that cannot be read (cut off by a full disk) is kept beside the file and holds up no other."""
        place = self._path.with_suffix(".unreadable")
        spill_to(place)(record)
        log.warning("A record of the decision log cannot be read and is kept in %s (%s).", place, problem)

    def _settle(self, record: bytes) -> None:
        try:
            envelope = read_bytes(Envelope, record)
        except ValueError as problem:
            self.put_aside(record, str(problem))
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


def settle(redis_url: str, spill: Path, stopped: Stopped, alive: Path | None = None) -> None:
    """Settle the spool about once a second; `alive` is touched each time. A Redis that is away is waited for."""
    spool = Spool(spill, Ledger(connect(redis_url, timeout_s=10)))
    repeat(spool.settle, stopped, alive, redis.RedisError, OSError)


def repeat(work: Callable[[], object], stopped: Stopped, alive: Path | None, *passing: type[Exception]) -> None:
    """Do the work about once a second until stopped, a last time then; what is in `passing` is logged and tried again."""
    over = False
    while not over:
        over = stopped is None or stopped(EVERY_S)
        try:
            work()
        except passing as problem:
            log.warning("What waits for Redis or the log could not be moved and is tried again (%s: %s).", type(problem).__name__, problem)
        if alive is not None:
            alive.touch()
