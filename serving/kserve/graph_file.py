"""InferenceGraph YAML -> Graph: nodes and steps whose URLs are known, checked as far as the API server and its webhook check.

What KServe's router only notices while serving (a node that does not exist, a useless condition) stays a runtime matter here too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml

from promolift.errors import InputError

T = TypeVar("T")
RouterType = Literal["Sequence", "Splitter", "Ensemble", "Switch"]
ROUTER_TYPES: tuple[RouterType, ...] = get_args(RouterType)
API_VERSION, KIND, ROOT = "serving.kserve.io/v1alpha1", "InferenceGraph", "root"


@dataclass(frozen=True)
class Step:
    """One step: exactly one of `node` (another node of the graph) and `url`; `hard` is dependency: Hard."""

    name: str
    node: str = ""
    url: str = ""
    data: str = ""
    condition: str = ""
    weight: int = 0
    hard: bool = False
    map_predictions: bool = False


@dataclass(frozen=True)
class Node:
    """A router and its steps."""

    router: RouterType
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Graph:
    """A whole graph; `timeout_s` limits one call of a step (routerTimeouts.serviceClient), None is no limit."""

    name: str
    nodes: Mapping[str, Node]
    timeout_s: float | None = None


def read_graph(path: Path, urls: Mapping[str, str]) -> Graph:
    """The graph of a YAML file; `urls` gives steps by name the URL that a cluster would resolve from `serviceName`.

    Raises InputError, one sentence that names file, node and step.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise InputError(f"Graph file {path} cannot be read ({problem.strerror}); name an existing file with --graph.") from problem
    except (yaml.YAMLError, ValueError, RecursionError) as problem:  # a date that is none is a ValueError
        raise InputError(f"Graph file {path} is not YAML: {' '.join(str(problem).split())}.") from problem
    return parse_graph(document, str(path), urls)


def parse_graph(document: Any, source: str, urls: Mapping[str, str]) -> Graph:
    """The graph of a parsed document; `source` names it in errors."""
    _check(isinstance(document, dict), f"{source} holds no Kubernetes object; it must be an {KIND} of {API_VERSION}.")
    what = (document.get("apiVersion"), document.get("kind"))
    _check(what == (API_VERSION, KIND), f"{source} is a {what[1]!r} of {what[0]!r}; only an {KIND} of {API_VERSION} can be run.")
    spec = document.get("spec")
    nodes = spec.get("nodes") if isinstance(spec, dict) else None
    if not isinstance(nodes, dict) or ROOT not in nodes:
        raise InputError(f"{source}: spec.nodes must be a mapping with a node named '{ROOT}'.")
    graph = {str(name): _node(node, f"{source}: node '{name}'", urls) for name, node in nodes.items()}
    _check_acyclic(graph, ROOT, (), source)
    timeouts = _value(spec, "routerTimeouts", dict, f"{source}: spec")
    metadata = _value(document, "metadata", dict, source)
    limit = _value(timeouts, "serviceClient", int, f"{source}: spec.routerTimeouts") or None
    _check(limit is None or limit > 0, f"{source}: spec.routerTimeouts.serviceClient is {limit}; it must be 1 or more seconds.")
    return Graph(_value(metadata, "name", str, f"{source}: metadata") or "graph", graph, limit)


def _value(document: Mapping[str, Any], key: str, kind: type[T], where: str) -> T:
    """The value under `key`, or the type's empty one where there is none. Raises InputError for another type; true is no number."""
    value = document.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{where}: {key} is {str(value)[:60]!r} of type {type(value).__name__}; it must be of type {kind.__name__}.")
    return value


def _check(holds: bool, sentence: str) -> None:
    if not holds:
        raise InputError(sentence)


def _node(document: Any, where: str, urls: Mapping[str, str]) -> Node:
    _check(isinstance(document, dict), f"{where} must be a mapping with routerType and steps.")
    router, steps = document.get("routerType"), document.get("steps")
    _check(router in ROUTER_TYPES, f"{where} has routerType {router!r}; it must be one of {', '.join(ROUTER_TYPES)}.")
    _check(isinstance(steps, list) and bool(steps), f"{where} has no steps; the router would close every connection.")
    parsed = tuple(_step(step, f"{where}, step {index}", urls) for index, step in enumerate(steps))
    names = [step.name for step in parsed if step.name]
    _check(len(set(names)) == len(names), f"{where} names a step twice: {', '.join(sorted(n for n in names if names.count(n) > 1))}.")
    if router == "Splitter":
        _check(min(step.weight for step in parsed) >= 0, f"{where} has a weight below 0.")
        total = sum(step.weight for step in parsed)
        _check(total == 100, f"{where} has weights that add up to {total}; the weights of a Splitter must add up to 100.")
    return Node(router, parsed)


def _step(document: Any, where: str, urls: Mapping[str, str]) -> Step:
    _check(isinstance(document, dict), f"{where} must be a mapping.")
    name = _value(document, "name", str, where)
    targets = [key for key in ("nodeName", "serviceName", "serviceUrl") if _value(document, key, str, where)]
    _check(len(targets) == 1, f"{where} ('{name}') must have exactly one of nodeName, serviceName and serviceUrl, not {targets}.")
    dependency = document.get("dependency", "Soft")
    _check(dependency in ("Soft", "Hard"), f"{where} ('{name}') has dependency {dependency!r}; it must be Soft or Hard.")
    return Step(
        name=name,
        node=document.get("nodeName") or "",
        url=_url(document, name, where, urls),
        data=_value(document, "data", str, where),
        condition=_value(document, "condition", str, where),
        weight=_value(document, "weight", int, where),
        hard=dependency == "Hard",
        map_predictions=_value(document, "mapPredictionsToInstances", bool, where),
    )


def _url(document: Mapping[str, Any], name: str, where: str, urls: Mapping[str, str]) -> str:
    if document.get("nodeName"):
        return ""
    url = urls.get(name) or document.get("serviceUrl")
    service = document.get("serviceName")
    _check(bool(url), f"{where} ('{name}') names service '{service}', which only a cluster can resolve; give --url {name}=URL.")
    return str(url)


def _check_acyclic(nodes: Mapping[str, Node], name: str, above: tuple[str, ...], source: str) -> None:
    _check(name not in above, f"{source}: node '{name}' leads back to itself ({' -> '.join((*above, name))}); it would never answer.")
    for step in nodes[name].steps if name in nodes else ():
        if step.node:
            _check_acyclic(nodes, step.node, (*above, name), source)
