"""The trail in its Delta table: append-only, one writer wins.

Delta's commit is the lock: a version of the table is made once, so of two that append after the same entry one is refused. An append
that was refused, or a process that died before, leaves the trail as it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from promolift.contracts.tables import PROMOTIONS
from promolift.delta_rows import Row, arrow_table, created, selected
from promolift.errors import ConflictError, PromoliftError, UnavailableError
from promolift.promotion.trail import Entry, Standing, check, linked, standings, verify
from promolift.storage import Place, is_remote

COMPACT_EVERY = 200
NAMES = tuple(field.name for field in fields(Entry))


class TrailTable:
    """The trail of one lake, read once and from then on only what is new; verified as it is read."""

    def __init__(self, lake: Place) -> None:
        self._lake, self._place = lake, f"{lake}/{PROMOTIONS.path}"
        self._entries: list[Entry] = []
        self._standings: dict[str, Standing] = {}
        self._histories: dict[str, list[Entry]] = {}
        self._version = -1
        self._table: DeltaTable | None = None

    def entries(self) -> Sequence[Entry]:
        """All entries in order. Raises PromoliftError for a broken chain, UnavailableError when the table cannot be read."""
        try:
            self._read()
        except (DeltaError, OSError) as problem:
            raise UnavailableError(f"The trail of promotions {self._place} cannot be read ({problem}); nothing was changed.") from problem
        return self._entries

    def standings(self) -> Mapping[str, Standing]:
        """Every version's standing. Raises as `entries` does."""
        self.entries()
        return self._standings

    def history(self, version: str) -> Sequence[Entry]:
        """The entries of one version. Raises as `entries` does."""
        self.entries()
        return self._histories.get(version, [])

    def _read(self) -> None:
        if self._table is None:
            if not is_remote(self._place) and not DeltaTable.is_deltatable(self._place):
                return
            self._table = created(self._lake, PROMOTIONS)
        self._table.update_incremental()
        if self._table.version() == self._version:
            return
        last = self._entries[-1] if self._entries else None
        new = [Entry(**row) for row in selected(self._table, NAMES, f"WHERE seq > {last.seq if last else 0} ORDER BY seq")]
        if wrong := verify(new, last):
            raise PromoliftError(f"The trail of promotions {self._place} is broken: {wrong}. Nothing is moved until somebody has looked.")
        self._entries += new
        self._standings = standings(new, self._standings)
        for entry in new:
            self._histories.setdefault(entry.version, []).append(entry)
        self._version = self._table.version()

    def append(self, *entries: Entry) -> Sequence[Entry]:
        """Check and add entries in one commit; returns them as they were written.

        Raises ConflictError for a move that the trail does not allow or that another one came before, InputError, UnavailableError.
        """
        known = self.entries()
        last, found, sealed = known[-1] if known else None, self._standings, list[Entry]()
        for entry in entries:
            check(entry, last, found)
            last = linked(entry, last)
            found = standings([last], found)
            sealed.append(last)
        self._write([asdict(entry) for entry in sealed])
        return sealed

    def _write(self, rows: Sequence[Row]) -> None:
        try:
            if self._table is None:
                self._table = created(self._lake, PROMOTIONS)
                self._table.update_incremental()
            once = CommitProperties(max_commit_retries=0)
            write_deltalake(self._table, arrow_table(PROMOTIONS, rows), mode="append", commit_properties=once)
            if self._table.version() % COMPACT_EVERY == 0:
                self._table.optimize.compact()
        except DeltaError as problem:
            self._table = None
            if "Failed to commit" in str(problem):
                raise ConflictError("Somebody else changed the trail in this moment; look at it again. Nothing was changed.") from problem
            raise self._unwritten(problem) from problem
        except OSError as problem:
            raise self._unwritten(problem) from problem

    def _unwritten(self, problem: Exception) -> UnavailableError:
        return UnavailableError(f"The trail of promotions {self._place} cannot be written ({problem}); nothing was changed.")
