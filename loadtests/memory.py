"""Process ids by name -> the memory that each held while it was under load, and how much it grew (PSS, see promolift.memory)."""

import threading
from collections.abc import Mapping
from statistics import median
from types import TracebackType
from typing import Any

from promolift.memory import held_kib

EVERY_S = 1.0


class Memory:
    """Samples the processes every EVERY_S seconds until the block ends."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._held: dict[str, list[float]] = {name: [] for name in pids}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            for name, pid in self._pids.items():
                if kib := held_kib(pid):  # 0 once it has ended
                    self._held[name].append(kib / 1024)

    def found(self) -> dict[str, Any]:
        """MiB: the most of any process, the most that one grew, and both of each."""
        each = {name: {"most": round(max(held)), "growth": round(growth(held), 1)} for name, held in self._held.items() if held}
        most, grew = (max((figures[key] for figures in each.values()), default=0) for key in ("most", "growth"))
        return {"node_mib": most, "growth_mib": grew, "memory_mib": each}


def growth(held: list[float]) -> float:
    """Median of the last quarter less that of the second one: the first warms up."""
    quarter = len(held) // 4
    return median(held[-quarter:]) - median(held[quarter : 2 * quarter]) if quarter else 0.0
