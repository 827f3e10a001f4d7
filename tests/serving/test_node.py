"""The KServe adapter: V1 paths, health, and problem documents that name field and value."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from promolift.contracts.decisions import Envelope, dump, read_envelope, read_request
from promolift.contracts.features import RETAIL
from promolift.errors import ConflictError, UnavailableError
from serving.kserve.node import NodeApp
from serving.kserve.transformer import Ages, Transformer

pytestmark = [
    pytest.mark.slow,  # importing kserve takes seconds
    # kserve 0.21 builds its own answers with a response class that fastapi 0.165 deprecates
    pytest.mark.filterwarnings("ignore:ORJSONResponse is deprecated"),
    # kserve's dependencies (google.protobuf, pandas) on Python 3.11
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

ASKED = {"request_id": "r1", "shopper_id": "7", "moment": "2017-12-01T00:00:00Z"}


@dataclass
class Row:
    values: Mapping[str, Any]
    moment_s: float | None


@dataclass
class Known:
    """Online features of shopper 7; request id `twice` stands for one that was used before."""

    version: str = "v1"
    read_ids: list[str] = field(default_factory=list)
    defaults: dict[str, float | str] = field(default_factory=RETAIL.defaults)

    def read(self, shopper_id: str) -> Row:
        self.read_ids.append(shopper_id)
        if shopper_id == "conflict":
            raise ConflictError("Request id 'r1' was used before with other parameters.")
        if shopper_id == "gone":
            raise UnavailableError("The store of features is gone; start it.")
        return Row({"baskets_7d": 3}, 1512086400.0 - 60) if shopper_id == "7" else Row({}, None)


AGES = Ages(stale_s=3_600.0, expired_s=86_400.0)


def kserves(box: Transformer) -> Any:
    """The FastAPI application that KServe's RESTServer serves; kserve allows one a process."""
    from serving.kserve.model import rest_server

    server = rest_server(box, 0)
    server.create_application()
    server.config.load()
    return server.config.loaded_app


@pytest.fixture(scope="module")
def both() -> dict[str, Any]:
    """The two servers of one box."""
    return {"asgi": NodeApp(Transformer(Known(), AGES)), "kserve": kserves(Transformer(Known(), AGES))}


@pytest.fixture(scope="module", params=["asgi", "kserve"])
def application(request: Any, both: dict[str, Any]) -> Any:
    return both[request.param]


