"""Rows of the decision log -> Delta tables `decisions` and `ledger_events` in one lake, each row once.

A lake is a folder or an s3:// address, whose endpoint and keys are in the environment (AWS_*).
"""

from collections.abc import Sequence
from pathlib import Path

from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from promolift.contracts.decisions import Envelope, read_bytes
from promolift.contracts.tables import DECISIONS, LEDGER_EVENTS, Table
from promolift.delta_rows import Row, arrow_table, created, read_rows
from promolift.errors import usable
from serving.kserve.log_rows import Rows

Lake = Path | str
COMPACT_EVERY = 200
"""Commits between two compactions: a commit a second leaves as many small files."""


class DeltaLog:
    """The log of one lake. Raises UnavailableError when it cannot be written."""

    def __init__(self, lake: Lake) -> None:
        self._tables = {table.name: _opened(lake, table) for table in (DECISIONS, LEDGER_EVENTS)}

    def write(self, rows: Rows, again: bool) -> None:
        """Append the rows; `again`: some may have been written before, so only what is new is."""
        for table, found in ((DECISIONS, rows.decisions), (LEDGER_EVENTS, rows.events)):
            if found:
                (self._merge if again else self._append)(table, found)

    def _append(self, table: Table, rows: Sequence[Row]) -> None:
        delta = self._tables[table.name]
        delta.update_incremental()
        write_deltalake(delta, arrow_table(table, rows), mode="append")
        if delta.version() % COMPACT_EVERY == 0:
            delta.optimize.compact()

    def _merge(self, table: Table, rows: Sequence[Row]) -> None:
        delta, (key,) = self._tables[table.name], table.key
        delta.update_incremental()
        unique = arrow_table(table, list({row[key]: row for row in rows}.values()))
        delta.merge(unique, f"t.{key} = s.{key}", source_alias="s", target_alias="t").when_not_matched_insert_all().execute()


def read_decisions(lake: Lake, decision_id: str | None = None) -> list[Envelope]:
    """Every logged envelope, or that of one decision."""
    where = "" if decision_id is None else "WHERE decision_id = '" + decision_id.replace("'", "''") + "'"
    return [read_bytes(Envelope, row["envelope"].encode()) for row in read_rows(f"{lake}/{DECISIONS.path}", ("envelope",), where)]


def _opened(lake: Lake, table: Table) -> DeltaTable:
    with usable(f"{lake}/{table.path}", "name another place with --lake", DeltaError):
        return created(lake, table)
