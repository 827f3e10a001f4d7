"""InferenceGraph YAML -> Graph: nodes and steps whose URLs are known, checked as far as the API server and its webhook check.

What KServe's router only notices while serving (a node that does not exist, a useless condition) stays a runtime matter here too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from promolift.errors import InputError
from promolift.yaml_file import nearest, read_yaml

T = TypeVar("T")
RouterType = Literal["Sequence", "Splitter", "Ensemble", "Switch"]
ROUTER_TYPES: tuple[RouterType, ...] = get_args(RouterType)
STEP_KEYS = ("name", "nodeName", "serviceName", "serviceUrl", "data", "condition", "weight", "dependency", "mapPredictionsToInstances")
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


class GraphFileError(InputError):
    """What is wrong in a graph file; `keys` lead to where it stands."""

    def __init__(self, sentence: str, keys: tuple[str | int, ...]) -> None:
        super().__init__(sentence)
        self.keys = keys


@dataclass(frozen=True)
class _Place:
    """A part of the document: how errors call it, and the keys that lead to it."""

    name: str
    keys: tuple[str | int, ...] = ()

    def below(self, name: str, *keys: str | int) -> "_Place":
        """A part of this part."""
        return _Place(f"{self.name}{name}", (*self.keys, *keys))

    def need(self, holds: bool, sentence: str, *keys: str | int) -> None:
        """Raises GraphFileError: the place's name with `sentence`."""
        if not holds:
            raise GraphFileError(f"{self.name}{sentence}", (*self.keys, *keys))


def read_graph(path: Path, urls: Mapping[str, str]) -> Graph:
    """The graph of a YAML file; `urls` gives steps by name the URL that a cluster would resolve from `serviceName`.

    Raises InputError, one sentence that names file, line, node and step.
    """
    file = read_yaml(path, "Graph file", "--graph")
    try:
        return parse_graph(file.data, str(path), urls)
    except GraphFileError as problem:
        sentence = str(problem).removeprefix(str(path)).removeprefix(":").strip()
        raise file.wrong(problem.keys, sentence) from problem


def parse_graph(document: Any, source: str, urls: Mapping[str, str]) -> Graph:
    """The graph of a parsed document; `source` names it in errors."""
    top = _Place(source)
    top.need(isinstance(document, dict), f" holds no Kubernetes object; it must be an {KIND} of {API_VERSION}.")
    what = (document.get("apiVersion"), document.get("kind"))
    top.need(what == (API_VERSION, KIND), f" is a {what[1]!r} of {what[0]!r}; only an {KIND} of {API_VERSION} can be run.", "kind")
    spec = document.get("spec")
    nodes = spec.get("nodes") if isinstance(spec, dict) else None
    if not isinstance(nodes, dict) or ROOT not in nodes:
        raise GraphFileError(f"{source}: spec.nodes must be a mapping with a node named '{ROOT}'.", ("spec", "nodes"))
    graph = {str(name): _node(node, top.below(f": node '{name}'", "spec", "nodes", name), urls) for name, node in nodes.items()}
    _check_acyclic(graph, ROOT, (), top)
    timeouts = _value(spec, "routerTimeouts", dict, top.below(": spec", "spec"))
    metadata = _value(document, "metadata", dict, top)
    place = top.below(": spec.routerTimeouts", "spec", "routerTimeouts")
    limit = _value(timeouts, "serviceClient", int, place) or None
    place.need(limit is None or limit > 0, f".serviceClient is {limit}; it must be 1 or more seconds.", "serviceClient")
    return Graph(_value(metadata, "name", str, top.below(": metadata", "metadata")) or "graph", graph, limit)


def _value(document: Mapping[str, Any], key: str, kind: type[T], where: _Place) -> T:
    """The value under `key`, or the type's empty one where there is none. Raises InputError for another type; true is no number."""
    value = document.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        found = f": {key} is {str(value)[:60]!r} of type {type(value).__name__}; it must be of type {kind.__name__}."
        raise GraphFileError(f"{where.name}{found}", (*where.keys, key))
    return value


def _node(document: Any, where: _Place, urls: Mapping[str, str]) -> Node:
    where.need(isinstance(document, dict), " must be a mapping with routerType and steps.")
    router, steps = document.get("routerType"), document.get("steps")
    known = nearest(str(router), ROUTER_TYPES)
    where.need(router in ROUTER_TYPES, f" has routerType {router!r}; it must be one of {', '.join(ROUTER_TYPES)}: {known}.", "routerType")
    where.need(isinstance(steps, list) and bool(steps), " has no steps; the router would close every connection.", "steps")
    parsed = tuple(_step(step, where.below(f", step {index}", "steps", index), urls) for index, step in enumerate(steps))
    names = [step.name for step in parsed if step.name]
    twice = ", ".join(sorted(n for n in names if names.count(n) > 1))
    where.need(len(set(names)) == len(names), f" names a step twice: {twice}.", "steps")
    if router == "Splitter":
        where.need(min(step.weight for step in parsed) >= 0, " has a weight below 0.", "steps")
        total = sum(step.weight for step in parsed)
        where.need(total == 100, f" has weights that add up to {total}; the weights of a Splitter must add up to 100.", "steps")
    return Node(router, parsed)


def _step(document: Any, where: _Place, urls: Mapping[str, str]) -> Step:
    where.need(isinstance(document, dict), " must be a mapping.")
    name = _value(document, "name", str, where)
    unknown = [key for key in document if key not in STEP_KEYS]
    where.need(not unknown, f" ('{name}') has the key '{''.join(map(str, unknown[:1]))}', which no step has.", *unknown[:1])
    targets = [key for key in ("nodeName", "serviceName", "serviceUrl") if _value(document, key, str, where)]
    where.need(len(targets) == 1, f" ('{name}') must have exactly one of nodeName, serviceName and serviceUrl, not {targets}.")
    dependency = document.get("dependency", "Soft")
    where.need(dependency in ("Soft", "Hard"), f" ('{name}') has dependency {dependency!r}; it must be Soft or Hard.", "dependency")
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


def _url(document: Mapping[str, Any], name: str, where: _Place, urls: Mapping[str, str]) -> str:
    if document.get("nodeName"):
        return ""
    url = urls.get(name) or document.get("serviceUrl")
    service = document.get("serviceName")
    where.need(bool(url), f" ('{name}') names service '{service}', which only a cluster can resolve; give --url {name}=URL.", "serviceName")
    return str(url)


def _check_acyclic(nodes: Mapping[str, Node], name: str, above: tuple[str, ...], where: _Place) -> None:
    way = " -> ".join((*above, name))
    where.need(name not in above, f": node '{name}' leads back to itself ({way}); it would never answer.", "spec", "nodes", name)
    for step in nodes[name].steps if name in nodes else ():
        if step.node:
            _check_acyclic(nodes, step.node, (*above, name), where)
