"""Graph, request body and headers -> status and body, as KServe's router executes it (the semantics of v0.19 and later).

Every step is one POST. A step sees its node's input, or, in a Sequence with `data: $response`, the previous response; bytes pass
untouched except through an Ensemble and mapPredictionsToInstances. Conditions are gjson paths: true when the path exists, whatever
its value. A transport error of any step is a 500 of the graph whatever its dependency says.
"""

import asyncio
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pygjson

from serving.kserve import go_json
from serving.kserve.graph_file import ROOT, Graph, Node, Step

_NOT_FORWARDED = ("Host", "Content-Length", "Connection", "Transfer-Encoding")


@dataclass(frozen=True)
class Answer:
    """Status and body of a step, a node or the graph."""

    status: int
    body: bytes

    @property
    def successful(self) -> bool:
        """A 2xx."""
        return 200 <= self.status <= 299


class RoutingError(Exception):
    """The graph cannot answer; `status` is what the root returns, any node above turns it into a 500."""

    def __init__(self, cause: str, status: int = 500) -> None:
        super().__init__(cause)
        self.status = status


class Caller(Protocol):
    """Posts a body to a URL and returns the answer. Raises OSError or TimeoutError on any transport failure."""

    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """One POST."""
        ...


class Router:
    """Runs one graph; `patterns`: regular expressions of header names that are passed on to steps (PROPAGATE_HEADERS)."""

    def __init__(self, graph: Graph, call: Caller, patterns: Sequence[re.Pattern[str]] = ()) -> None:
        self._graph = graph
        self._call = call
        self._patterns = patterns

    async def handle(self, body: bytes, headers: Sequence[tuple[str, str]]) -> Answer:
        """The graph's answer to one request."""
        try:
            return await self._node(ROOT, body, self._propagated(headers))
        except RoutingError as problem:
            return Answer(problem.status, f'{{"error":"Failed to process request","cause":{go_json.write(str(problem))}}}'.encode())

    def _propagated(self, headers: Sequence[tuple[str, str]]) -> dict[str, str]:
        """Headers that match a pattern by their canonical name (X-Request-Id); Content-Type unless one does: JSON."""
        kept = {"Content-Type": "application/json"}
        for name, value in headers:
            canonical = "-".join(part.capitalize() for part in name.split("-"))
            if canonical not in _NOT_FORWARDED and any(p.search(canonical) for p in self._patterns):
                kept[canonical] = value
        return kept

    async def _node(self, name: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        node = self._graph.nodes.get(name)
        if node is None:
            raise RoutingError("invalid route type: ")
        run = {"Sequence": self._sequence, "Switch": self._switch, "Splitter": self._splitter, "Ensemble": self._ensemble}[node.router]
        return await run(node, body, headers)

    async def _step(self, step: Step, body: bytes, headers: Mapping[str, str]) -> Answer:
        try:
            if step.node:
                return await self._node(step.node, body, headers)
            return await self._call(step.url, body, headers)
        except RoutingError as problem:
            raise RoutingError(str(problem)) from problem
        except (OSError, TimeoutError) as problem:
            raise RoutingError(f'Post "{step.url}": {problem or type(problem).__name__}') from problem

    async def _sequence(self, node: Node, body: bytes, headers: Mapping[str, str]) -> Answer:
        answer = Answer(200, b"")
        for index, step in enumerate(node.steps):
            request = answer.body if step.data == "$response" and index > 0 else body
            if step.condition:
                if not pygjson.validate(answer.body):
                    raise RoutingError("invalid response")
                if not exists(answer.body, step.condition):
                    return Answer(200, answer.body)
            answer = await self._step(step, _mapped(request) if step.map_predictions else request, headers)
            if step.hard and not answer.successful:
                return answer
        return answer

    async def _switch(self, node: Node, body: bytes, headers: Mapping[str, str]) -> Answer:
        valid = pygjson.validate(body)
        for step in node.steps:
            if valid and exists(body, step.condition):
                return await self._step(step, body, headers)
        raise RoutingError("None of the routes matched with the switch condition", status=404)

    async def _splitter(self, node: Node, body: bytes, headers: Mapping[str, str]) -> Answer:
        point = secrets.randbelow(100)
        for step in node.steps:
            point -= step.weight
            if point < 0:
                return await self._step(step, body, headers)
        raise RoutingError("no route was drawn")

    async def _ensemble(self, node: Node, body: bytes, headers: Mapping[str, str]) -> Answer:
        running = [asyncio.create_task(self._member(step, body, headers)) for step in node.steps]
        merged = {}
        try:
            for index, (step, task) in enumerate(zip(node.steps, running, strict=True)):
                status, document = await _first_failure_or(task, running)
                if step.hard and not Answer(status, b"").successful:
                    return Answer(status, go_json.write(document).encode())
                merged[step.name or str(index)] = document
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return Answer(200, go_json.write(merged).encode())

    async def _member(self, step: Step, body: bytes, headers: Mapping[str, str]) -> tuple[int, object]:
        answer = await self._step(step, body, headers)
        try:
            return answer.status, go_json.read_object(answer.body)
        except ValueError as problem:
            raise RoutingError(str(problem)) from problem


def exists(body: bytes, condition: str) -> bool:
    """Whether the gjson path finds anything in valid JSON; an empty path never does."""
    return bool(pygjson.get_bytes(body, condition).exists())


def compile_patterns(text: str) -> list[re.Pattern[str]]:
    """Patterns of a comma-separated list; one that is no regular expression is left out, as KServe does."""
    compiled = []
    for pattern in filter(None, text.split(",")):
        try:
            compiled.append(re.compile(pattern))
        except re.error:
            continue
    return compiled


async def _first_failure_or(
    task: asyncio.Task[tuple[int, object]], running: Sequence[asyncio.Task[tuple[int, object]]]
) -> tuple[int, object]:
    """The task's result, unless a member that failed meanwhile speaks first: the router answers 500 at once."""
    pending = set(running)
    while not task.done():
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for member in done:
            if member is not task and member.exception() is not None:
                return member.result()
    return task.result()


def _mapped(body: bytes) -> bytes:
    """`{"instances": predictions}` when the body holds a list of predictions that is not empty; every other field is dropped."""
    try:
        document = go_json.read_object(body)
    except ValueError:
        return body
    predictions = (document or {}).get("predictions")
    return go_json.write({"instances": predictions}).encode() if isinstance(predictions, list) and predictions else body
