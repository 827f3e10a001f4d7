"""The part of the Kubeflow Pipelines API (v2beta1) that a submission uses: it keeps what it was sent and tells of runs as it is told to."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API = "/apis/v2beta1"
BEGAN, ENDED = "2026-01-01T10:00:00Z", "2026-01-01T10:00:42Z"


def task(name: str, state: str, error: str = "") -> dict[str, Any]:
    """One task as a run's details tell of it."""
    ended = {"end_time": ENDED} if state != "RUNNING" else {}
    return {"display_name": name, "state": state, "start_time": BEGAN, **ended, **({"error": {"message": error}} if error else {})}


class Stub(ThreadingHTTPServer):
    """Answers with `states` one after another (the last one again and again) when it is asked for the run."""

    def __init__(self, states: list[dict[str, Any]], refuses: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.states, self.refuses = states, refuses
        self.sent: dict[str, Any] = {}
        self.tokens: set[str | None] = set()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.refuses in {401, 500}:
            return self._answer({"message": "no"}, self.server.refuses)
        if self.path.startswith(f"{API}/runs/r1"):
            states = self.server.states
            return self._answer({"run_id": "r1", **(states.pop(0) if len(states) > 1 else states[0])})
        return self._answer({"multi_user": False} if self.path.endswith("healthz") else {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == f"{API}/runs":
            self.server.sent = body
            if self.server.refuses == 400:
                return self._answer({"error": "unknown parameter"}, 400)
            return self._answer({"run_id": "r1"})
        return self._answer({"experiment_id": "e1", "display_name": body["display_name"]})

    def _answer(self, document: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def served(states: list[dict[str, Any]], refuses: int = 0) -> Iterator[Stub]:
    """The stub at work until the block ends."""
    with Stub(states, refuses) as stub:
        thread = threading.Thread(target=stub.serve_forever, daemon=True)
        thread.start()
        try:
            yield stub
        finally:
            stub.shutdown()
