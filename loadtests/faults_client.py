"""`python -m loadtests.faults_client`: one caller of the ledger that is meant to be killed at any moment.

It writes down what was acknowledged to it, one line an answer, before it asks again: a line is cut off only by its own death.
"""

import argparse
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from promolift.errors import ConflictError, UnavailableError
from promolift.policy.constraints import Standing
from promolift.policy.ledger import Change, Ledger, Order, Proposal
from promolift.policy.ledger_arms import Arm

KEEP_S = 120
ARMS = (Arm("big", 700), Arm("small", 200))
LIFE_MS = (300, 3_000)


class Caller:
    """Sends reservations with duplicates, and commits or releases some of what it was granted."""

    def __init__(self, url: str, journal: Path, seed: int, skew_ms: int) -> None:
        self._client = redis.Redis.from_url(url, socket_timeout=5, retry=Retry(NoBackoff(), 0))
        self._ledger = Ledger(self._client, keep_s=KEEP_S)
        self._journal = journal.open("a", buffering=1, encoding="ascii")
        self._draws = random.Random(seed)  # noqa: S311 (a test's dice)
        self._skew = skew_ms
        self._recent: deque[str] = deque(maxlen=50)
        self._name, self._count = f"{seed:x}", 0

    def run(self, most: int) -> None:
        """Until `most` answers, or death."""
        for _ in range(most):
            request_id = self._request_id()
            granted = self._insist(request_id)
            self._journal.write(f"{request_id} {granted.decode()}\n")
            if granted != b"none" and self._draws.random() < 0.4:
                self._end(request_id, 700 if granted == b"big" else 200)

    def _request_id(self) -> str:
        """A new one; or, one time in eight, one that was sent before: a duplicate."""
        if self._recent and self._draws.random() < 0.125:
            return self._draws.choice(self._recent)
        self._count += 1
        self._recent.append(f"{self._name}-{self._count}")
        return self._recent[-1]

    def _insist(self, request_id: str) -> bytes:
        """The decision, however often Redis dies meanwhile: a retry with the same id."""
        expires = int(time.time() * 1000) + self._skew + self._draws.randrange(*LIFE_MS)
        order = Order(request_id, f"res-{request_id}", "f", request_id, 1_000_000, expires)
        while True:
            try:
                return self._ledger.decide(order, ARMS, _choose(request_id)).decision
            except (redis.RedisError, UnavailableError):
                time.sleep(0.02)

    def _end(self, request_id: str, cents: int) -> None:
        reservation = f"res-{request_id}"
        try:
            if self._draws.random() < 0.1:
                self._ledger.release(reservation, Change("faults", "drawn"))
            else:
                # A cent of it: the budget is to last for the whole run.
                self._ledger.commit(reservation, 1)
                self._journal.write(f"{request_id} committed {cents}\n")
        except (redis.RedisError, ConflictError):
            return


def _choose(request_id: str) -> Callable[[Standing], Proposal]:
    def choose(standing: Standing) -> Proposal:
        arm = next((arm.promo_id for arm in ARMS if arm.promo_id not in standing.refused), "")
        return Proposal(arm, (arm or "none").encode(), f'{{"request": "{request_id}"}}'.encode())

    return choose


def naive(url: str, total: int, most: int) -> None:
    """Check, then increment, as most shops do."""
    client = redis.Redis.from_url(url)
    for _ in range(most):
        if int(client.get("naive") or 0) + 200 <= total:
            client.incrby("naive", 200)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--journal", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skew-ms", type=int, default=0)
    parser.add_argument("--most", type=int, default=10**9)
    parser.add_argument("--naive", type=int, default=0, help="a budget to overspend")
    options = parser.parse_args()
    if options.naive:
        naive(options.url, options.naive, options.most)
    else:
        Caller(options.url, options.journal, options.seed, options.skew_ms).run(options.most)
    return 0


if __name__ == "__main__":
    sys.exit(main())
