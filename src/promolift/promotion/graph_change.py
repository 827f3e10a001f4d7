"""A graph without a canary, a candidate and its stage -> the graph with a sticky Switch in the predictor's place, and the diff.

KServe's own canary (canaryTrafficPercent, spec.canary) never reaches a graph's traffic, and a Splitter draws anew for every request
(notes: kserve.md 2.2). A Switch on the shopper's bucket is sticky, stands in git, and works in every mode of KServe. Two conditions are
chained, since `&&` matches what it should not (notes: kserve.md 1.2).

The window of buckets begins elsewhere for every candidate, so that the same shoppers do not meet every new model; it grows at its end,
so that whoever met the candidate at 10 % still does at 50 %.
"""

import copy
import difflib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from promolift.contracts.artifacts import ModelManifest
from promolift.errors import InputError
from promolift.promotion.stages import BUCKETS, SHARE, Stage

NODE, STEP, SERVICE = "rollout", "predictor-candidate", "promo-predictor-candidate"
PREDICTOR = "predictor"
CONDITION = re.compile(r"^\[@this\]\.#\(rollout>=(\d+)\)#\|#\(rollout<(\d+)\)$")
Document = dict[str, Any]


@dataclass(frozen=True)
class Window:
    """Buckets [first, end) that the candidate serves."""

    first: int
    end: int

    def __contains__(self, bucket: object) -> bool:
        return isinstance(bucket, int) and self.first <= bucket < self.end

    @property
    def share(self) -> float:
        """Share of all shoppers."""
        return (self.end - self.first) / BUCKETS

    @property
    def condition(self) -> str:
        """The same as a condition of a Switch."""
        return f"[@this].#(rollout>={self.first})#|#(rollout<{self.end})"


def window_of(model: str, stage: Stage) -> Window | None:
    """The buckets of the model at that stage; None where it serves nobody, or everybody."""
    if stage not in SHARE:
        return None
    most = max(SHARE.values())
    first = int(hashlib.sha256(model.encode()).hexdigest()[:8], 16) % (BUCKETS - most + 1)
    return Window(first, first + SHARE[stage])


def changed(graph: Mapping[str, Any], model: str, stage: Stage) -> Document:
    """The graph of that stage, made from one of any stage. Raises InputError for a graph without a predictor."""
    plain = without_canary(graph)
    window = window_of(model, stage)
    if window is None:
        return plain
    steps = plain["spec"]["nodes"]["root"]["steps"]
    place = next(index for index, step in enumerate(steps) if step["name"] == PREDICTOR)
    own = steps[place]
    steps[place] = {"name": PREDICTOR, "nodeName": NODE, "data": "$response", "dependency": "Hard"}
    plain["spec"]["nodes"][NODE] = {"routerType": "Switch", "steps": [
        {"name": STEP, "serviceName": SERVICE, "condition": window.condition},
        {"name": own["name"], "serviceName": own["serviceName"], "condition": "@this"},
    ]}  # fmt: skip
    return plain


def without_canary(graph: Mapping[str, Any]) -> Document:
    """The graph with one predictor only. Raises InputError for a graph that is not ours."""
    plain = copy.deepcopy(dict(graph))
    try:
        nodes = plain["spec"]["nodes"]
        steps = nodes["root"]["steps"]
        place = next(index for index, step in enumerate(steps) if step["name"] == PREDICTOR)
    except (KeyError, TypeError, StopIteration) as problem:
        raise InputError(f"The graph has no step '{PREDICTOR}' in its root node ({problem!r}); restore it from git.") from problem
    if steps[place].get("nodeName") == NODE:
        own = nodes.pop(NODE)["steps"][-1]
        steps[place] = {"name": PREDICTOR, "serviceName": own["serviceName"], "data": "$response", "dependency": "Hard"}
    return plain


def window_in(graph: Mapping[str, Any]) -> Window | None:
    """The candidate's buckets in a graph; None without a canary. Raises InputError for a condition that is not of ours."""
    node = graph["spec"]["nodes"].get(NODE)
    if node is None:
        return None
    condition = str(node["steps"][0].get("condition", ""))
    found = CONDITION.match(condition)
    if found is None:
        raise InputError(f"The graph's canary has the condition '{condition}', which no promotion writes: it was edited by hand.")
    return Window(int(found[1]), int(found[2]))


def graph_hash(graph: Mapping[str, Any]) -> str:
    """Hash of what the graph does: its nodes."""
    return hashlib.sha256(yaml.safe_dump(graph["spec"]["nodes"], sort_keys=True).encode()).hexdigest()


def graph_text(graph: Mapping[str, Any]) -> str:
    """The graph as a file."""
    return str(yaml.safe_dump(dict(graph), sort_keys=False, width=140))


def diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Unified diff of the two files; empty where nothing changes."""
    now, then = (graph_text(graph).splitlines(keepends=True) for graph in (before, after))
    return "".join(difflib.unified_diff(now, then, fromfile="graph.yaml (now)", tofile="graph.yaml (then)"))


def need_exchangeable(champion: ModelManifest, candidate: ModelManifest) -> None:
    """Raises InputError unless both models can stand behind the same transformer, rules and constraints."""
    if champion.features_hash != candidate.features_hash:
        raise InputError(
            f"The candidate was trained on features {candidate.features_hash}, the champion on {champion.features_hash}: one transformer "
            "cannot serve both, so a canary is impossible. Deploy the new features to both first."
        )
    if {promo.promo_id: promo for promo in champion.promos} != {promo.promo_id: promo for promo in candidate.promos}:
        raise InputError("Champion and candidate know different promos, so rules and budgets cannot hold for both; train on one catalogue.")
