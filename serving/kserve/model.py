"""A box -> a `kserve.Model` under KServe's own server, for whoever needs what that server has beyond the protocol.

`node.py` serves the same V1 and V2 endpoints with less around them (notes: kserve.md 1.9 has the times; a test holds the answers equal).

Import this module only when sys.argv holds nothing that kserve could take for its own: its argument parser runs on import.
"""

import socket
import warnings
from typing import Any

import kserve
from fastapi import Request
from fastapi.exceptions import FastAPIDeprecationWarning
from fastapi.responses import JSONResponse
from kserve.errors import InvalidInput
from kserve.model_server import app
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer
from pydantic import ValidationError

from promolift.contracts.decisions import NODES, Envelope, dump_bytes, read_envelope, read_request
from promolift.errors import PromoliftError
from serving.kserve.problem import RequestError, not_json, of_validation
from serving.kserve.stamp import Box


class Node(kserve.Model):  # type: ignore[misc] # kserve has no types
    """The first box of the graph takes a request document, every other one an envelope; all return the whole envelope."""

    def __init__(self, box: Box, name: str = "") -> None:
        super().__init__(name or box.name)
        self._box = box
        self.enable_latency_logging = False
        self.ready = True

    def predict(self, payload: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None) -> bytes:
        """The answer as JSON. Raises RequestError: 400 for a document that breaks its contract, else the status of the error's class."""
        try:
            return dump_bytes(self._box(self._read(payload)))
        except ValidationError as problem:
            raise of_validation(problem) from problem
        except PromoliftError as problem:
            raise RequestError(problem.http_status, problem.title, str(problem)) from problem

    def _read(self, payload: Any) -> Envelope:
        return Envelope(read_request(payload)) if self._box.name == NODES[0] else read_envelope(payload)


class CheckedDataPlane(DataPlane):  # type: ignore[misc]
    """KServe's data plane, except that a body that is no JSON gets a problem document too."""

    def decode(self, body: Any, headers: Any, *arguments: Any, **named: Any) -> Any:
        """The parsed body. Raises RequestError."""
        try:
            return super().decode(body, headers, *arguments, **named)
        except InvalidInput as problem:
            raise not_json(body, str(problem)) from problem


async def answer_problem(_: Request, problem: Exception) -> JSONResponse:
    """The problem document."""
    if not isinstance(problem, RequestError):
        raise problem
    return JSONResponse(problem.document, problem.status, media_type="application/problem+json")


def rest_server(box: Box, port: int, name: str = "") -> RESTServer:
    """KServe's REST server for one box, with no access log: at our rates a line a request is the dearest part of a step."""
    repository = kserve.ModelRepository()
    repository.update(Node(box, name))
    app.add_exception_handler(RequestError, answer_problem)
    server = RESTServer(
        "kserve.model_server:app", CheckedDataPlane(repository), ModelRepositoryExtension(repository), port, event_loop="uvloop"
    )  # fmt: skip
    server.config.access_log = False
    server.config.log_level = "warning"
    return server


def serve(box: Box, listener: socket.socket, name: str = "") -> None:
    """Serve a box until SIGINT or SIGTERM."""
    kserve.logging.logger.setLevel("WARNING")
    # kserve 0.21 answers its own endpoints with a class that fastapi 0.165 deprecates.
    warnings.filterwarnings("ignore", category=FastAPIDeprecationWarning)
    rest_server(box, listener.getsockname()[1], name).run(sockets=[listener])
