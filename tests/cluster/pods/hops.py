"""Runs in a pod: asks each box in the graph's order, then graph and engine, one request at a time, and prints the median times of each.

`python hops.py ENGINE GRAPH API_KEY BOX=URL ...`
"""

import json
import statistics
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import httpx

COUNT = 300


def main() -> None:
    engine, graph, key = sys.argv[1:4]
    boxes = dict(pair.split("=", 1) for pair in sys.argv[4:])
    bodies = json.loads(Path(__file__).with_name("bodies.json").read_text())
    took: dict[str, list[float]] = {name: [] for name in (*boxes, "graph", "engine")}
    inside: dict[str, list[float]] = {name: [] for name in boxes}
    with httpx.Client(timeout=10) as client:

        def ask(name: str, url: str, body: Any) -> Any:
            started = time.perf_counter()
            answer = client.post(url, json=body, headers={"X-API-Key": key})
            took[name].append((time.perf_counter() - started) * 1000)
            answer.raise_for_status()
            return answer.json()

        for number in range(COUNT):
            asked = {**bodies[number % len(bodies)], "deadline_ms": 5_000}
            envelope = {**asked, "request_id": uuid.uuid4().hex}
            for name, url in boxes.items():
                envelope = ask(name, url, envelope)
                inside[name].append(envelope["timings_ms"][name])
            ask("graph", graph, {**asked, "request_id": uuid.uuid4().hex})
            ask("engine", engine, {**asked, "request_id": uuid.uuid4().hex})
    # The first requests open connections.
    told = {name: {"hop_ms": round(statistics.median(times[20:]), 2)} for name, times in took.items()}
    for name, times in inside.items():
        told[name]["box_ms"] = round(statistics.median(times[20:]), 2)
    print(json.dumps({"count": COUNT - 20, "hops": told}))


main()
