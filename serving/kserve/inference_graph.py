"""graph.yaml -> frozen dataclasses: the part of KServe's InferenceGraph that its router reads (notes: CRD v1alpha1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from promolift.errors import InputError

ROUTER_TYPES = ("Sequence", "Splitter", "Ensemble", "Switch")


@dataclass(frozen=True)
class Step:
    """One step of a node; exactly one of `url` and `node` is set."""

    name: str
    url: str = ""
    node: str = ""
    data: str = ""
    condition: str = ""
    hard: bool = False
    weight: int = 0
    map_predictions: bool = False


@dataclass(frozen=True)
class Node:
    """A router node: how its steps are combined."""

    router_type: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class InferenceGraph:
    """A whole graph; `nodes["root"]` is entered first. `client_timeout_s`: None is no timeout, as in KServe's router."""

    name: str
    nodes: Mapping[str, Node]
    client_timeout_s: float | None = None


def _step(node: str, index: int, raw: Mapping[str, Any], urls: Mapping[str, str]) -> Step:
    name = str(raw.get("name", ""))
    url = urls.get(name) or str(raw.get("serviceUrl", ""))
    if not url and not raw.get("nodeName"):
        target = raw.get("serviceName", "nothing")
        raise InputError(
            f"Step '{name or index}' of node '{node}' points at '{target}', which only a cluster can resolve; "
            f"give its address with --url {name or 'STEP'}=http://HOST:PORT/PATH or as serviceUrl."
        )
    return Step(
        name=name,
        url=url,
        node="" if url else str(raw["nodeName"]),
        data=str(raw.get("data", "")),
        condition=str(raw.get("condition", "")),
        hard=raw.get("dependency") == "Hard",
        weight=int(raw.get("weight", 0)),
        map_predictions=bool(raw.get("mapPredictionsToInstances", False)),
    )


def _node(name: str, raw: Mapping[str, Any], urls: Mapping[str, str]) -> Node:
    router_type = raw.get("routerType")
    if router_type not in ROUTER_TYPES:
        raise InputError(f"Node '{name}' has routerType '{router_type}'; KServe knows {', '.join(ROUTER_TYPES)}.")
    return Node(router_type, tuple(_step(name, i, step, urls) for i, step in enumerate(raw.get("steps") or ())))


def parse_graph(document: Any, urls: Mapping[str, str]) -> InferenceGraph:
    """Graph of a parsed manifest; `urls` maps step names to addresses. Raises InputError for anything that the router could not run."""
    if not isinstance(document, dict) or document.get("kind") != "InferenceGraph":
        kind = document.get("kind") if isinstance(document, dict) else type(document).__name__
        raise InputError(f"The manifest's kind is '{kind}'; expected 'InferenceGraph' (serving.kserve.io/v1alpha1).")
    spec = document.get("spec") or {}
    nodes = {name: _node(name, raw, urls) for name, raw in (spec.get("nodes") or {}).items()}
    if "root" not in nodes:
        raise InputError(f"The graph has no node 'root'; its nodes are {sorted(nodes) or 'none'}.")
    timeout = (spec.get("routerTimeouts") or {}).get("serviceClient")
    return InferenceGraph(str((document.get("metadata") or {}).get("name", "")), nodes, timeout)


def read_graph(path: Path, urls: Mapping[str, str] | None = None) -> InferenceGraph:
    """Graph of the manifest at `path`. Raises InputError when the file is missing, no YAML, or not a graph."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"Cannot read the graph '{path}': {error.strerror}. Give an InferenceGraph manifest with --graph.") from error
    except yaml.YAMLError as error:
        raise InputError(f"'{path}' is not valid YAML: {' '.join(str(error).split())}") from error
    return parse_graph(document, urls or {})
