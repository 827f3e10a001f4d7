"""CloudEvents as KServe's payload logger sends them, in every mode of the binding, and what is no event."""

import json

import numpy as np
import pytest

from promolift.contracts.decisions import dump, dump_bytes
from serving.detector.events import REQUEST, RESPONSE, Event, EventError, read_events
from tests.promolift.drift_world import FIRST, envelope

ANSWER = envelope(1, 5, FIRST, np.random.default_rng(1))
HEADERS = {
    "ce-id": "abc", "ce-type": RESPONSE, "ce-source": "http://localhost:9081/", "ce-specversion": "1.0", "content-type": "application/json",
    "ce-inferenceservicename": "promo-predictor", "ce-namespace": "promolift", "ce-endpoint": "predict",
}  # fmt: skip


def structured(**changed: object) -> dict[str, object]:
    attributes = {name.removeprefix("ce-"): value for name, value in HEADERS.items() if name.startswith("ce-")}
    return {**attributes, "data": dump(ANSWER), **changed}


def test_binary_structured_and_batched_events_say_the_same():
    (binary,) = read_events(HEADERS, dump_bytes(ANSWER))
    (one,) = read_events({"content-type": "application/cloudevents+json; charset=utf-8"}, json.dumps(structured()).encode())
    batch = read_events({"content-type": "application/cloudevents-batch+json"}, json.dumps([structured(), structured(id="2")]).encode())
    assert binary == one == batch[0] == Event("abc", "response", "promo-predictor", None, ANSWER)
    assert isinstance(batch[1], Event) and batch[1].id == "2"
    (asked,) = read_events({**HEADERS, "ce-type": REQUEST, "ce-time": "2026-11-29T10:00:00.123456789Z"}, dump_bytes(ANSWER))
    assert isinstance(asked, Event) and asked.kind == "request" and asked.seconds == pytest.approx(1_795_946_400.123, abs=1)


def test_one_bad_event_of_a_batch_does_not_spoil_the_others():
    content = json.dumps([structured(), {"id": "2"}, 7, structured(data={"instances": [1]})]).encode()
    found = read_events({"content-type": "application/cloudevents-batch+json"}, content)
    assert [problem.reason if isinstance(problem, EventError) else "taken" for problem in found] == [
        "taken",
        "no_event",
        "no_event",
        "no_envelope",
    ]


@pytest.mark.parametrize(
    ("headers", "body", "reason", "said"),
    [
        ({"ce-id": ""}, dump_bytes(ANSWER), "no_event", "no attribute 'id'"),
        ({"ce-source": ""}, dump_bytes(ANSWER), "no_event", "no attribute 'source'"),
        ({"ce-type": "org.kubeflow.serving.inference.outlier"}, dump_bytes(ANSWER), "other_type", "say nothing of drift"),
        ({"ce-time": "yesterday"}, dump_bytes(ANSWER), "clock", "'yesterday' is no moment"),
        ({}, b"no JSON", "no_json", "is no JSON"),
        ({}, b"", "no_json", "is no JSON"),
        ({}, b'{"instances": [[1.0, 2.0]]}', "no_envelope", "no envelope of a decision: request"),
        ({}, dump_bytes(ANSWER).replace(b'"visits":', b'"visits":[1],"x":'), "no_envelope", "shopper"),
        ({"content-type": "application/cloudevents+json"}, b"[]", "no_event", "must be a JSON object"),
        ({"content-type": "application/cloudevents+json"}, b"{", "no_json", "is no JSON"),
        ({"content-type": "application/cloudevents-batch+json"}, b"{}", "no_event", "must be a JSON list"),
    ],
)
def test_what_is_no_event_is_said(headers: dict[str, str], body: bytes, reason: str, said: str):
    with pytest.raises(EventError, match=said) as problem:
        read_events({**HEADERS, **headers}, body)
    assert problem.value.reason == reason
