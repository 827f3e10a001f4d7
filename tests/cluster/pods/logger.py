"""Runs in a pod: asks the predictor through KServe's agent, which copies, and past it, in turn, and prints the median times of both.

`python logger.py TRANSFORMER ELIGIBILITY COPIED STRAIGHT`: URLs of the two boxes before, and of the same predictor by two ways.
"""

import json
import statistics
import sys
import time
import uuid
from pathlib import Path

import httpx

COUNT = 400


def main() -> None:
    transformer, eligibility, copied, straight = sys.argv[1:]
    bodies = json.loads(Path(__file__).with_name("bodies.json").read_text())
    took: dict[str, list[float]] = {copied: [], straight: []}
    with httpx.Client(timeout=10) as client:
        for number in range(COUNT):
            envelope = {**bodies[number % len(bodies)], "request_id": uuid.uuid4().hex, "deadline_ms": 5_000}
            for url in (transformer, eligibility):
                envelope = client.post(url, json=envelope).raise_for_status().json()
            # Whoever is first finds caches of the processor cold, so they take turns at that too.
            for url in (copied, straight) if number % 2 else (straight, copied):
                started = time.perf_counter()
                client.post(url, json=envelope).raise_for_status()
                took[url].append((time.perf_counter() - started) * 1000)
    with_ms, without_ms = (statistics.median(took[url][20:]) for url in (copied, straight))
    print(json.dumps({"count": COUNT - 20, "with_ms": round(with_ms, 2), "without_ms": round(without_ms, 2)}))


main()
