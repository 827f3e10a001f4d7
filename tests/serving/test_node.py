"""The KServe adapter: V1 paths, health, and problem documents that name field and value."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from promolift.contracts.decisions import dump, read_envelope, read_request
from promolift.contracts.features import RETAIL
from promolift.errors import ConflictError, UnavailableError
from serving.kserve.transformer import Transformer

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


@pytest.fixture(scope="module")
def application() -> Any:
    """The FastAPI application that RESTServer serves; kserve allows one a process."""
    from serving.kserve.node import rest_server

    server = rest_server(Transformer(Known()), 0)
    server.create_application()
    server.config.load()
    return server.config.loaded_app


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
