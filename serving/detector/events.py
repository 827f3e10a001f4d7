"""HTTP requests -> CloudEvents of KServe's payload logger, in binary, structured or batched mode, or the reason why one is refused.

Binding: CloudEvents 1.0 over HTTP. The logger sends binary ones: attributes in `ce-*` headers, the payload of :predict as the body, and
tells nobody whether they arrived (notes: kserve.md 2.4).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from promolift.contracts.decisions import Envelope, read_bytes, read_envelope
from promolift.errors import InputError

REQUEST, RESPONSE = "org.kubeflow.serving.inference.request", "org.kubeflow.serving.inference.response"
KINDS: dict[str, Literal["request", "response"]] = {REQUEST: "request", RESPONSE: "response"}
Reason = Literal[
    "added", "asked", "duplicate", "not_fitted", "unknown_version", "no_event", "no_json", "no_envelope", "other_type", "clock", "dropped",
    "too_large", "unanswered",
]  # fmt: skip
"""What became of an event, as the counter says it."""


class EventError(InputError):
    """An event that is refused, with the reason that is counted."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


@dataclass(frozen=True)
class Event:
    """One event. `service`: the InferenceService that was asked; `seconds`: its time since 1970, None for none."""

    id: str
    kind: Literal["request", "response"]
    service: str
    seconds: float | None
    envelope: Envelope


def read_events(headers: Mapping[str, str], body: bytes) -> list[Event | EventError]:
    """Every event of an HTTP request. Raises EventError where the request as a whole is none; of a batch each stands for itself."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/cloudevents-batch+json":
        documents = _json(body)
        if not isinstance(documents, list):
            raise EventError("no_event", "A batch of CloudEvents must be a JSON list.")
        return [_attempted(document) for document in documents]
    if kind == "application/cloudevents+json":
        return [_structured(_json(body))]
    attributes = {name.removeprefix("ce-"): value for name, value in headers.items() if name.startswith("ce-")}
    return [_event(attributes, body)]


def _attempted(document: Any) -> Event | EventError:
    try:
        return _structured(document)
    except EventError as problem:
        return problem


def _structured(document: Any) -> Event:
    if not isinstance(document, dict):
        raise EventError("no_event", "A CloudEvent in structured mode must be a JSON object.")
    attributes = {str(name).lower(): str(value) for name, value in document.items() if name not in {"data", "data_base64"}}
    return _event(attributes, document.get("data"))


def _event(attributes: Mapping[str, str], data: Any) -> Event:
    missing = [name for name in ("id", "type", "source", "specversion") if not attributes.get(name)]
    if missing:
        raise EventError(
            "no_event", f"The CloudEvent has no attribute '{missing[0]}'; KServe's payload logger sends it as ce-{missing[0]}."
        )
    kind = KINDS.get(attributes["type"])
    if kind is None:
        raise EventError("other_type", f"Events of type '{attributes['type']}' say nothing of drift; {' and '.join(KINDS)} do.")
    return Event(attributes["id"], kind, attributes.get("inferenceservicename", ""), _seconds(attributes.get("time")), _envelope(data))


def _seconds(time: str | None) -> float | None:
    if not time:
        return None
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError as problem:
        raise EventError("clock", f"The CloudEvent's time '{time}' is no moment; write it as RFC 3339.") from problem


def _envelope(data: Any) -> Envelope:
    try:
        return read_bytes(Envelope, data) if isinstance(data, bytes) else read_envelope(data)
    except ValidationError as problem:
        first = problem.errors()[0]
        if first["type"] == "json_invalid":
            raise EventError("no_json", "The event's data is no JSON.") from problem
        where = ".".join(map(str, first["loc"])) or "data"
        raise EventError("no_envelope", f"The event's data is no envelope of a decision: {where}: {first['msg']}.") from problem


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as problem:
        raise EventError("no_json", f"The body is no JSON ({problem}).") from problem
