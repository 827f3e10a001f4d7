"""A deployed engine and graph -> one decision from each, as a caller gets it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from promolift.errors import UnavailableError
from promolift.kubectl import Kubectl
from serving.kserve.decide import Question, requests


@dataclass(frozen=True)
class Doors:
    """Where engine and graph answer on this machine, and the engine's API key."""

    engine: str
    graph: str
    api_key: str


@contextmanager
def doors(kubectl: Kubectl, out: Path) -> Iterator[Doors]:
    """Ports of this machine that lead to both Services. Raises UnavailableError where the API key of `deploy` is not at hand."""
    try:
        key = (out / "api_key").read_text(encoding="utf-8")
    except OSError as problem:
        raise UnavailableError(f"{out / 'api_key'} is not there ({problem.strerror}); deploy from here, which keeps the key.") from problem
    with kubectl.forwarded("svc/promo-engine", 80) as engine, kubectl.forwarded("svc/promo-decision", 80) as graph:
        yield Doors(f"http://127.0.0.1:{engine}", f"http://127.0.0.1:{graph}", key)


def ask_both(kubectl: Kubectl, run: Path, out: Path) -> None:
    """Ask engine and graph about a shopper of the run and print both answers. Raises UnavailableError for anything but a decision."""
    (asked,) = requests(Question(run))
    with doors(kubectl, out) as found, httpx.Client(timeout=10) as client:
        for name, url, headers in (
            ("engine", f"{found.engine}/v1/decisions", {"X-API-Key": found.api_key}), ("graph", found.graph, {}),
        ):  # fmt: skip
            started = time.perf_counter()
            answer = client.post(url, json={**asked, "request_id": f"{asked['request_id']}-{name}", "deadline_ms": 2_000}, headers=headers)
            took = (time.perf_counter() - started) * 1000
            if answer.status_code != 200:
                raise UnavailableError(f"The {name} answered HTTP {answer.status_code} instead of a decision: {answer.text[:300]}")
            print(f"\nfrom the {name} in {took:.0f} ms:\n{json.dumps(_told(answer.json()), indent=2)}", flush=True)


def _told(document: dict[str, Any]) -> dict[str, Any]:
    """An envelope's decision, an engine's answer whole."""
    decision: dict[str, Any] = document.get("decision", document)
    return decision
