"""graph + request body -> response, as KServe's router executes it (cmd/router, identical from 0.17 to 0.20).

What surprises, all of it deliberate here: `$response` only counts in a Sequence after its first step; an unmet condition ends a
Sequence with status 200 and the previous body; a soft failure's error body is the next step's input; a transport failure is a 500 of
the whole graph whatever the dependency says; an Ensemble re-encodes JSON. Bytes pass untouched everywhere else.
"""

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import pygjson

from serving.kserve.go_json import reencode
from serving.kserve.inference_graph import InferenceGraph, Node, Step

NO_MATCH = "None of the routes matched with the switch condition"


class RouteError(Exception):
    """The graph itself failed; `status` is what the router answers when the failing node is the root."""

    def __init__(self, cause: str, status: int = 500) -> None:
        super().__init__(cause)
        self.status = status


@dataclass(frozen=True)
class Response:
    """Body and status of a step, a node or the graph."""

    body: bytes
    status: int

    @property
    def ok(self) -> bool:
        """Any 2xx."""
        return 200 <= self.status < 300


def is_json(body: bytes) -> bool:
    """Whether the body is one valid JSON value."""
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def matches(body: bytes, condition: str) -> bool:
    """Whether the gjson path exists in the body; a bare path exists for false, 0, null and [] too. An empty path never does."""
    return bool(condition) and bool(pygjson.get_bytes(body, condition).exists())


def error_body(cause: str) -> bytes:
    """The router's own error document."""
    return json.dumps({"error": "Failed to process request", "cause": cause}, separators=(",", ":")).encode()


def _predictions_as_instances(body: bytes) -> bytes:
    try:
        document = json.loads(body)
    except ValueError:
        return body
    predictions = document.get("predictions") if isinstance(document, dict) else None
    return reencode({"instances": predictions}) if isinstance(predictions, list) and predictions else body


class Router:
    """Executes one graph over one pool of kept-alive connections."""

    def __init__(self, graph: InferenceGraph, session: aiohttp.ClientSession, draw: random.Random | None = None) -> None:
        self._graph = graph
        self._session = session
        self._draw = draw or random.Random()  # noqa: S311  a split of traffic, not a secret

    async def handle(self, body: bytes, headers: Mapping[str, str]) -> Response:
        """Run the graph from its root; failures of the graph become the router's error document."""
        try:
            return await self._node("root", body, headers)
        except RouteError as error:
            return Response(error_body(str(error)), error.status)

    async def _node(self, name: str, body: bytes, headers: Mapping[str, str]) -> Response:
        node = self._graph.nodes.get(name)
        if node is None:
            raise RouteError("invalid route type: ")
        run = {"Sequence": self._sequence, "Ensemble": self._ensemble, "Switch": self._switch, "Splitter": self._splitter}
        return await run[node.router_type](node, body, headers)

    async def _sequence(self, node: Node, body: bytes, headers: Mapping[str, str]) -> Response:
        previous: Response | None = None
        for step in node.steps:
            if step.condition:
                if previous is None or not is_json(previous.body):
                    raise RouteError("invalid response")
                if not matches(previous.body, step.condition):
                    return Response(previous.body, 200)
            request = previous.body if previous is not None and step.data == "$response" else body
            previous = await self._step(step, request, headers)
            if step.hard and not previous.ok:
                return previous
        if previous is None:
            raise RouteError("the node has no steps")
        return previous

    async def _switch(self, node: Node, body: bytes, headers: Mapping[str, str]) -> Response:
        chosen = next((s for s in node.steps if is_json(body) and matches(body, s.condition)), None)
        if chosen is None:
            raise RouteError(NO_MATCH, status=404)
        return await self._step(chosen, body, headers)

    async def _splitter(self, node: Node, body: bytes, headers: Mapping[str, str]) -> Response:
        point, total = self._draw.randrange(100), 0
        for step in node.steps:
            total += step.weight
            if point < total:
                return await self._step(step, body, headers)
        raise RouteError("no step was picked; the weights of a Splitter must sum to 100")

    async def _ensemble(self, node: Node, body: bytes, headers: Mapping[str, str]) -> Response:
        results = await asyncio.gather(*(self._step(step, body, headers) for step in node.steps))
        merged: dict[str, Any] = {}
        for index, (step, result) in enumerate(zip(node.steps, results, strict=True)):
            try:
                document = json.loads(result.body)
            except ValueError as error:
                raise RouteError(str(error)) from error
            if not isinstance(document, dict):
                raise RouteError(f"step '{step.name or index}' answered {type(document).__name__}; an Ensemble merges objects only")
            if step.hard and not result.ok:
                return Response(reencode(document), result.status)
            merged[step.name or str(index)] = document
        return Response(reencode(merged), 200)

    async def _step(self, step: Step, body: bytes, headers: Mapping[str, str]) -> Response:
        if step.map_predictions:
            body = _predictions_as_instances(body)
        if not step.node:
            return await self._call(step.url, body, headers)
        try:
            return await self._node(step.node, body, headers)
        except RouteError as error:  # below the root every failure of the graph is a 500
            raise RouteError(str(error)) from error

    async def _call(self, url: str, body: bytes, headers: Mapping[str, str]) -> Response:
        try:
            async with self._session.post(url, data=body, headers={"Content-Type": "application/json", **headers}) as response:
                return Response(await response.read(), response.status)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise RouteError(f'Post "{url}": {error or type(error).__name__}') from error
