"""A finished run -> its model brought to shoppers whom a simpler one has served; then one candidate refused, and one rolled back.

Real: service, graph, baskets, registry, trail, approvals, guardrails, and the first candidate with its dossier. Planted: that the incumbent
has served before, and what is wrong with the other two candidates, which are the same network exported anew. All of it stays in a folder
of its own, for the reviewer's page.
"""

import hashlib
import io
import itertools
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from components.promote import Promotion, promotion
from components.promotion_entry import enter
from components.register_model import register
from components.write_dossier import write
from pipelines.demo_service import Request, Service, baskets, lay_out, served_copy
from promolift.contracts.artifacts import Verdict, read_manifest, read_verdict, write_json
from promolift.drift.reference import hand_on
from promolift.errors import PromoliftError
from promolift.promotion.actions import Review, dossier_place
from promolift.promotion.approval import Person, approval_key
from promolift.promotion.graph_change import STEP
from promolift.promotion.guardrails import Horizon, Limits
from promolift.promotion.stages import PATH
from promolift.promotion.trail import Entry
from promolift.promotion.trail_table import TrailTable
from promolift.settings import load

GUARDRAILS = Path(__file__).with_name("demo_guardrails.yaml")
SIMPLER = ("response", "lightgbm")
AUTHOR, REVIEWER = "author", Person("reviewer", frozenset({"reviewer"}))
CALLERS, FIRST, DEADLINE_MS = 2, 150, 500
"""Shoppers who ask at once, decisions before the first move, and the milliseconds that each decision has."""
PATIENCE_S, GLANCE_S = 60.0, 0.1
"""How long a stage is watched at most; a glance is one look."""


class _Aloud(io.TextIOBase):
    """Of what is printed, the lines about a version, for the screen."""

    def __init__(self, screen: Any) -> None:
        self._screen, self._part = screen, ""

    def write(self, text: str) -> int:
        """Show the complete lines that are for people."""
        *lines, self._part = (self._part + text).split("\n")
        for line in lines:
            if line.startswith("version "):
                self._screen.write(f"  {line}\n")
                self._screen.flush()
        return len(text)


@dataclass(frozen=True)
class Act:
    """The finished run, and the folder of the act, which is a served run too."""

    run: Path
    folder: Path

    @property
    def chosen(self) -> str:
        """The candidate that the gate chose."""
        return read_verdict(self.run / "evaluation" / "verdict.json").chosen

    @property
    def incumbent(self) -> str:
        """The simpler model that has served until now."""
        return next(name for name in SIMPLER if name != self.chosen)

    @property
    def registry(self) -> str:
        """The folder's own registry."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def review(self) -> Review:
        """What people may do in the folder."""
        lake = self.folder / "lake"
        return Review(lake, TrailTable(lake), approval_key(self.folder, load()))

    def register(self, models: Path, evaluation: Path) -> str:
        """A version of the folder's own registry with a sealed dossier, told to the trail; its number."""
        dossier, lake = str(self.folder / "dossier"), str(self.folder / "lake")
        write(str(models), str(evaluation), str(self.run / "lake"), dossier, AUTHOR)
        found = register(str(models), str(evaluation), lake, self.registry, load().model_name, dossier=dossier, author=AUTHOR)
        enter(lake, found, dossier)
        return str(found["version"])

    def promotion(self, version: str) -> Promotion:
        """The version's promotion in the folder."""
        about = (str(self.folder), self.registry, load().model_name, version)
        return promotion(*about, guardrails=str(GUARDRAILS), patience_s=PATIENCE_S)

    def approve(self, version: str) -> None:
        """A reviewer approves it, up to champion."""
        review = self.review
        review.approve(REVIEWER, version, "read the dossier", "champion", review.evidence(version))
        print(f"version {version} is approved by the {REVIEWER.name}", flush=True)


def shown(run: Path, folder: Path) -> dict[str, Any]:
    """Show it in `folder`, which is made anew; what happened, for summary.json."""
    shutil.rmtree(folder, ignore_errors=True)
    with redirect_stdout(_Aloud(sys.stdout)):
        return _acted(Act(run, folder))


def _acted(act: Act) -> dict[str, Any]:
    run, folder, start = act.run, act.folder, time.perf_counter()
    asked = [request for day in baskets(run, lay_out(run, folder, f"models/{act.incumbent}")).values() for request in day]
    reigned, candidate = act.register(run / "models", _of_incumbent(act)), act.register(run / "models", run / "evaluation")
    print(f"version {reigned}, {act.incumbent}, serves; version {candidate}, {act.chosen}, is a candidate", flush=True)
    with served_copy(folder) as service, _shoppers(service, asked) as met:
        _wait(lambda: met.total() >= FIRST)
        seconds = {"promotion": _promote(act, candidate), "refusal": _refuse(act), "rollback": _roll_back(act)}
    seconds["total"] = _since(start)
    moves = [_told(entry) for entry in act.review.trail.entries()]
    return {"requests": met.total(), "errors": met["error"], "moves": moves, "seconds": seconds}


