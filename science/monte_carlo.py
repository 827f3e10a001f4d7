"""Counts of simulated worlds -> exact binomial limits: what a rate of so many worlds says of the true rate."""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, TypeVar

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
"""Variables of the libraries that would each start a thread a core in every process."""
S = TypeVar("S")
T = TypeVar("T")


def log_terms(trials: int, rate: float) -> list[float]:
    """Log of the binomial probability of 0..`trials` events, 0 < rate < 1."""
    size = math.lgamma(trials + 1)
    return [
        size - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * math.log(rate) + (trials - k) * math.log1p(-rate)
        for k in range(trials + 1)
    ]


def at_most(count: int, trials: int, rate: float) -> float:
    """P(X <= count) of the binomial distribution."""
    if rate <= 0 or count >= trials:
        return 1.0
    return 0.0 if rate >= 1 else min(1.0, math.fsum(math.exp(t) for t in log_terms(trials, rate)[: count + 1]))


def largest_usual(trials: int, rate: float, level: float = 0.95) -> int:
    """The least count that is not exceeded with probability `level` when the true rate is `rate`."""
    total = 0.0
    for count, term in enumerate(log_terms(trials, rate)):
        total += math.exp(term)
        if total >= level:
            return count
    return trials


def exact_interval(count: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided interval of the true rate (Clopper and Pearson, 1934), by bisection."""
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else _root(lambda rate: at_most(count - 1, trials, rate) - (1 - tail))
    high = 1.0 if count == trials else _root(lambda rate: at_most(count, trials, rate) - tail)
    return low, high


def _root(falling: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return 0.5 * (low + high)


@dataclass(frozen=True)
class Share:
    """`count` of `worlds`, with its rate and exact 95 % interval."""

    count: int
    worlds: int

    @property
    def interval(self) -> tuple[float, float]:
        """Exact 95 % interval of the true rate."""
        return exact_interval(self.count, self.worlds)

    def record(self) -> dict[str, Any]:
        """Flat form for JSON."""
        interval = [round(end, 4) for end in self.interval]
        return {"count": self.count, "worlds": self.worlds, "rate": self.count / self.worlds, "interval": interval}


def over_cores(measured: Callable[[S], T], units: Sequence[S], name: str, called: str = "worlds") -> Iterator[T]:
    """`measured` of each unit in their order, one process of one thread a core; both can be pickled. Says on stderr how far it is."""
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))  # the processes inherit it before they load a library
    start, step = time.monotonic(), max(1, len(units) // 10)
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for number, found in enumerate(pool.map(measured, units, chunksize=5), start=1):
            if number % step == 0:
                print(f"{name}: {number} of {len(units)} {called}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
            yield found
