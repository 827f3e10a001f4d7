"""The decision log in a lake and a ledger in Redis -> whether they agree, or an empty ledger filled from the log."""

from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from promolift.contracts.decisions import Envelope, read_bytes
from promolift.contracts.tables import DECISIONS, LEDGER_EVENTS
from promolift.delta_rows import read_rows
from promolift.errors import InputError
from promolift.policy.ledger import Budget, Ledger
from promolift.policy.rebuild import Books, Event, books, differences, in_order
from promolift.policy.rebuild import rebuild as refill
from serving.kserve.constraints import fingerprint
from serving.kserve.log_rows import rows_of
from serving.kserve.redis_client import connect

EVENT = ("event", "reservation_id", "budget", "cents", "rate", "step")


def reconcile(lake: Path, redis_url: str, *, rebuild: bool) -> int:
    """Print what was found; exit status 1 when ledger and log differ. Raises UnavailableError without Redis."""
    ledger = Ledger(connect(redis_url, timeout_s=10))
    if rebuild:
        found = read_books(lake, {}, None)
        count = refill(ledger, found, {name: fingerprint(envelope.request) for name, envelope in found.standing.items()})
        print(f"the ledger knows {count} decisions again")
    held, waiting, last = snapshot(ledger)
    lines = differences(read_books(lake, waiting, last), held)
    for line in lines:
        print(line)
    print(f"{len(held)} budgets reconciled with the log: {len(lines)} differences")
    return 1 if lines else 0


def snapshot(ledger: Ledger) -> tuple[dict[str, Budget], dict[str, tuple[bytes, Any]], str | None]:
    """Budgets, what waits in the stream by entry id, and the last entry that either knows of: all of one moment."""
    names = sorted(name.decode() for name in ledger.client.smembers(ledger.key("budgets")))
    pipe = ledger.client.pipeline(transaction=True)
    for name in names:
        pipe.hmget(ledger.key("budget", name), "total", "committed", "reserved")
    pipe.xrange(ledger.stream)
    pipe.xinfo_stream(ledger.stream)
    *rows, entries, stream = pipe.execute(raise_on_error=False)
    last = None if isinstance(stream, Exception) else stream["last-generated-id"].decode()
    entries = [] if isinstance(entries, Exception) else entries
    held = {name: Budget(*(int(value or 0) for value in row)) for name, row in zip(names, rows, strict=True)}
    return held, {identifier.decode(): (identifier, fields) for identifier, fields in entries}, last


def read_books(lake: Path, waiting: dict[str, tuple[bytes, Any]], last: str | None) -> Books:
    """The books of the lake's log and of what waits, up to the entry `last`. Raises InputError when there is no log."""
    table = lake / DECISIONS.path
    if not DeltaTable.is_deltatable(str(table)):
        raise InputError(f"There is no decision log at {table}; name the folder of a run that was served with --run.")
    decisions = read_rows(table, ("entry_id", "envelope"))
    events = read_rows(lake / LEDGER_EVENTS.path, ("event_id", *EVENT))
    rows = rows_of(list(waiting.values()))
    envelopes = {row["entry_id"]: row["envelope"] for row in (*decisions, *rows.decisions)}
    happened = {row["event_id"]: Event(*(row[name] for name in EVENT)) for row in (*events, *rows.events)}
    read: list[tuple[str, Envelope]] = [(name, read_bytes(Envelope, text.encode())) for name, text in envelopes.items()]
    return books(in_order(read, last), in_order(list(happened.items()), last))