def _of_incumbent(act: Act) -> Path:
    """The evaluation as it would have been had the incumbent been chosen; no gate has judged it."""
    folder, name = act.folder / "evaluation", act.incumbent
    metrics = json.loads((act.run / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    policies = metrics["policies"] | {"chosen_less_other": {}}
    unjudged = "No gate has judged it: it served before there was one."
    write_json(folder / "metrics.json", metrics | {"chosen": name, "policies": policies, "who_wins": unjudged, "power": ""})
    write_json(folder / "verdict.json", Verdict(name, True, (), (unjudged,)))
    return folder


def _promote(act: Act, version: str) -> float:
    """The candidate to champion, stage by stage; the seconds that it took."""
    began = time.perf_counter()
    act.approve(version)
    move = act.promotion(version)
    for stage in PATH[1:]:
        if not move.advance(stage):
            break
    return _since(began)


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 1)


def _anew(act: Act, number: int) -> str:
    """The chosen network exported anew, registered with the verdict on its scores; its version. LiteRT ignores what follows a model."""
    models = act.folder / "models" / str(number)
    place = Path(shutil.copytree(act.run / "models" / act.chosen, models / act.chosen))
    content = (place / "model.tflite").read_bytes() + number.to_bytes(4)
    (place / "model.tflite").write_bytes(content)
    former = read_manifest(place)
    manifest = replace(former, sha256=hashlib.sha256(content).hexdigest())
    write_json(place / "manifest.json", manifest)
    hand_on(place, former.version, manifest.version)
    return act.register(models, act.run / "evaluation")


def _refuse(act: Act) -> float:
    """A candidate whose author improved a figure of the sealed dossier: no approval is taken, and the reviewer refuses it; seconds."""
    began, version = time.perf_counter(), _anew(act, 1)
    verdict = Path(dossier_place(act.folder / "lake", version)) / "verdict.json"
    print(f"version {version}: its author changes a figure in {verdict.name} after the dossier was sealed", flush=True)
    verdict.write_text(verdict.read_text(encoding="utf-8").replace('"value": ', '"value": 9', 1), encoding="utf-8")
    try:
        act.approve(version)
    except PromoliftError as why:
        print(f"version {version} cannot be approved: {why}", flush=True)
        act.review.refuse(REVIEWER, version, f"no approval is taken: {why}")
        print(f"version {version} is refused by the {REVIEWER.name}", flush=True)
    return _since(began)


def _roll_back(act: Act) -> float:
    """A candidate whose predictor hangs as soon as it serves a tenth of the shoppers; seconds from then until nobody meets it."""
    version = _anew(act, 2)
    act.approve(version)
    move = act.promotion(version)
    move.terms = replace(move.terms, limits=_longer(move.terms.limits), patience_s=GLANCE_S)
    move.advance("shadow")
    move.advance("canary_10")
    pid = json.loads((act.folder / "serving.json").read_text(encoding="utf-8"))["pids"][STEP]
    print(f"version {version}: its predictor hangs", flush=True)
    began = time.perf_counter()
    os.kill(pid, signal.SIGSTOP)
    move.terms = replace(move.terms, patience_s=PATIENCE_S)
    try:
        move.advance("canary_10")
    finally:
        os.kill(pid, signal.SIGCONT)  # so that it ends when it is told to
    return _since(began)


def _longer(limits: Limits) -> Limits:
    """The same, with a canary that is not at its end before something goes wrong."""
    return replace(limits, stages={**limits.stages, "canary_10": Horizon(400, 0)})


@contextmanager
def _shoppers(service: Service, requests: Sequence[Request]) -> Iterator[Counter[str]]:
    """Shoppers who ask until the block ends; how many answers came by model, and how many were errors."""
    met: Counter[str] = Counter()
    stop, turn = threading.Event(), itertools.count()

    def ask() -> None:
        with httpx.Client(base_url=service.url, headers={"X-API-Key": service.api_key}, timeout=30) as client:
            while not stop.is_set():
                number = next(turn)
                request = requests[number % len(requests)] | {"request_id": f"canary-{number}", "deadline_ms": DEADLINE_MS}
                met[_model_of(client, request)] += 1

    threads = [threading.Thread(target=ask) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield met
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _model_of(client: httpx.Client, request: Request) -> str:
    """Whose predictor the decision went through: "none" where none did, "error" where no decision came."""
    try:
        answer = client.post("/v1/decisions", json=request)
    except httpx.HTTPError:
        return "error"
    return str(answer.json()["versions"].get("predictor", "none")) if answer.status_code == 200 else "error"


def _wait(done: Callable[[], bool]) -> None:
    while not done():
        time.sleep(0.1)


def _told(entry: Entry) -> dict[str, str]:
    names = ("version", "action", "stage_from", "stage_to", "actor", "reason")
    return {name: getattr(entry, name) for name in names}
