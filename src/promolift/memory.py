"""A running process -> the most memory that the programs it started held at one moment, sampled while they ran (Linux: /proc).

Resident set sizes of a tree count a shared page once for each process; the proportional set size (PSS, Linux
Documentation/filesystems/proc.rst) divides it among its holders, so that the sum over the tree is what the tree really occupies.
A JVM that a child started is in the sum, unlike in `getrusage(RUSAGE_CHILDREN)`, which knows only the largest single process.
"""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

EVERY_S = 0.2
_KIB_A_GIB = 1024**2


class PeakMemory:
    """Samples all descendants of this process every EVERY_S seconds until the block ends; a shorter peak may be missed."""

    def __init__(self) -> None:
        self._peak_kib = 0
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="peak-memory", daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def take(self) -> float:
        """GiB at the highest sample since the last call; the next call starts from nothing."""
        with self._lock:
            peak, self._peak_kib = self._peak_kib, 0
        return peak / _KIB_A_GIB

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            total = sum(map(held_kib, descendants(os.getpid())))
            with self._lock:
                self._peak_kib = max(self._peak_kib, total)


def descendants(pid: int) -> Iterator[int]:
    """Every process below `pid`; one that ends meanwhile is left out."""
    for thread in _threads(pid):
        for child in map(int, _read(Path(f"/proc/{pid}/task/{thread}/children")).split()):
            yield child
            yield from descendants(child)


def _threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 (names are all that is wanted)
    except (FileNotFoundError, ProcessLookupError):
        return []


def held_kib(pid: int) -> int:
    """Proportional set size of one process in KiB; 0 once it has ended."""
    lines = _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _read(path: Path) -> str:
    """The file's text, empty when its process has ended (an entry of /proc can vanish between opening and reading)."""
    try:
        return path.read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return ""
