"""The decision itself: best net value, no harm, refusals of the ledger, exploration and holdout."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promolift.contracts.decisions import Candidates, Scores, dump, read_request
from promolift.contracts.promos import NO_PROMO
from promolift.policy.constraints import Policy, choose, forced, harmless
from promolift.policy.exploration import draw, in_holdout, propensities, uniforms

POLICY = Policy(lambda_cost=0.0, explore_share=0.0, holdout_share=0.0, hash_salt="salt", do_no_harm=True)
CANDIDATES = Candidates(("a", "b", "c"), {}, "v")


def ask(number: int = 0) -> Any:
    return read_request({"request_id": f"r{number}", "shopper_id": f"s{number}", "moment": "2017-12-01T00:00:00Z"})


def scores(value: Any, lower: Any = (0.0, 0.0, 0.0), cost: Any = (10.0, 10.0, 10.0)) -> Any:
    return Scores("m", tuple(value), tuple(lower), tuple(cost))


def decide(given_scores: Any, refused: Any = None, policy: Policy = POLICY, priority: Any = None, number: int = 0) -> Any:
    return choose(ask(number), harmless(CANDIDATES, given_scores, policy), refused or {}, priority or {}, policy)


def test_the_best_net_value_wins() -> None:
    assert decide(scores([1.0, 3.0, 2.0])).promo_id == "b"
    pricey = dataclasses.replace(POLICY, lambda_cost=1.0)
    assert decide(scores([11.0, 30.0, 20.0], cost=(1.0, 29.0, 2.0)), policy=pricey).promo_id == "c"


def test_priority_breaks_a_tie_and_no_promo_wins_against_nothing_gained() -> None:
    assert decide(scores([2.0, 2.0, 2.0]), priority={"c": 1}).promo_id == "c"
    assert decide(scores([2.0, 2.0, 2.0])).promo_id == "a"
    nothing = decide(scores([0.0, 0.0, 0.0]))
    assert (nothing.promo_id, nothing.reason) == (NO_PROMO, "not_profitable")


def test_an_arm_that_may_harm_leaves_the_feasible_set() -> None:
    decision = decide(scores([9.0, 2.0, 1.0], lower=(-0.1, 0.0, 0.0)))
    assert decision.promo_id == "b"
    assert "a" not in decision.propensities
    assert decide(scores([9.0, 2.0, 1.0], lower=(-1.0, -1.0, -1.0))).reason == "would_harm"
    brave = dataclasses.replace(POLICY, do_no_harm=False)
    assert decide(scores([9.0, 2.0, 1.0], lower=(-1.0, -1.0, -1.0)), policy=brave).promo_id == "a"


@pytest.mark.parametrize(
    ("refused", "reason"),
    [({"b": "budget"}, "best_profit"), (dict.fromkeys("abc", "budget"), "budget_exhausted"), (dict.fromkeys("abc", "cap"), "cap_reached")],
)
def test_refused_arms_leave_the_feasible_set(refused: Any, reason: str) -> None:
    decision = decide(scores([1.0, 3.0, 2.0]), refused)
    assert decision.reason == reason
    assert set(decision.propensities) == {NO_PROMO, "a", "b", "c"} - set(refused)


def test_a_refused_arm_that_would_not_have_won_is_no_excuse() -> None:
    assert decide(scores([-1.0, -1.0, -1.0]), {"a": "budget"}).reason == "not_profitable"


def test_forced_decisions() -> None:
    assert forced(ask(), Candidates((), {"a": "no"}, "v"), None, POLICY).reason == "no_eligible_promo"
    assert forced(ask(), CANDIDATES, Scores("m", error="broken"), POLICY).reason == "model_error"
    assert forced(ask(), CANDIDATES, None, POLICY).reason == "model_error"
    assert forced(ask(), CANDIDATES, scores([1.0]), POLICY).reason == "model_error"
    assert forced(ask(), CANDIDATES, scores([1.0, float("nan"), 1.0]), POLICY).reason == "model_error"
    held = forced(ask(), CANDIDATES, scores([1.0, 1.0, 1.0]), dataclasses.replace(POLICY, holdout_share=0.999999))
    assert (held.reason, held.bucket, held.propensities) == ("holdout", "holdout", {NO_PROMO: 1.0})
    assert forced(ask(), CANDIDATES, scores([1.0, 1.0, 1.0]), POLICY) is None


ARMS = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=8, unique=True)


@given(arms=ARMS, epsilon=st.floats(0, 1), salt=st.text(max_size=5), request_id=st.text(max_size=9), data=st.data())
def test_propensities_sum_to_one_and_the_chosen_is_possible(arms: Any, epsilon: float, salt: str, request_id: str, data: Any) -> None:
    best = data.draw(st.sampled_from(arms))
    drawn = draw(arms, best, epsilon, salt, request_id)
    assert sum(drawn.propensities.values()) == pytest.approx(1.0, abs=1e-9)
    assert drawn.propensities[drawn.arm] > 0
    assert list(drawn.propensities) == arms
    assert draw(arms, best, epsilon, salt, request_id) == drawn


def test_the_logged_propensities_are_the_frequencies() -> None:
    arms, count = ["no_promo", "a", "b", "c"], 40_000
    expected = propensities(arms, "b", 0.3)
    drawn = [draw(arms, "b", 0.3, "salt", f"request {i}").arm for i in range(count)]
    for arm in arms:
        sigma = (expected[arm] * (1 - expected[arm]) / count) ** 0.5
        assert drawn.count(arm) / count == pytest.approx(expected[arm], abs=4 * sigma)


def test_the_holdout_is_sticky_has_its_share_and_follows_the_salt() -> None:
    shoppers = [str(i) for i in range(20_000)]
    held = {s for s in shoppers if in_holdout(s, 0.05, "one")}
    assert len(held) / len(shoppers) == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 20_000) ** 0.5)
    assert held == {s for s in shoppers if in_holdout(s, 0.05, "one")}
    assert len(held & {s for s in shoppers if in_holdout(s, 0.05, "two")}) < len(held) / 4


def test_a_uniform_never_reaches_one() -> None:
    assert all(0 <= u < 1 for i in range(1000) for u in uniforms("s", "p", str(i)))


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), st.sets(st.sampled_from("abc")), st.floats(0, 1))
def test_a_decision_survives_json(value: Any, refused: Any, epsilon: float) -> None:
    policy = dataclasses.replace(POLICY, explore_share=epsilon)
    decision = decide(scores(value), dict.fromkeys(refused, "budget"), policy)
    assert json.loads(json.dumps(dump(decision)))["promo_id"] == decision.promo_id
    assert decision.promo_id not in refused
