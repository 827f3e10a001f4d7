"""A graph file -> what KServe's schema and webhooks let through although the router will not do what is meant (notes: kserve.md 1.2, 5)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from promolift.yaml_file import YamlFile, nearest, read_yaml
from serving.kserve.graph_file import ROOT, Graph, Node, Step, parse_graph

NAME = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
ROUTERS = {
    "Splitter": "draws anew for every request; a Switch on a bucket is sticky",
    "Ensemble": "answers 500 when any step cannot be reached, and writes numbers and '<>&' anew",
}
Level = Literal["error", "warning"]
Found = tuple[Level, tuple[str | int, ...], str]


@dataclass(frozen=True)
class Finding:
    """An `error` makes requests fail or go where they should not; a `warning` is legal and rarely meant. `line` from 1."""

    line: int | None
    level: Level
    sentence: str


def lint(path: Path) -> list[Finding]:
    """Findings in the order of the file's lines. Raises InputError for a file that no cluster would take."""
    file = read_yaml(path, "Graph file", "--graph")
    graph = parse_graph(file.data, str(path), _Anything())
    found = [*_names(file.data), *_nodes(graph), *(f for name, node in graph.nodes.items() for f in _node(name, node)), *_timeouts(graph)]
    findings = [Finding(_line(file, keys), level, sentence) for level, keys, sentence in found]
    return sorted(findings, key=lambda finding: (finding.line or 0, finding.sentence))


class _Anything(dict[str, str]):
    """A URL for every step: where services are is not the file's to say."""

    def get(self, key: str, default: Any = None) -> Any:
        """Some URL."""
        return "http://a-service"


def _line(file: YamlFile, keys: tuple[str | int, ...]) -> int | None:
    found = re.search(r", line (\d+):", str(file.wrong(keys, "")))
    return int(found[1]) if found else None


def _names(document: Any) -> Iterator[Found]:
    name = str((document.get("metadata") or {}).get("name", ""))
    if not NAME.match(name):
        yield "error", ("metadata", "name"), f"the name '{name}' is refused: small letters, digits and '-', a letter first"


def _nodes(graph: Graph) -> Iterator[Found]:
    reached, waiting = {ROOT}, [ROOT]
    while waiting:
        name = waiting.pop()
        for index, step in enumerate(graph.nodes[name].steps):
            if step.node and step.node not in graph.nodes:
                sentence = f"there is no node '{step.node}', and every request through it is a 500; {nearest(step.node, graph.nodes)}"
                yield "error", _place(name, index, "nodeName"), sentence
            elif step.node and step.node not in reached:
                reached.add(step.node)
                waiting.append(step.node)
    for name in graph.nodes:
        if name not in reached:
            yield "warning", ("spec", "nodes", name), f"no step leads to '{name}'"


def _node(name: str, node: Node) -> Iterator[Found]:
    for index, step in enumerate(node.steps):
        for level, key, sentence in (*_data(node, index, step), *_condition(node, index, step), *_dependency(node, step)):
            yield level, _place(name, index, key), f"step '{step.name or index}' {sentence}"
    if node.router == "Switch" and node.steps[-1].condition != "@this":
        end = _place(name, len(node.steps) - 1, "condition")
        yield "warning", end, f"Switch '{name}' has no last step with condition '@this': what matches nothing is a 404, nested a 500"
    if node.router in ROUTERS:
        yield "warning", ("spec", "nodes", name, "routerType"), f"{node.router} '{name}' {ROUTERS[node.router]}"


def _data(node: Node, index: int, step: Step) -> Iterator[tuple[Level, str, str]]:
    if step.data and step.data not in ("$response", "$request"):
        yield "error", "data", f"has data '{step.data}'; only $response has an effect, everything else sends the node's input"
    elif step.data == "$response" and node.router != "Sequence":
        yield "warning", "data", f"has data $response, which a {node.router} does not look at"
    elif step.data == "$response" and index == 0:
        yield "warning", "data", "is the first and has data $response: there is no response yet, it gets the node's input"
    if step.map_predictions:
        yield "warning", "mapPredictionsToInstances", "drops every field but the predictions"


def _condition(node: Node, index: int, step: Step) -> Iterator[tuple[Level, str, str]]:
    condition = step.condition
    if node.router == "Switch" and not condition:
        yield "error", "condition", "has no condition and never matches; write '@this' for a default"
    if not condition:
        return
    if node.router in ("Splitter", "Ensemble"):
        yield "warning", "condition", f"has a condition, which a {node.router} does not look at"
    elif node.router == "Sequence" and index == 0:
        yield "error", "condition", "is the first of a Sequence and has a condition: there is no response to ask, every request is a 500"
    if "&&" in condition or "||" in condition:
        yield "error", "condition", f"has the condition '{condition}', in which && and || match what they should not; let a step compute it"
    elif re.search(r"[<>=!]", condition) and "#(" not in condition:
        yield "error", "condition", f"compares outside a query in '{condition}', which never matches; write [@this].#({condition})"
    elif "#(" not in condition and condition != "@this" and not re.search(r"\.\d+$", condition):
        yield "warning", "condition", f"has the condition '{condition}', which false, 0, null and [] match too"


def _dependency(node: Node, step: Step) -> Iterator[tuple[Level, str, str]]:
    if step.hard and node.router in ("Splitter", "Switch"):
        yield "warning", "dependency", f"is Hard, which in a {node.router} changes nothing"


def _timeouts(graph: Graph) -> Iterator[Found]:
    if graph.timeout_s is None:
        yield "warning", ("spec",), "routerTimeouts.serviceClient is not set: the router waits for a step without end"


def _place(name: str, index: int, key: str) -> tuple[str | int, ...]:
    return ("spec", "nodes", name, "steps", index, key)