def call(application: Any, method: str, path: str, **fields: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://node") as client:
            return await client.request(method, path, **fields)

    return asyncio.run(run())


PREDICT = "/v1/models/transformer:predict"


def test_a_request_becomes_an_envelope(application: Any):
    answer = call(application, "POST", PREDICT, json=ASKED)
    assert answer.status_code == 200
    envelope = read_envelope(answer.json())
    assert envelope.request == read_request(ASKED)
    assert envelope.shopper is not None
    assert (envelope.shopper.found, envelope.shopper.age_s) == (True, 60.0)
    assert envelope.shopper.features == {**RETAIL.defaults(), "baskets_7d": 3.0}
    assert envelope.versions == {"transformer": "v1"}
    assert envelope.received_at is not None
    assert json.loads(answer.content) == dump(envelope)


def test_a_shopper_never_seen_gets_defaults(application: Any):
    envelope = read_envelope(call(application, "POST", PREDICT, json={**ASKED, "shopper_id": "new"}).json())
    assert envelope.shopper is not None
    assert (envelope.shopper.found, envelope.shopper.features) == (False, RETAIL.defaults())


@pytest.mark.parametrize(
    ("body", "field_name", "value"),
    [
        (b"{bad", "(body)", "b'{bad'"),
        (b"[1]", "(the whole document)", "[1]"),
        (json.dumps({**ASKED, "moment": "tomorrow"}).encode(), "moment", "'tomorrow'"),
        (json.dumps({**ASKED, "moment": "2018-02-30T00:00:00Z"}).encode(), "moment", "'2018-02-30T00:00:00Z'"),
        (json.dumps({**ASKED, "moment": "2018-02-03T24:61:00Z"}).encode(), "moment", "'2018-02-03T24:61:00Z'"),
        (json.dumps({**ASKED, "channel": "fax"}).encode(), "channel", "'fax'"),
        (json.dumps({**ASKED, "basket": [{"category": "meat", "amount_cents": -5}]}).encode(), "basket.0.amount_cents", "-5"),
        (json.dumps({**ASKED, "extra": 1}).encode(), "extra", "1"),
        (json.dumps({"request_id": "r", "moment": ASKED["moment"]}).encode(), "shopper_id", "(missing)"),
        (json.dumps({**ASKED, "store_id": "x" * 300}).encode(), "store_id", "xxx…"),
    ],
)
def test_a_wrong_document_is_a_400_that_names_field_and_value(application: Any, body: bytes, field_name: str, value: str):
    answer = call(application, "POST", PREDICT, content=body, headers={"content-type": "application/json"})
    problem = answer.json()
    assert answer.status_code == problem["status"] == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["errors"][0]["field"] == field_name
    assert problem["errors"][0]["value"].endswith(value)
    assert field_name in problem["detail"] or field_name == "(body)"


def test_a_request_that_contradicts_an_earlier_one_is_a_409(application: Any):
    answer = call(application, "POST", PREDICT, json={**ASKED, "shopper_id": "conflict"})
    assert (answer.status_code, answer.json()["title"]) == (409, "The request contradicts an earlier one")
    assert "'r1' was used before" in answer.json()["detail"]


def test_what_cannot_be_had_is_a_503_with_a_problem_document(application: Any):
    answer = call(application, "POST", PREDICT, json={**ASKED, "shopper_id": "gone"})
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert answer.json()["detail"] == "The store of features is gone; start it."


def test_health_and_unknown_models(application: Any):
    assert call(application, "GET", "/v1/models/transformer").json() == {"name": "transformer", "ready": True}
    assert call(application, "GET", "/v2/health/ready").status_code == 200
    assert call(application, "POST", "/v1/models/other:predict", json=ASKED).status_code == 404
    assert b"request_predict_seconds" in (seen := call(application, "GET", "/metrics").content) or b"promolift_box_seconds" in seen


GETS = [
    "/", "/v1/models", "/v1/models/transformer", "/v2/health/live", "/v2/health/ready", "/v2/models", "/v2/models/transformer/ready",
]  # fmt: skip


@pytest.mark.parametrize("path", GETS)
def test_our_server_answers_kserves_endpoints_as_kserves_own_does(both: dict[str, Any], path: str):
    ours, theirs = (call(both[name], "GET", path) for name in ("asgi", "kserve"))
    assert (ours.status_code, ours.json()) == (theirs.status_code, theirs.json())


def test_our_server_decides_as_kserves_own_does(both: dict[str, Any]):
    for body in (ASKED, {**ASKED, "shopper_id": "new"}, {**ASKED, "channel": "fax"}, {**ASKED, "shopper_id": "conflict"}):
        ours, theirs = (call(both[name], "POST", PREDICT, json=body) for name in ("asgi", "kserve"))
        assert ours.status_code == theirs.status_code
        skip = ("received_at", "timings_ms")
        assert {k: v for k, v in ours.json().items() if k not in skip} == {k: v for k, v in theirs.json().items() if k not in skip}
        # KServe's server names no type for an answer that is bytes already.
        assert ours.headers["content-type"] == theirs.headers.get("content-type", "application/json")


def test_a_wrong_method_and_a_body_that_is_too_large_are_problems(both: dict[str, Any]):
    assert call(both["asgi"], "GET", PREDICT).status_code == 405
    large = call(both["asgi"], "POST", PREDICT, content=b" " * 2_000_000)
    assert (large.status_code, large.headers["content-type"]) == (413, "application/problem+json")


@pytest.mark.parametrize(("hours", "degraded"), [(0, ()), (2, ("stale_features",)), (30, ("expired_features",))])
def test_the_age_of_the_features_is_said(hours: int, degraded: tuple[str, ...]):
    moment = datetime.fromtimestamp(1512086400.0 + 3600 * hours, UTC).isoformat()
    found = Transformer(Known(), AGES)(Envelope(read_request({**ASKED, "moment": moment})))
    assert found.degraded == degraded
    assert Transformer(Known(), AGES)(Envelope(read_request({**ASKED, "shopper_id": "new"}))).degraded == ("no_features",)
