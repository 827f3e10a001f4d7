"""Runs in a pod: posts the bodies of a file in turn, at a steady rate, and prints what came back as one JSON line.

`python load.py URL SECONDS RATE [HEADER=VALUE ...]`; the file is beside it.
"""

import asyncio
import json
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

PARTS = {"deadline", "graph_unavailable", "ledger_unavailable", "features_unavailable", "model_error"}
"""What an answer says of parts that were away, unlike what it says of the shopper."""


async def main() -> None:
    url, seconds, rate = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    headers = dict(pair.split("=", 1) for pair in sys.argv[4:])
    bodies = json.loads(Path(__file__).with_name("bodies.json").read_text())
    took: list[float] = []
    statuses: Counter[str] = Counter()
    said: Counter[str] = Counter()
    without = [0]

    async def ask(session: aiohttp.ClientSession, body: dict[str, Any]) -> None:
        started = time.perf_counter()
        try:
            async with session.post(url, json={**body, "request_id": uuid.uuid4().hex}, headers=headers) as answer:
                text = await answer.text()
                statuses[str(answer.status)] += 1
                if answer.status == 200:
                    document = json.loads(text)
                    said.update(document.get("degraded", ()))
                    without[0] += bool(PARTS & set(document.get("degraded", ())))
                else:
                    said[f"{answer.status} from {answer.headers.get('server', 'a server without a name')}: {text[:160]}"] += 1
        except (aiohttp.ClientError, TimeoutError) as problem:
            statuses[type(problem).__name__] += 1
            said[str(problem)[:160]] += 1
        took.append((time.perf_counter() - started) * 1000)

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10)) as session, asyncio.TaskGroup() as group:
        start, count = time.perf_counter(), 0
        while (now := time.perf_counter() - start) < seconds:
            group.create_task(ask(session, bodies[count % len(bodies)]))
            count += 1
            await asyncio.sleep(max(0.0, count / rate - now))
    took.sort()
    quantiles = {f"p{q}_ms": round(took[min(len(took) - 1, len(took) * q // 100)], 2) for q in (50, 95, 99)}
    print(json.dumps({"count": len(took), "statuses": statuses, "degraded": without[0], "said": dict(said.most_common(5)), **quantiles}))


asyncio.run(main())
