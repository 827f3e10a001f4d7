"""A run folder's rollout/ -> what is served follows it: the graph that stands, and the candidate's predictor while the graph names it.

rollout/
├── graph.yaml    the graph that stands; a promotion replaces it
├── candidate/    model folder of the candidate
└── urls.json     where the graph's steps answer on this machine
"""

import json
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from promolift.contracts.artifacts import write_json
from promolift.contracts.decisions import Envelope
from promolift.errors import InputError, PromoliftError
from promolift.promotion.graph_change import STEP, Window, graph_hash, window_in, without_canary
from promolift.settings import Settings
from serving.kserve.boxes import Sources
from serving.kserve.model_folder import load_manifest, model_version
from serving.kserve.processes import Processes
from serving.kserve.stamp import Box
from serving.kserve.versions import keep

FOLDER, GRAPH_FILE, CANDIDATE, URLS = "rollout", "graph.yaml", "candidate", "urls.json"
GRACE_S = 3.0
"""How long a candidate's predictor goes on after the graph has left it: requests in flight end."""


class Switch:
    """The predictor of a fused service with a canary: the shopper's bucket says who scores, as the graph's Switch does."""

    name = "predictor"

    def __init__(self, champion: Box, candidate: Box, window: Window) -> None:
        self._champion, self._candidate, self._window = champion, candidate, window

    def __call__(self, envelope: Envelope) -> Envelope:
        """The envelope with scores of one of the two."""
        return (self._candidate if envelope.rollout in self._window else self._champion)(envelope)


@dataclass
class Follower:
    """Keeps processes and graph as rollout/ says. `start_candidate(model folder)` starts its predictor and returns its predict URL."""

    folder: Path
    sources: Sources
    settings: Settings
    processes: Processes
    urls: Mapping[str, str]
    start_candidate: Callable[[Path], str]
    announce: Callable[[Mapping[str, str]], None]
    _seen: str = ""
    _model: str = ""
    _candidate: str = ""
    _leaving: float = 0.0
    _told: dict[str, str] = field(default_factory=dict)

    def follow(self) -> None:
        """Apply what has changed; a wrong file is said once and changes nothing."""
        if self._leaving and time.monotonic() > self._leaving:
            self.processes.drop(STEP)
            self._leaving = 0.0
        try:
            text, model = (self.folder / GRAPH_FILE).read_text(encoding="utf-8"), model_version(load_manifest(self.sources.model))
            if (seen := f"{text} {model}") == self._seen:
                return
            self._seen = seen
            self._apply(yaml.safe_load(text), model)
        except (OSError, yaml.YAMLError, PromoliftError) as problem:
            print(f"rollout: what is served stays as it was: {problem}", flush=True)

    def _apply(self, graph: Mapping[str, Any], model: str) -> None:
        wanted = ""
        if window_in(graph):
            wanted = model_version(load_manifest(self.folder / CANDIDATE))
            keep(replace(self.sources, model=self.folder / CANDIDATE), self.settings, self.folder.parent)
        keep(self.sources, self.settings, self.folder.parent)
        names = ["engine"] if not self.urls else ["graph"]
        if self.urls and wanted and wanted != self._candidate:
            self.processes.drop(STEP)
            self._leaving = 0.0
            write_json(self.folder / URLS, {**self.urls, STEP: self.start_candidate(self.folder / CANDIDATE)})
        if self.urls and model != self._model:
            names += ["eligibility", "predictor", "constraints"] if self._model else []
        self.processes.signal(signal.SIGHUP, names if self._told else [name for name in names if name == "graph" and wanted])
        if self._candidate and not wanted:
            self._leaving = time.monotonic() + GRACE_S
        self._candidate, self._model = wanted, model
        self._told = {"graph": graph_hash(graph), "model": model, "candidate": wanted}
        self.announce(self._told)
        print(f"serving {model}{f' and, for a share of shoppers, {wanted}' if wanted else ''}", flush=True)


def prepared(folder: Path, shipped: Path, urls: Mapping[str, str]) -> Path:
    """The run's rollout folder with the graph that stands: the shipped one, unless a canary is on its way. Raises InputError."""
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    graph = place / GRAPH_FILE
    if not graph.exists():
        shutil.copyfile(shipped, graph)
    standing = yaml.safe_load(graph.read_text(encoding="utf-8"))
    if not isinstance(standing, dict):
        raise InputError(f"{graph} is no graph; delete it, and the shipped one takes its place.")
    if window_in(standing) is None and without_canary(standing) != yaml.safe_load(shipped.read_text(encoding="utf-8")):
        print(f"rollout: {graph} was of another release and is replaced by {shipped}", flush=True)
        shutil.copyfile(shipped, graph)
    known: dict[str, str] = json.loads((place / URLS).read_text(encoding="utf-8")) if (place / URLS).exists() else {}
    write_json(place / URLS, {STEP: known.get(STEP, "http://127.0.0.1:9/not-started"), **urls})
    return place


def switched(champion: Box, rollout: Path | None, make: Callable[[Path], Box]) -> Box:
    """The predictor as the graph in `rollout` has it: the champion's, or a Switch between it and the candidate's."""
    if rollout is None or not (rollout / GRAPH_FILE).is_file():
        return champion
    window = window_in(yaml.safe_load((rollout / GRAPH_FILE).read_text(encoding="utf-8")))
    return Switch(champion, make(rollout / CANDIDATE), window) if window else champion
