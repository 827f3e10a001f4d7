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
from promolift.policy.ledger import Ledger, State
from promolift.policy.rules import Rules, read_rules
from serving.kserve.boxes import RULES
from serving.kserve.constraints import Constraints, replay
from serving.kserve.eligibility import Eligibility, load_rules

PROMOS = (Promo("meat_20", "meat", 0.2, 500), Promo("deli_10", "deli", 0.1, 300, contact_cents=5))
POLICY = Policy(lambda_cost=0.0, explore_share=0.2, holdout_share=0.1, hash_salt="salt", do_no_harm=True)
GREEDY = replace(POLICY, explore_share=0.0, holdout_share=0.0)


def rules_of(document: Any = None) -> Rules:
    return read_rules(document or {}, PROMOS, "rules.yaml")


def asked(number: int = 0, document: Any = None, **fields: Any) -> Envelope:
    request = read_request({"request_id": f"r{number}", "shopper_id": f"s{number}", "moment": "2017-12-01T12:00:00Z", **fields})
    envelope = Envelope(request, shopper=Shopper(RETAIL.defaults(), found=False), received_at="2017-12-01T12:00:00+00:00")
    return Eligibility(rules_of(document), POLICY)(envelope)


def scored(envelope: Envelope, value: tuple[float, ...] = (4.0, 2.0), lower: tuple[float, ...] = (1.0, 0.0)) -> Envelope:
    return replace(envelope, scores=Scores("m-1", value, lower, tuple(1.0 for _ in value)))


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as connection:
        connection.flushall()
        yield connection


Make = Callable[..., Constraints]


@pytest.fixture
def make(client: redis.Redis) -> Make:
    def box(policy: Policy = GREEDY, document: Any = None, budget: int = 10_000) -> Constraints:
        ledger = Ledger(client)
        ledger.set_budget_if_unset(budget)
        return Constraints(policy, rules_of(document), PROMOS, ledger=ledger, ttl_s=60, spill=lambda _: pytest.fail("spilled"))

    return box


def test_eligibility_names_candidates_and_signs():
    envelope = asked(document={"promos": {"deli_10": {"valid_from": "2018-01-01"}}})
    assert envelope.candidates is not None
    assert envelope.candidates.promo_ids == ("meat_20",)
    assert envelope.candidates.refused == {"deli_10": "promo deli_10 is not valid before 2018-01-01"}
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


@pytest.mark.parametrize(("text", "words"), [(None, "cannot be read"), ("a: [", "not YAML"), ("promos: {fish: {}}", "fish")])
def test_a_bad_rules_file_is_named(tmp_path: Path, text: str | None, words: str):
    path = tmp_path / "rules.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=words) as problem:
        load_rules(path, PROMOS)
    assert str(path) in str(problem.value)


def test_the_best_promo_is_reserved_and_recorded(make: Make, client: redis.Redis):
    final = make()(scored(asked()))
    assert final.decision is not None
    assert (final.decision.promo_id, final.decision.reason) == ("meat_20", "best_profit")
    assert final.decision.reserved_cents == 500
    assert final.decision.expires_at is not None
    assert final.timings_ms["total"] > 0
    ledger = Ledger(client)
    assert ledger.state() == State(10_000, 0, 500)
    [(_, record)] = client.xrange(ledger.stream)
    logged = read_envelope(json.loads(record[b"record"]))
    assert logged.decision == final.decision
    assert logged.request == final.request
    ledger.commit(str(final.decision.reservation_id), 120)
    assert ledger.state() == State(10_000, 120, 0)


def test_a_retry_gets_the_same_decision_and_costs_nothing(make: Make, client: redis.Redis):
    box = make()
    first, again = box(scored(asked())), box(scored(asked(), value=(0.0, 9.0)))
    assert again.decision == first.decision
    assert again.versions["ledger"] == '"repeated"'
    assert client.xlen(Ledger(client).stream) == 1
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
    failed = replace(asked(1), scores=Scores("m-1", error="The model could not score."))
    asked_in_vain = asked(2, {"defaults": {"active": False}})
    reasons = [box(envelope).decision for envelope in (failed, asked_in_vain, scored(asked(3), (-1.0, -1.0)))]
    assert [d and d.reason for d in reasons] == ["model_error", "no_eligible_promo", "not_profitable"]
    assert client.xlen(Ledger(client).stream) == 3
    assert Ledger(client).state().reserved == 0


def test_every_logged_decision_replays_to_the_same_arm_and_propensities(make: Make, client: redis.Redis):
    box = make(POLICY, budget=20_000)
    for number in range(120):
        box(scored(asked(number), (number % 7 - 1.0, number % 5 - 1.0), (1.0, number % 3 - 1.0)))
    logged = [read_envelope(json.loads(record[b"record"])) for _, record in client.xrange(Ledger(client).stream)]
    buckets = set()
    for envelope in logged:
        assert envelope.decision is not None
        again = replay(envelope, POLICY, rules_of())
        assert (again.promo_id, again.reason, again.bucket, again.propensities) == (
            envelope.decision.promo_id, envelope.decision.reason, envelope.decision.bucket, envelope.decision.propensities,
        )  # fmt: skip
        buckets.add((envelope.decision.bucket, envelope.decision.reason))
    assert {"holdout", "explore", "policy"} == {bucket for bucket, _ in buckets}
    assert "budget_exhausted" in {reason for _, reason in buckets}


def test_without_a_ledger_the_answer_is_no_promo_and_its_record_is_kept():
    spilled: list[bytes] = []
    nobody = redis.Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2, retry=None)
    box = Constraints(GREEDY, rules_of(), PROMOS, ledger=Ledger(nobody), ttl_s=60, spill=spilled.append)
    final = box(scored(asked()))
    assert final.decision is not None
    assert (final.decision.promo_id, final.decision.reason) == (NO_PROMO, "budget_unavailable")
    assert "ConnectionError" in final.versions["ledger"]
    assert [json.loads(line) for line in spilled] == [dump(final)]
    assert replay(final, GREEDY, rules_of()).promo_id == NO_PROMO
