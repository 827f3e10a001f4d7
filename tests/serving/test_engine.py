"""The engine's HTTP surface on a real Redis: authentication, limits, answers in time whatever the graph does, redemption, budgets."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import redis
import schemathesis
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from promolift.contracts.decisions import Candidates, Envelope, Request, Scores, read_bytes
from promolift.contracts.promos import Promo
from promolift.errors import ConflictError, InputError
from promolift.policy.constraints import Policy
from promolift.policy.ledger import Budget, Ledger
from promolift.policy.rules import read_rules
from promolift.policy.token import Keys
from promolift.yaml_file import YamlFile
from serving.engine.app import Engine, Limits, application
from serving.engine.auth import Authenticator, Issuer, keys_in
from serving.engine.door import Door, Terms
from serving.engine.metrics import Metrics
from serving.engine.operations import Operations
from serving.kserve import constraints
from serving.kserve.decision_log import DecisionLog
from serving.kserve.log_delta import DeltaLog
from serving.kserve.spool import spill_to

PROMOS = (Promo("meat_20", "meat", 0.2, 500),)
POLICY = Policy(lambda_cost=0.0, explore_share=0.0, holdout_share=0.0, hash_salt="salt", do_no_harm=True)
KEYS = Keys({"k1": "x" * 32})
PATIENT_MS = 10_000
"""A deadline that a busy machine keeps."""
ASKED = {"request_id": "r1", "shopper_id": "7", "moment": "2017-12-01T00:00:00Z"}


class Deciding:
    """A graph of one promo that is always worth giving, with the real last box."""

    def __init__(self, ledger: Ledger, spill: Callable[[bytes], None]) -> None:
        rules = read_rules(YamlFile("rules.yaml", {}), PROMOS)
        terms = constraints.Terms(POLICY, rules, PROMOS, 3_600, KEYS, constraints.Pace(100_000))
        self._box = constraints.Constraints(terms, ledger, spill)

    async def decide(self, request: Request, received_at: str, left_s: float) -> Envelope:
        """A decided envelope."""
        scored = Envelope(request, None, Candidates(("meat_20",), {}, "v"), Scores("m", (9.0,), (5.0,), (3.0,)), received_at=received_at)
        return self._box(scored)

    async def ready(self) -> bool:
        """Always."""
        return True

    async def close(self) -> None:
        """Nothing to close."""


class Late(Deciding):
    """Decides, but after everybody has stopped waiting."""

    async def decide(self, request: Request, received_at: str, left_s: float) -> Envelope:
        """Stores the decision in time and tells of it too late."""
        await super().decide(request, received_at, left_s)
        await asyncio.wait_for(asyncio.sleep(60), left_s)
        raise AssertionError


class Broken(Deciding):
    """A graph whose router answers 500."""

    async def decide(self, request: Request, received_at: str, left_s: float) -> Envelope:
        """Never."""
        raise OSError("the graph answered 500")

    async def ready(self) -> bool:
        """Never."""
        return False


class Engines:
    """Makes engines on one Redis and one folder, and calls them in-process."""

    def __init__(self, folder: Path, client: redis.Redis) -> None:
        self.folder, self.ledger, self.spill = folder, Ledger(client), folder / "spill.jsonl"
        self.keys = {scope: keys_in(folder / "keys.json").add(scope, [scope]) for scope in ("decide", "redeem", "operate")}

    def app(self, backend: type[Deciding] = Deciding, issuer: Issuer | None = None, rate: int = 10_000) -> Any:
        """The ASGI application."""
        spill = spill_to(self.spill)
        door = Door(backend(self.ledger, spill), Terms(POLICY, PATIENT_MS, spill))
        operations = Operations(self.ledger, KEYS, self.folder / "lake", pace_step=0.002)
        engine = Engine(door, operations, Authenticator(self.folder / "keys.json", issuer), Limits(rate, 10_000), Metrics(self.ledger))
        return application(engine, door.close)

    def call(self, app: Any, method: str, path: str, scope: str | None = "decide", **fields: Any) -> httpx.Response:
        """One call with the key of a scope."""

        async def run() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://engine"
            ) as client:
                headers = {"X-API-Key": self.keys[scope]} if scope else {}
                return await client.request(method, path, headers={**headers, **fields.pop("headers", {})}, **fields)

        return asyncio.run(run())

    def drain(self) -> None:
        """What the relay does."""
        DecisionLog(self.ledger, DeltaLog(self.folder / "lake"), self.spill).drain()


@pytest.fixture
def engines(redis_url: str, tmp_path: Path) -> Iterator[Engines]:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield Engines(tmp_path, client)


DECIDE = "/v1/decisions"


def test_a_promo_is_answered_redeemed_once_and_explained(engines: Engines):
    app = engines.app()
    answer = engines.call(app, "POST", DECIDE, json=ASKED).json()
    assert (answer["promo_id"], answer["reasons"], answer["cents"], answer["degraded"]) == ("meat_20", ["best_profit"], 500, [])
    again = engines.call(app, "POST", DECIDE, json=ASKED).json()
    assert again["repeated"] is True
    assert {k: v for k, v in again.items() if k not in ("timings_ms", "repeated")} == {
        k: v for k, v in answer.items() if k not in ("timings_ms", "repeated")
    }
    redemption = {"token": answer["token"], "cents": 120}
    for _ in range(2):
        redeemed = engines.call(app, "POST", "/v1/redemptions", "redeem", json=redemption)
        assert (redeemed.status_code, redeemed.json()["cents"]) == (200, 120)
    assert engines.ledger.budget() == Budget(100_000, 120, 0)
    other = engines.call(app, "POST", "/v1/redemptions", "redeem", json={**redemption, "cents": 121})
    assert (other.status_code, "committed before with 120" in other.json()["detail"]) == (409, True)
    assert engines.call(app, "GET", f"{DECIDE}/{answer['decision_id']}", "operate").status_code == 404
    engines.drain()
    explained = engines.call(app, "GET", f"{DECIDE}/{answer['decision_id']}", "operate").json()
    assert "shopper 7 got promo meat_20" in explained["text"] and "most profit" in explained["text"]
    assert explained["envelope"]["decision"]["promo_id"] == "meat_20"


@pytest.mark.parametrize(("backend", "reason"), [(Late, "deadline"), (Broken, "graph_unavailable")])
def test_a_late_or_broken_graph_is_a_complete_logged_no_promo(engines: Engines, backend: type[Deciding], reason: str):
    app = engines.app(backend)
    answer = engines.call(app, "POST", DECIDE, json={**ASKED, "deadline_ms": 300})
    assert (answer.status_code, answer.json()["promo_id"], answer.json()["reasons"]) == (200, "no_promo", [reason])
    again = engines.call(app, "POST", DECIDE, json=ASKED).json()
    assert (again["decision_id"], again["repeated"]) == (answer.json()["decision_id"], True)
    assert engines.call(app, "POST", DECIDE, json={**ASKED, "channel": "web"}).status_code == 409
    engines.drain()
    assert engines.ledger.budget().reserved == 0
    # Another engine, which remembers nothing, hears it from the ledger.
    assert engines.call(engines.app(), "POST", DECIDE, json=ASKED).json()["decision_id"] == answer.json()["decision_id"]
    engines.drain()
    found = engines.call(app, "GET", f"{DECIDE}/{answer.json()['decision_id']}", "operate").json()
    assert found["envelope"]["decision"]["reason"] == reason


def test_a_batch_answers_each_request_by_itself(engines: Engines):
    batch = {"requests": [ASKED, {**ASKED, "request_id": "r2"}, {**ASKED, "channel": "web"}]}
    results = engines.call(engines.app(), "POST", f"{DECIDE}/batch", json=batch).json()["results"]
    assert [r["request_id"] for r in results] == ["r1", "r2", "r1"]
    assert [r["answer"] and r["answer"]["promo_id"] for r in results] == ["meat_20", "meat_20", None]
    assert results[2]["problem"]["status"] == 409


def test_budgets_are_shown_changed_and_audited(engines: Engines):
    app = engines.app()
    engines.call(app, "POST", DECIDE, json=ASKED)
    [budget] = engines.call(app, "GET", "/v1/budgets", "operate").json()["budgets"]
    assert (budget["name"], budget["total_cents"], budget["reserved_cents"], budget["headroom_cents"]) == ("main", 100_000, 500, 99_500)
    change = {"total_cents": 200, "reason": "stop"}
    low = engines.call(app, "PUT", "/v1/budgets/main", "operate", json=change)
    assert (low.status_code, "500 are spent or reserved" in low.json()["detail"]) == (409, True)
    done = engines.call(app, "PUT", "/v1/budgets/main", "operate", json={**change, "total_cents": 900, "rate_cents": 12.5})
    assert (done.json()["total_cents"], done.json()["rate_cents"]) == (900, 12.5)
    assert engines.call(app, "PUT", "/v1/budgets/fish", "operate", json=change).status_code == 404
    audit = [json.loads(row[b"record"]) for _, row in engines.ledger.client.xrange(engines.ledger.stream) if b"stop" in row[b"record"]]
    assert [(row["actor"], row["cents"]) for row in audit] == [("operate", 900)]


@pytest.mark.parametrize(
    ("method", "path", "scope", "body", "status", "words"),
    [
        ("POST", DECIDE, None, ASKED, 401, "X-API-Key"),
        ("POST", DECIDE, "redeem", ASKED, 403, "'redeem' may not decide"),
        ("POST", "/v1/redemptions", "decide", {}, 403, "may not redeem"),
        ("GET", "/v1/budgets", "decide", None, 403, "may not operate"),
        ("POST", DECIDE, "decide", {**ASKED, "channel": "fax"}, 400, "'channel'"),
        ("POST", DECIDE, "decide", {**ASKED, "extra": 1}, 400, "'extra'"),
        ("POST", DECIDE, "decide", {**ASKED, "store_id": "x" * 20_000}, 413, "larger than 10000 bytes"),
        ("POST", "/v1/redemptions", "redeem", {"token": "x", "cents": 1}, 403, "no promo token"),
        ("POST", "/v1/redemptions", "redeem", {"token": "x", "cents": "1"}, 400, "'cents'"),
        ("POST", f"{DECIDE}/batch", "decide", {"requests": []}, 400, "'requests'"),
        ("GET", "/v1/nothing", "decide", None, 404, "/openapi.json"),
        ("DELETE", DECIDE, "decide", None, 405, "DELETE"),
    ],
)
def test_what_is_refused_is_a_problem_with_its_reason(
    engines: Engines, method: str, path: str, scope: str | None, body: Any, status: int, words: str
):  # fmt: skip
    answer = engines.call(engines.app(), method, path, scope, json=body)
    problem = answer.json()
    assert (answer.status_code, problem["status"], answer.headers["content-type"]) == (status, status, "application/problem+json")
    assert words in problem["detail"]
    assert engines.ledger.budgets() == {} and engines.ledger.client.xlen(engines.ledger.stream) == 0


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"\xff\xfe", b"[" * 5_000, b'{"request_id": NaN}', b'{"request_id": 1e999}', b'{"a":' * 900 + b"1" + b"}" * 900, b"", b"null",
        b'"\\ud800"', json.dumps({**ASKED, "basket": [{"category": "meat", "amount_cents": 10**400}]}).encode(),
        json.dumps({**ASKED, "deadline_ms": 0}).encode(), json.dumps({**ASKED, "request_id": "\x00"}).replace("r1", "").encode()[:40],
    ],
)  # fmt: skip
def test_a_hostile_body_is_a_400(engines: Engines, body: bytes):
    answer = engines.call(engines.app(), "POST", DECIDE, content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert "Traceback" not in answer.text


def test_too_many_calls_are_a_429(engines: Engines):
    app = engines.app(rate=3)
    statuses = [engines.call(app, "POST", DECIDE, json={**ASKED, "request_id": str(n)}).status_code for n in range(8)]
    assert set(statuses) == {200, 429}


def test_without_redis_decisions_are_answered_and_everything_else_says_so(tmp_path: Path):
    nobody = redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.05, retry=None)
    engines = Engines(tmp_path, nobody)
    app = engines.app()
    answer = engines.call(app, "POST", DECIDE, json=ASKED).json()
    assert (answer["promo_id"], answer["reasons"], answer["degraded"]) == ("no_promo", ["budget_unavailable"], ["ledger_unavailable"])
    budgets, ready = engines.call(app, "GET", "/v1/budgets", "operate"), engines.call(app, "GET", "/readyz", None)
    assert (budgets.status_code, ready.status_code, ready.json()["redis"]) == (503, 503, False)
    assert engines.call(app, "GET", "/healthz", None).status_code == 200
    assert b"promolift_ledger_up 0.0" in engines.call(app, "GET", "/metrics", None).content


def test_metrics_say_reasons_latency_and_budgets(engines: Engines):
    app = engines.app()
    engines.call(app, "POST", DECIDE, json=ASKED)
    text = engines.call(app, "GET", "/metrics", None).text
    for line in (
        'promolift_decisions_total{bucket="policy",reason="best_profit"} 1.0',
        'promolift_budget_cents{budget="main",state="reserved"} 500.0',
        'promolift_decision_seconds_count{box="engine"} 1.0', "promolift_outbox_entries 2.0",
    ):  # fmt: skip
        assert line in text


def test_a_bearer_token_of_the_issuer_is_as_good_as_a_key(engines: Engines, monkeypatch: pytest.MonkeyPatch):
    private = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    jwk = {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key())), "kid": "i1", "use": "sig"}
    monkeypatch.setattr(jwt.PyJWKClient, "fetch_data", lambda _: {"keys": [jwk]})
    app = engines.app(issuer=Issuer("https://issuer/keys", "https://issuer", "promolift"))

    def status(key: Any = private, **claims: Any) -> int:
        full = {"iss": "https://issuer", "aud": "promolift", "sub": "shop", "exp": 4_000_000_000, "scope": "decide", **claims}
        token = jwt.encode(full, key, "RS256", headers={"kid": "i1"})
        return engines.call(app, "POST", DECIDE, None, json=ASKED, headers={"Authorization": f"Bearer {token}"}).status_code

    assert status() == 200
    assert status(scope="redeem") == 403
    assert [status(exp=1), status(aud="other"), status(iss="other"), status(rsa.generate_private_key(65_537, 2_048))] == [401] * 4


def test_the_keys_file_keeps_hashes_only(tmp_path: Path):
    key = keys_in(tmp_path / "keys.json").add("shop", ["decide"])
    text = (tmp_path / "keys.json").read_text()
    assert key not in text and hashlib.sha256(key.encode()).hexdigest() in text
    with pytest.raises(InputError, match="'shop' has a key"):
        keys_in(tmp_path / "keys.json").add("shop", ["decide"])
    with pytest.raises(InputError, match="Scope 'rule' is unknown"):
        keys_in(tmp_path / "keys.json").add("other", ["rule"])
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(InputError, match="cannot be used"):
        Authenticator(tmp_path / "bad.json", None)


def test_an_answer_of_the_doors_own_with_other_parameters_is_a_conflict(engines: Engines):
    door = Door(Broken(engines.ledger, spill_to(engines.spill)), Terms(POLICY, PATIENT_MS, spill_to(engines.spill)))
    request = read_bytes(Request, json.dumps(ASKED).encode())
    asyncio.run(door.decide(request))
    with pytest.raises(ConflictError, match="used before"):
        asyncio.run(door.decide(replace(request, store_id="2")))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["positive", "negative"])
def test_no_request_of_the_schema_or_beside_it_is_a_server_error(engines: Engines, method: str):
    app = engines.app()
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    scopes = {"redeem": "redeem", "decide": "decide", "decideAll": "decide"}
    for result in schema.get_all_operations():
        operation = result.ok()
        scope = scopes.get(operation.definition.raw["operationId"], "operate")
        _fuzz(operation, schemathesis.GenerationMode(method), {"X-API-Key": engines.keys[scope]})


def _fuzz(operation: Any, mode: Any, headers: dict[str, str]) -> None:
    @settings(max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        answer = case.call(headers=headers)
        assert answer.status_code < 500, (case, answer.text)
        assert "Traceback" not in answer.text

    try:
        run()
    except Unsatisfiable:  # nothing is beside the schema of an operation that takes nothing
        assert not operation.body and not operation.path_parameters
