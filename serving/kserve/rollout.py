"""A run folder's rollout/ -> what is served follows it: the graph that stands, and the candidate's predictor while the graph names it.

rollout/
├── graph.yaml    the graph that stands; a promotion replaces it
├── candidate/    model folder of the candidate
└── urls.json     where the graph's steps answer on this machine
"""

import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from promolift.contracts.artifacts import write_json
from promolift.contracts.decisions import Envelope
from promolift.errors import InputError, PromoliftError
from promolift.promotion.graph_change import STEP, Window, graph_hash, window_in, without_canary
from promolift.settings import Settings
from serving.kserve.boxes import Sources
from serving.kserve.model_folder import load_manifest
from serving.kserve.processes import Processes
from serving.kserve.stamp import Box
from serving.kserve.versions import keep

FOLDER, GRAPH_FILE, CANDIDATE, URLS = "rollout", "graph.yaml", "candidate", "urls.json"
NOWHERE = "http://127.0.0.1:9/"
"""Where a candidate answers that has not started: the graph is told of the right place before anybody asks."""
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
    """Keeps processes and graph as rollout/ says. `start_candidate(model folder)` starts its predictor and returns its predict URL.

    `told`: hash of the graph, champion and candidate as they are served; `announce` is called when they have changed.
    """

    folder: Path
    sources: Sources
    settings: Settings
    processes: Processes
    urls: Mapping[str, str]
    start_candidate: Callable[[Path], str]
    announce: Callable[[Mapping[str, str]], None]
    told: Mapping[str, str] = field(default_factory=dict)
    _seen: tuple[str, str, str] = ("", "", "")
    _said: str = ""
    _leaving: float = 0.0

    def follow(self) -> None:
        """Apply what has changed; a wrong file is said once and changes nothing."""
        if self._leaving and time.monotonic() > self._leaving:
            self.processes.drop(STEP)
            self._leaving = 0.0
        try:
            text = (self.folder / GRAPH_FILE).read_text(encoding="utf-8")
            graph = yaml.safe_load(text)
            candidate = load_manifest(self.folder / CANDIDATE).version if window_in(graph) else ""
            seen = (text, load_manifest(self.sources.model).version, candidate)
            if seen != self._seen:
                self._seen = seen
                self._apply({"graph": graph_hash(graph), "model": seen[1], "candidate": candidate})
        except (OSError, yaml.YAMLError, PromoliftError) as problem:
            if (said := str(problem)) != self._said:
                print(f"rollout: what is served stays as it was: {said}", flush=True)
            self._said = said

    def _apply(self, wanted: Mapping[str, str]) -> None:
        keep(self.sources, self.settings, self.folder.parent)
        if wanted["candidate"]:
            keep(replace(self.sources, model=self.folder / CANDIDATE), self.settings, self.folder.parent)
        before, names = self.told, ["graph"] if self.urls else ["engine"]
        if self.urls:
            self._place_candidate(before.get("candidate", ""), wanted["candidate"])
        if before and before["model"] != wanted["model"]:
            names += ["eligibility", "predictor", "constraints"]
        self.processes.signal(signal.SIGHUP, names)
        self.told = wanted
        self.announce(wanted)
        beside = f" and, for a share of shoppers, {wanted['candidate']}" if wanted["candidate"] else ""
        print(f"serving {wanted['model']}{beside}", flush=True)

    def _place_candidate(self, before: str, wanted: str) -> None:
        """Start the candidate's predictor before the graph names it; stop it a while after the graph has left it."""
        if wanted and wanted != before:
            self.processes.drop(STEP)
            self._leaving = 0.0
            write_json(self.folder / URLS, {**self.urls, STEP: self.start_candidate(self.folder / CANDIDATE)})
        elif before and not wanted:
            self._leaving = time.monotonic() + GRACE_S


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
    write_json(place / URLS, {STEP: NOWHERE, **urls})
    return place


def switched(champion: Box, rollout: Path | None, make: Callable[[Path], Box]) -> Box:
    """The predictor as the graph in `rollout` has it: the champion's, or a Switch between it and the candidate's."""
    if rollout is None or not (rollout / GRAPH_FILE).is_file():
        return champion
    window = window_in(yaml.safe_load((rollout / GRAPH_FILE).read_text(encoding="utf-8")))
    return Switch(champion, make(rollout / CANDIDATE), window) if window else champion
