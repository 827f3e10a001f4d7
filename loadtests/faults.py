"""`python -m loadtests.faults`: a million reservations while clients and Redis are killed; nothing may be overspent or lost.

Several processes reserve from one budget that is always nearly spent. One has a clock that is an hour slow, two have fast ones. One in
eight requests is a duplicate. A client is killed with SIGKILL every second or so, Redis (append-only file, fsync before every answer) every
few.
At the end: committed + reserved never exceeded the budget, every acknowledged decision stands in Redis' log exactly once and as it was
answered, and a check-then-increment in the same harness has overspent. Writes faults.json.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from loadtests.faults_client import KEEP_S, LIFE_MS
from promolift.contracts.artifacts import write_json
from promolift.policy.ledger import Budget, Change, Ledger
from promolift.redis_server import start_redis, stop_redis

CLIENTS, BUDGET = 6, 300_000
SKEWS_MS = (0, 0, 0, -3_600_000, 4_000, 1_500)
CLIENT_S, REDIS_S, LOOK_S, PROGRESS_S = 1.5, 15.0, 0.1, 5.0


@dataclass
class Outcome:
    """What was seen while it ran."""

    killed: Counter[str] = field(default_factory=Counter)
    most_bound: int = 0
    looks: int = 0
    logged: Counter[str] = field(default_factory=Counter)
    repeated_in_log: int = 0
    requests: set[str] = field(default_factory=set)


class Run:
    """One run in a folder of its own."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._outcome = folder, Outcome()
        self._draws = random.Random(seed)  # noqa: S311 (a test's dice)
        self._redis, self._url = start_redis(folder / "redis", durable=True)
        self._port = int(self._url.split(":")[2].split("/")[0])
        self._clients: dict[int, subprocess.Popen[bytes]] = {}
        self._started = 0

    def reserve(self, wanted: int) -> dict[str, Any]:
        """Until `wanted` answers were acknowledged; the report."""
        began = time.monotonic()
        self._ledger().set_budget("main", BUDGET, Change("faults", "start"))
        for place in range(CLIENTS):
            self._start_client(place)
        next_line = began
        next_client, next_redis = time.monotonic() + CLIENT_S, time.monotonic() + REDIS_S
        while (count := self._acknowledged()) < wanted:
            self._look()
            now = time.monotonic()
            if now > next_client:
                self._kill_client()
                next_client = now + self._draws.uniform(0.5, 1.5) * CLIENT_S
            if now > next_redis:
                self._kill_redis()
                next_redis = now + self._draws.uniform(0.5, 1.5) * REDIS_S
            if now > next_line:
                print(f"{count:>9,} of {wanted:,} answers after {now - began:4.0f} s, killed {dict(self._outcome.killed)}", flush=True)
                next_line = now + PROGRESS_S
            time.sleep(LOOK_S)
        self._stop_clients()
        time.sleep(LIFE_MS[1] / 1000)
        self._look()
        return self._report(time.monotonic() - began)

    def naive(self) -> dict[str, Any]:
        """The baseline, killed as little as the others: how far beyond the budget it spends."""
        with redis.Redis.from_url(self._url) as client:
            client.set("naive", 0)
            spent = 0
            for _ in range(20):
                client.set("naive", 0)
                children = [self._popen("--naive", "2000", "--most", "60") for _ in range(CLIENTS)]
                for child in children:
                    child.wait()
                spent = max(spent, int(client.get("naive") or 0))
        return {"budget": 2_000, "spent": spent, "overspent": max(0, spent - 2_000)}

    def stop(self) -> None:
        """Everything that was started."""
        self._stop_clients()
        stop_redis(self._redis)

    def _ledger(self) -> Ledger:
        return Ledger(redis.Redis.from_url(self._url, socket_timeout=5), keep_s=KEEP_S)

    def _popen(self, *arguments: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-m", "loadtests.faults_client", "--url", self._url, *arguments])

    def _start_client(self, place: int) -> None:
        self._started += 1
        journal = str(self._folder / f"journal-{self._started}")
        arguments = ["--journal", journal, "--seed", str(self._started), "--skew-ms", str(SKEWS_MS[place])]
        self._clients[place] = self._popen(*arguments)

    def _kill_client(self) -> None:
        place = self._draws.choice(sorted(self._clients))
        self._clients[place].kill()
        self._clients[place].wait()
        self._outcome.killed["client"] += 1
        self._start_client(place)

    def _kill_redis(self) -> None:
        self._redis.send_signal(signal.SIGKILL)
        self._redis.wait()
        self._outcome.killed["redis"] += 1
        self._redis, _ = start_redis(self._folder / "redis", self._port, durable=True)

    def _stop_clients(self) -> None:
        for client in self._clients.values():
            client.kill()
            client.wait()
        self._clients = {}

    def _look(self) -> None:
        """The invariant, and what the outbox holds: it is taken out, as the relay does, and counted."""
        ledger, outcome = self._ledger(), self._outcome
        for _ in range(20):
            budget = ledger.budget()
            outcome.most_bound = max(outcome.most_bound, budget.committed + budget.reserved)
            outcome.looks += 1
            entries = ledger.client.xrange(ledger.stream, count=5_000)
            for _, fields in entries:
                self._count(json.loads(fields[b"record"]))
            if entries:
                ledger.client.xdel(ledger.stream, *(identifier for identifier, _ in entries))
            if len(entries) < 5_000:
                break
        ledger.expire()
        ledger.client.close()

    def _count(self, record: Mapping[str, Any]) -> None:
        outcome = self._outcome
        if "request" in record:
            outcome.repeated_in_log += record["request"] in outcome.requests
            outcome.requests.add(record["request"])
        outcome.logged[str(record.get("event", "decision"))] += 1

    def _acknowledged(self) -> int:
        """About how many lines the journals have: their bytes over those of a line."""
        return sum(path.stat().st_size for path in self._folder.glob("journal-*")) // 14

    def _report(self, seconds: float) -> dict[str, Any]:
        outcome, budget = self._outcome, self._ledger().budget()
        lines = [
            line.split()
            for path in self._folder.glob("journal-*")
            for line in path.read_text().splitlines(keepends=True)
            if line[-1:] == "\n"
        ]
        answers = [(line[0], line[1]) for line in lines if len(line) == 2]
        said: dict[str, set[str]] = {}
        for request, decision in answers:
            said.setdefault(request, set()).add(decision)
        return {
            "answers": len(answers), "requests": len(said), "duplicates": len(answers) - len(said), "seconds": round(seconds, 1),
            "granted": sum(decision != "none" for _, decision in answers), "killed": dict(outcome.killed), "looks": outcome.looks,
            "budget": BUDGET, "most_committed_and_reserved": outcome.most_bound, "overspent": max(0, outcome.most_bound - BUDGET),
            "answered_in_two_ways": sum(len(decisions) > 1 for decisions in said.values()),
            "acknowledged_but_not_logged": len(set(said) - outcome.requests), "logged_twice": outcome.repeated_in_log,
            "log": dict(outcome.logged), **_end(budget, outcome, len({line[0] for line in lines if len(line) == 3})),
        }  # fmt: skip


def _end(budget: Budget, outcome: Outcome, committed: int) -> dict[str, Any]:
    """Of each commit a cent: the counter is what the log says, and no less than was acknowledged."""
    return {
        "committed": budget.committed, "commits_logged": outcome.logged["committed"], "commits_acknowledged": committed,
        "reserved_at_the_end": budget.reserved,
    }  # fmt: skip


def holds(report: Mapping[str, Any]) -> list[str]:
    """A sentence for everything that must hold and does not."""
    sound = report["ledger"]
    checks = {
        "the budget was overspent": sound["overspent"] > 0,
        "a request was answered in two ways": sound["answered_in_two_ways"] > 0,
        "an acknowledged decision is not in the log": sound["acknowledged_but_not_logged"] > 0,
        "a decision is in the log twice": sound["logged_twice"] > 0,
        "the committed cents are not those of the log": sound["committed"] != sound["commits_logged"],
        "a commit was acknowledged and lost": sound["commits_acknowledged"] > sound["committed"],
        "the baseline did not overspend, so the harness proves nothing": report["check_then_increment"]["overspent"] == 0,
    }
    return [sentence for sentence, wrong in checks.items() if wrong]


def main() -> int:
    """Command line; exit status 1 when something does not hold."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.faults", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000, help="answers to wait for (%(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("build/faults"), help="folder of faults.json and of what is needed for it (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of what is killed when (%(default)s)")
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    run = Run(options.out, options.seed)
    try:
        report = {"ledger": run.reserve(options.count), "check_then_increment": run.naive()}
    finally:
        run.stop()
    wrong = holds(report)
    write_json(options.out / "faults.json", {**report, "wrong": wrong})
    print(json.dumps(report, indent=2))
    print("\n".join(wrong) or "nothing was overspent, lost or answered in two ways")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
