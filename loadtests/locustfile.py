"""Locust's callers of an engine or of a graph itself: the baskets of real shoppers, asked about one after another.

Environment: PROMOLIFT_LOAD_FILE is the JSON file that `loadtests.run` writes: url (with the path to post to), api_key ("": none), moment,
scenario, seconds, users, baskets, out.
"""

import json
import os
import random
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from locust import FastHttpUser, LoadTestShape, constant_pacing, events, task

from loadtests.shapes import SHAPES, level

PACE_S = 0.1
PLAN: dict[str, Any] = json.loads(Path(os.environ["PROMOLIFT_LOAD_FILE"]).read_text(encoding="utf-8"))
HOST, PATH = urlsplit(PLAN["url"])._replace(path="").geturl(), urlsplit(PLAN["url"]).path or "/"
SEEN: dict[str, int] = {"answers": 0, "degraded": 0, "no_promo": 0}


class Shopper(FastHttpUser):  # type: ignore[misc] # locust has no types
    """Asks for ten decisions a second, so that a slow answer does not make the next request wait with it."""

    host = HOST
    wait_time = constant_pacing(PACE_S)

    @task  # type: ignore[untyped-decorator]
    def decide(self) -> None:
        """One decision for a basket."""
        basket = random.choice(PLAN["baskets"])  # noqa: S311 (no secret)
        body = {
            "request_id": uuid.uuid4().hex, "shopper_id": shopper_of(basket["shopper_id"]), "moment": PLAN["moment"],
            "channel": random.choice(("app", "web", "pos")), "basket": basket["lines"],  # noqa: S311
        }  # fmt: skip
        headers = {"X-API-Key": PLAN["api_key"]} if PLAN["api_key"] else {}
        with self.client.post(PATH, json=body, headers=headers, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"HTTP {answer.status_code}: {(answer.text or '')[:200]}")
                return
            document = answer.json()
            SEEN["answers"] += 1
            SEEN["degraded"] += bool(document["degraded"])
            SEEN["no_promo"] += document.get("decision", document)["promo_id"] == "no_promo"


def shopper_of(basket_shopper: str) -> str:
    """Whose decision it is: in `hot_shopper` one shopper's for four of five, in `cold_start` somebody's whom nobody knows."""
    if PLAN["scenario"] == "hot_shopper" and random.random() < 0.8:  # noqa: S311
        return str(PLAN["baskets"][0]["shopper_id"])
    return f"new-{uuid.uuid4().hex}" if PLAN["scenario"] == "cold_start" else basket_shopper


class Callers(LoadTestShape):  # type: ignore[misc]
    """The scenario's shape over its seconds."""

    def tick(self) -> tuple[int, float] | None:
        """Locust asks once a second: (callers, callers started a second), None at the end."""
        passed = self.get_run_time() / PLAN["seconds"]
        if passed >= 1:
            return None
        shape = SHAPES.get(PLAN["scenario"], level)
        return max(1, round(PLAN["users"] * shape(passed))), PLAN["users"]


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def write_measured(environment: Any, **_: Any) -> None:
    """What was measured, for `loadtests.run` to judge."""
    total = environment.stats.total
    answers = max(1, SEEN["answers"])
    measured = {
        "requests": total.num_requests, "failures": total.num_failures, "per_s": round(total.total_rps, 1),
        "p50_ms": total.get_response_time_percentile(0.5) or 0, "p95_ms": total.get_response_time_percentile(0.95) or 0,
        "p99_ms": total.get_response_time_percentile(0.99) or 0, "error_share": total.fail_ratio,
        "degraded_share": round(SEEN["degraded"] / answers, 4), "no_promo_share": round(SEEN["no_promo"] / answers, 4),
        "errors": sorted({error.error for error in environment.stats.errors.values()} )[:10],
    }  # fmt: skip
    Path(PLAN["out"]).write_text(json.dumps(measured, default=str), encoding="utf-8")
