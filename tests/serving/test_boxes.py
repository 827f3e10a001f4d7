"""Eligibility and constraints as plain calls, the ledger on a real Redis."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from promolift.contracts.decisions import Envelope, Scores, Shopper, dump, read_envelope, read_request
from promolift.contracts.features import RETAIL
from promolift.contracts.promos import NO_PROMO, Promo
from promolift.errors import InputError
from promolift.policy.constraints import Policy
from promolift.policy.ledger import Budget, Ledger
from promolift.policy.rules import Rules, load_rules, read_rules
from promolift.policy.token import Keys
from promolift.yaml_file import YamlFile
from serving.kserve.boxes import RULES
from serving.kserve.constraints import Constraints, Pace, Terms
from serving.kserve.eligibility import Eligibility
from tests.full_redis import full_redis

PROMOS = (Promo("meat_20", "meat", 0.2, 500), Promo("deli_10", "deli", 0.1, 300, contact_cents=5))
POLICY = Policy(lambda_cost=0.0, explore_share=0.2, holdout_share=0.1, hash_salt="salt", do_no_harm=True)
GREEDY = replace(POLICY, explore_share=0.0, holdout_share=0.0)


def rules_of(document: Any = None) -> Rules:
    return read_rules(YamlFile("rules.yaml", document or {}), PROMOS)


def asked(number: int = 0, document: Any = None, **fields: Any) -> Envelope:
    request = read_request({"request_id": f"r{number}", "shopper_id": f"s{number}", "moment": "2017-12-01T12:00:00Z", **fields})
    envelope = Envelope(request, shopper=Shopper(RETAIL.defaults(), found=False), received_at="2026-11-01T12:00:00+00:00")
    return Eligibility(rules_of(document), POLICY)(envelope)


def scored(envelope: Envelope, value: tuple[float, ...] = (4.0, 2.0), lower: tuple[float, ...] = (1.0, 0.5)) -> Envelope:
    return replace(envelope, scores=Scores("m-1", value, lower, tuple(1.0 for _ in value)))


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as connection:
        connection.flushall()
        yield connection


KEYS = Keys({"k1": "x" * 32})


def terms(policy: Policy = GREEDY, document: Any = None, budget: int = 10_000) -> Terms:
    return Terms(policy, rules_of(document), PROMOS, 60, KEYS, Pace(budget))


def records(client: redis.Redis) -> list[Envelope]:
    rows = client.xrange(Ledger(client).stream)
    return [read_envelope(json.loads(row[b"record"])) for _, row in rows if row[b"kind"] == b"decision"]


Make = Callable[..., Constraints]


@pytest.fixture
def make(client: redis.Redis) -> Make:
    def box(policy: Policy = GREEDY, document: Any = None, budget: int = 10_000) -> Constraints:
        return Constraints(terms(policy, document, budget), Ledger(client), lambda _: pytest.fail("spilled"))

    return box


def test_eligibility_names_candidates_and_signs():
    envelope = asked(document={"promos": {"deli_10": {"valid_from": "2018-01-01"}}})
    assert envelope.candidates is not None
    assert envelope.candidates.promo_ids == ("meat_20",)
    assert envelope.candidates.refused == {"deli_10": "promo deli_10 is not eligible: not valid before 2018-01-01"}
    assert envelope.versions["eligibility"] == envelope.candidates.rules_version
    assert envelope.timings_ms["eligibility"] >= 0
    assert envelope.decision is None


def test_nothing_eligible_is_already_a_complete_decision():
    envelope = asked(document={"defaults": {"stores": ["elsewhere"]}})
    assert envelope.decision is not None
    assert (envelope.decision.promo_id, envelope.decision.reason) == (NO_PROMO, "no_eligible_promo")
    assert envelope.decision.propensities == {NO_PROMO: 1.0}


def test_the_rules_that_we_ship_are_valid():
    assert load_rules(RULES, PROMOS).by_promo["meat_20"].cap_per_day == 1


def test_the_best_promo_is_reserved_and_recorded(make: Make, client: redis.Redis):
    final = make()(scored(asked()))
    assert final.decision is not None
    assert (final.decision.promo_id, final.decision.reason) == ("meat_20", "best_profit")
    assert final.decision.reserved_cents == 500
    assert final.decision.expires_at is not None
    assert final.timings_ms["total"] > 0
    ledger = Ledger(client)
    assert ledger.budget() == Budget(10_000, 0, 500)
    [logged] = records(client)
    assert (logged.decision, logged.request, logged.token) == (final.decision, final.request, None)
    offer = KEYS.verify(str(final.token))
    assert (offer.promo_id, offer.cents, offer.reservation_id) == ("meat_20", 500, final.decision.reservation_id)
    ledger.commit(str(final.decision.reservation_id), 120)
    assert ledger.budget() == Budget(10_000, 120, 0)


def test_a_retry_gets_the_same_decision_and_costs_nothing(make: Make, client: redis.Redis):
    box = make()
    first, again = box(scored(asked())), box(scored(asked(), value=(0.0, 9.0)))
    assert (again.decision, again.token) == (first.decision, first.token)
    assert (first.repeated, again.repeated) == (False, True)
    assert len(records(client)) == 1
    assert box(scored(asked(deadline_ms=60_000))).decision == first.decision
    with pytest.raises(InputError, match="'r0' was used before"):
        box(scored(asked(store_id="other")))


def test_budget_and_caps_take_arms_out_of_the_feasible_set(make: Make):
    box = make(budget=810)
    decisions = [box(scored(asked(number))).decision for number in range(3)]
    assert [d and (d.promo_id, d.reason) for d in decisions] == [
        ("meat_20", "best_profit"), ("deli_10", "best_profit"), (NO_PROMO, "budget_exhausted"),
    ]  # fmt: skip
    assert decisions[1] is not None
    assert set(decisions[1].propensities) == {NO_PROMO, "deli_10"}


def test_a_shopper_reaches_a_cap(make: Make):
    box = make(document={"defaults": {"cap_per_week": 1}})
    given = [box(scored(asked(number, shopper_id="one"))).decision for number in range(3)]
    assert [d and (d.promo_id, d.reason) for d in given] == [
        ("meat_20", "best_profit"), ("deli_10", "best_profit"), (NO_PROMO, "cap_reached"),
    ]  # fmt: skip


def test_no_promo_is_recorded_too(make: Make, client: redis.Redis):
    box = make()
    failed = replace(asked(1), scores=Scores("m-1", error="The model could not score.", evidence="none"))
    asked_in_vain = asked(2, {"defaults": {"active": False}})
    late = scored(asked(4, deadline_ms=1))
    reasons = [box(envelope).decision for envelope in (failed, asked_in_vain, scored(asked(3), (-1.0, -1.0)), late)]
    assert [d and d.reason for d in reasons] == ["model_error", "no_eligible_promo", "not_profitable", "deadline"]
    assert len(records(client)) == 4
    assert Ledger(client).budget().reserved == 0


def test_a_ledger_without_room_gives_no_promo_and_overspends_nothing(tmp_path: Path):
    spilled: list[bytes] = []
    with full_redis(tmp_path / "redis", 40_000) as url, redis.Redis.from_url(url) as client:
        box = Constraints(terms(budget=1_000_000), Ledger(client), spilled.append)
        finals = [box(scored(asked(number))) for number in range(200)]
        reserved = Ledger(client).budget().reserved
    reasons = [final.decision.reason for final in finals if final.decision]
    given = reasons.index("budget_unavailable")
    assert 0 < given < 100 and set(reasons[given:]) == {"budget_unavailable"}
    assert "MISCONF" in finals[-1].versions["cause"] and len(spilled) == 200 - given
    assert reserved == sum(final.decision.reserved_cents for final in finals if final.decision)


def test_without_a_ledger_the_answer_is_no_promo_and_its_record_is_kept():
    spilled: list[bytes] = []
    nobody = redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2, retry=None)
    box = Constraints(terms(), Ledger(nobody), spilled.append)
    final = box(scored(asked()))
    assert final.decision is not None
    assert (final.decision.promo_id, final.decision.reason) == (NO_PROMO, "budget_unavailable")
    assert ("ConnectionError" in final.versions["cause"], final.degraded, final.token) == (True, ("ledger_unavailable",), None)
    assert [json.loads(line) for line in spilled] == [dump(final)]
    answers = [box(scored(asked(number))) for number in range(1, 7)]
    assert "not asked: 5 calls in a row had failed" in answers[-1].versions["cause"]
