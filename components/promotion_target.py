"""A run folder that is being served -> its graph and candidate exchanged, and probed with shoppers who are nobody.

The server follows rollout/ of the folder and says in serving.json what it serves (serving/kserve/rollout.py), so a promotion in another
process or container needs nothing but the folder and the address.
"""

import json
import os
import shutil
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.subprogram import run_program
from promolift.contracts.artifacts import ModelManifest, read_manifest
from promolift.errors import ConflictError, UnavailableError
from promolift.policy.exploration import PROBE, rollout_bucket
from promolift.promotion.graph_change import Window, graph_hash, graph_text

APPLIED_S, PROBES = 30.0, 300


@dataclass(frozen=True)
class Door:
    """Where decisions are asked for, and with which headers."""

    url: str
    headers: Mapping[str, str]

    def model_of(self, shopper: str) -> str:
        """Which model's predictor a decision about the shopper went through; "" where there was no answer."""
        body = {"request_id": uuid.uuid4().hex, "shopper_id": shopper, "moment": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        asked = urllib.request.Request(  # noqa: S310 (our own http address)
            self.url, json.dumps(body | {"deadline_ms": 5_000}).encode(), {"Content-Type": "application/json", **self.headers}
        )
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310
                return str(json.load(answer)["versions"].get("predictor", ""))
        except (OSError, urllib.error.URLError, ValueError, KeyError):
            return ""


class RunTarget:
    """What serves one run folder."""

    look_s = 1.0
    """Between two looks at a canary."""

    def __init__(self, folder: Path, salt: str) -> None:
        self.folder, self.lake, self.salt = folder, folder / "lake", salt
        self.where = str(folder / "rollout" / "graph.yaml")

    def graph(self) -> dict[str, Any]:
        """The graph that stands. Raises UnavailableError where nothing was served yet."""
        path = self.folder / "rollout" / "graph.yaml"
        try:
            graph: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as problem:
            raise UnavailableError(f"The graph {path} cannot be read ({problem}); serve the run first: make serve.") from problem
        return graph

    def champion(self) -> ModelManifest:
        """The manifest of the model in service."""
        return read_manifest(self.folder / "serving_model")

    def put(self, graph: dict[str, Any], candidate: Path | None = None, champion: Path | None = None) -> None:
        """Exchange the graph, with the candidate's or the champion's model first; returns once it is served.

        Raises UnavailableError when nobody serves the folder, or what is served does not follow in time.
        """
        self.served()
        for model, name in ((candidate, "rollout/candidate"), (champion, "serving_model")):
            if model is not None:
                _exchange(model, self.folder / name)
        fresh = self.folder / "rollout" / f"graph.{os.getpid()}"
        fresh.write_text(graph_text(graph), encoding="utf-8")
        fresh.replace(self.folder / "rollout" / "graph.yaml")
        wanted = {"graph": graph_hash(graph), "model": self.champion().version}
        deadline = time.monotonic() + APPLIED_S
        while any(self.served().get(key) != value for key, value in wanted.items()):
            if time.monotonic() > deadline:
                raise UnavailableError(f"What serves {self.folder} did not take the new graph in {APPLIED_S:.0f} s; its log says why.")
            time.sleep(0.1)

    def served(self) -> dict[str, Any]:
        """What serving.json says. Raises UnavailableError when nobody serves the folder."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "serving.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as problem:
            raise UnavailableError(f"Nobody serves {self.folder} ({problem}), so no shopper can be sent anywhere: make serve.") from problem
        return found

    def probe(self, window: Window | None, champion: str, candidate: str) -> str:
        """Ask about PROBES shoppers twice; a sentence about shares. Raises ConflictError when one meets the wrong model, or two."""
        return probed(self._asked, self.salt, window, champion, candidate)

    def shadow(self, model: Path, most: int) -> dict[str, Any]:
        """What the candidate would have answered to the newest decisions of the log."""
        return run_program("serving.kserve", ["shadow", "--run", str(self.folder), "--model", str(model), "--most", str(most)])[-1]

    @contextmanager
    def _asked(self) -> Iterator[Door]:
        found = self.served()
        yield Door(f"{found['url']}/v1/decisions", {"X-API-Key": found["api_key"]})


def probed(open_door: Callable[[], AbstractContextManager[Door]], salt: str, window: Window | None, champion: str, candidate: str) -> str:
    """Ask about PROBES shoppers twice, anew until all of them meet the right model; a sentence about shares.

    Raises ConflictError when after APPLIED_S one still meets the wrong model, or two.
    """
    shoppers = [f"{PROBE}{uuid.uuid4().hex}" for _ in range(PROBES)]
    wanted = [candidate if window and rollout_bucket(who, salt) in window else champion for who in shoppers] * 2
    deadline = time.monotonic() + APPLIED_S
    while True:
        with open_door() as door, ThreadPoolExecutor(4) as pool:
            met = list(pool.map(door.model_of, shoppers * 2))
        wrong = [(who, one, two) for who, one, two in zip(shoppers * 2, met, wanted, strict=True) if one != two]
        if not wrong:
            share = f"{met.count(candidate) / len(met):.1%} of {PROBES} probe shoppers met {candidate}, each of them both times"
            return share if window else "every probe met it"
        if time.monotonic() > deadline:
            who, one, two = wrong[0]
            raise ConflictError(f"{len(wrong)} of {len(met)} probes met the wrong model: {who} met {one or 'none'} instead of {two}.")
        time.sleep(0.3)


def _exchange(model: Path, place: Path) -> None:
    """The folder at `place` becomes a copy of `model`; whoever reads meanwhile sees the old one or the new one."""
    fresh, old = place.with_name(f"{place.name}.new"), place.with_name(f"{place.name}.old")
    for left in (fresh, old):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(model, fresh)
    if place.exists():
        place.rename(old)
    fresh.rename(place)
    shutil.rmtree(old, ignore_errors=True)
