"""The decision itself: best net value, no harm, refusals of the ledger, exploration and holdout."""

import dataclasses
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promolift.contracts.decisions import Candidates, Scores, dump, read_request
from promolift.contracts.promos import NO_PROMO, Promo
from promolift.policy.constraints import Arms, Policy, Standing, arms_of, choose, harmless
from promolift.policy.depth import monotone_in_depth, pooled
from promolift.policy.exploration import draw_by, draw_greedy, epsilon_greedy, group_of, softmax, uniforms
from promolift.policy.rules import Rules, read_rules
from promolift.yaml_file import YamlFile

POLICY = Policy(lambda_cost=0.0, explore_share=0.0, holdout_share=0.0, hash_salt="salt", do_no_harm=True)
CANDIDATES = Candidates(("a", "b", "c"), {}, "v")
PROMOS = tuple(Promo(name, "meat", depth, 100) for name, depth in (("a", 0.1), ("b", 0.2), ("c", 0.3)))


def rules_of(**document: Any) -> Rules:
    return read_rules(YamlFile("rules.yaml", document), PROMOS)


def ask(number: int = 0) -> Any:
    return read_request({"request_id": f"r{number}", "shopper_id": f"s{number}", "moment": "2017-12-01T00:00:00Z"})


def scores(lower: Any, value: Any = None, cost: Any = (10.0, 10.0, 10.0)) -> Any:
    return Scores("m", tuple(lower if value is None else value), tuple(lower), tuple(cost))


def decide(given_scores: Any, refused: Any = None, policy: Policy = POLICY, number: int = 0, prices: Any = None, **document: Any) -> Any:
    rules = rules_of(**document)
    arms = arms_of(ask(number), CANDIDATES, given_scores, rules, policy)
    return arms if not isinstance(arms, Arms) else choose(ask(number), arms, Standing(refused or {}, prices or {}), rules, policy)


def test_the_greatest_estimate_or_bound_less_the_price_of_its_cost_wins() -> None:
    assert decide(scores([1.0, 3.0, 2.0], value=[9.0, 3.0, 2.0])).promo_id == "a"
    cautious = dataclasses.replace(POLICY, rank_by="lower_bound")
    assert decide(scores([1.0, 3.0, 2.0], value=[9.0, 3.0, 2.0]), policy=cautious).promo_id == "b"
    pricey = dataclasses.replace(POLICY, lambda_cost=1.0)
    assert decide(scores([11.0, 30.0, 20.0], cost=(1.0, 29.0, 2.0)), policy=pricey).promo_id == "c"


def test_each_budget_has_its_own_price() -> None:
    document = {"promos": {"b": {"budget": "dear"}}}
    decision = decide(scores([1.0, 30.0, 2.0]), prices={"dear": 4.0, "main": 0.1}, **document)
    assert (decision.promo_id, decision.prices) == ("c", {"dear": 4.0, "main": 0.1})


def test_priority_breaks_a_tie_and_no_promo_wins_against_nothing_gained() -> None:
    assert decide(scores([2.0, 2.0, 2.0]), promos={"c": {"priority": 1}}).promo_id == "c"
    assert decide(scores([2.0, 2.0, 2.0])).promo_id == "a"
    nothing = decide(scores([0.0, 0.0, 0.0]))
    assert (nothing.promo_id, nothing.reason) == (NO_PROMO, "not_profitable")


@given(place=st.integers(0, 3), group=st.sampled_from(["scored", "randomised", "rules"]), number=st.integers(0, 20))
def test_a_candidate_of_another_catalogue_is_as_if_it_had_not_come(place: int, group: str, number: int) -> None:
    """While promos are read anew, eligibility may know one that the box which decides does not."""
    rules = rules_of(promos={"b": {"fallback": True}})
    policy = dataclasses.replace(POLICY, randomised_share=0.9 if group == "randomised" else 0.0)
    more = Candidates((*"abc"[:place], "gone", *"abc"[place:]), {}, "v")
    column = (1.0, 3.0, 2.0)
    wider = (*column[:place], 99.0, *column[place:])
    asked = ask(number)
    for mine, theirs in ((scores(column), scores(wider, cost=wider)), (None, None), (None, scores(column))):  # the last one is not theirs
        found = arms_of(asked, more, None if group == "rules" else theirs, rules, policy)
        wanted = arms_of(asked, CANDIDATES, None if group == "rules" else mine, rules, policy)
        assert isinstance(found, Arms) and isinstance(wanted, Arms)
        assert dict(found.worth) == dict(wanted.worth) and "gone" not in found.cost
    nobody = arms_of(asked, Candidates(("gone",), {}, "v"), scores((9.0,), cost=(1.0,)), rules, policy)
    assert not isinstance(nobody, Arms) and nobody.reason == "no_eligible_promo"


def test_an_arm_that_may_harm_leaves_the_feasible_set() -> None:
    decision = decide(scores([-0.1, 2.0, 1.0], value=[9.0, 2.0, 1.0]))
    assert decision.promo_id == "b"
    assert "a" not in decision.propensities
    assert decide(scores([-1.0, -1.0, -1.0])).reason == "would_harm"
    brave = dataclasses.replace(POLICY, do_no_harm=False)
    assert decide(scores([-1.0, -1.0, -1.0], value=[9.0, 2.0, 1.0]), policy=brave).promo_id == "a"


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        ({"b": "budget"}, "best_profit"),
        (dict.fromkeys("abc", "budget"), "budget_exhausted"),
        (dict.fromkeys("abc", "cap_per_day"), "cap_reached"),
        (dict.fromkeys("abc", "cool_down"), "cap_reached"),
    ],
)
def test_refused_arms_leave_the_feasible_set(refused: Any, reason: str) -> None:
    decision = decide(scores([1.0, 3.0, 2.0]), refused)
    assert (decision.reason, decision.refused) == (reason, refused)
    assert set(decision.propensities) == {NO_PROMO, "a", "b", "c"} - set(refused)


def test_a_refused_arm_that_would_not_have_won_is_no_excuse() -> None:
    dear = dataclasses.replace(POLICY, lambda_cost=1.0)
    assert decide(scores([1.0, 1.0, 1.0]), {"a": "budget"}, policy=dear).reason == "not_profitable"


def test_where_nothing_is_left_to_choose() -> None:
    assert arms_of(ask(), Candidates((), {"a": "no"}, "v"), None, rules_of(), POLICY).reason == "no_eligible_promo"
    for unusable in (Scores("m", error="broken", evidence="none"), None, scores([1.0]), scores([1.0, float("nan"), 1.0])):
        assert decide(unusable).reason == "model_error"
    held = decide(scores([1.0, 1.0, 1.0]), policy=dataclasses.replace(POLICY, holdout_share=0.999999))
    assert (held.reason, held.bucket, held.propensities) == ("holdout", "holdout", {NO_PROMO: 1.0})


def test_without_scores_the_rules_name_what_may_be_given() -> None:
    document = {"promos": {"b": {"fallback": True}, "c": {"fallback": True, "priority": 2}}}
    decision = decide(None, **document)
    assert (decision.promo_id, decision.reason, decision.propensities["c"]) == ("c", "rules_only", 1.0)
    assert decide(None, {"c": "budget"}, **document).promo_id == "b"
    assert decide(None, dict.fromkeys("bc", "budget"), **document).reason == "budget_exhausted"


def test_the_randomised_group_draws_among_all_eligible_whatever_the_scores() -> None:
    policy = dataclasses.replace(POLICY, randomised_share=0.999999)
    drawn = [decide(scores([-5.0, 9.0, 0.0]), policy=policy, number=n) for n in range(4_000)]
    assert {d.bucket for d in drawn} == {"randomised"} and drawn[0].propensities == dict.fromkeys((NO_PROMO, "a", "b", "c"), 0.25)
    for arm in (NO_PROMO, "a", "b", "c"):
        assert sum(d.promo_id == arm for d in drawn) / 4_000 == pytest.approx(0.25, abs=4 * (0.1875 / 4_000) ** 0.5)
    assert set(decide(None, {"a": "budget"}, policy=policy).propensities) == {NO_PROMO, "b", "c"}


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=6))
def test_pooling_gives_the_nearest_sequence_that_does_not_fall(values: list[float]) -> None:
    found = pooled(values)
    assert all(a <= b for a, b in itertools.pairwise(found))
    assert sum(found) == pytest.approx(sum(values), abs=1e-6)
    assert pooled(found) == found
    assert sorted(values) != values or found == values


def test_a_deeper_promo_of_a_ladder_is_never_worth_less_before_its_cost() -> None:
    worth, cost = {"a": 10.0, "b": 1.0, "c": 5.0}, {"a": 10.0, "b": 15.0, "c": 30.0}
    assert monotone_in_depth(worth, cost, [("a", "b", "c")]) == {"a": 8.0, "b": 3.0, "c": 5.0}
    assert monotone_in_depth(worth, cost, []) == worth
    arms = harmless(CANDIDATES, scores([10.0, 1.0, 5.0], cost=(10.0, 15.0, 30.0)), rules_of(depth_ladders=[["a", "b", "c"]]), POLICY)
    assert arms.worth == {"a": 8.0, "b": 3.0, "c": 5.0}


ARMS = st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=8, unique=True)


@given(arms=ARMS, epsilon=st.floats(0, 1), salt=st.text(max_size=5), request_id=st.text(max_size=9), data=st.data())
def test_propensities_sum_to_one_and_the_chosen_is_possible(arms: Any, epsilon: float, salt: str, request_id: str, data: Any) -> None:
    best = data.draw(st.sampled_from(arms))
    drawn = draw_greedy(arms, best, epsilon, salt, request_id)
    assert sum(drawn.propensities.values()) == pytest.approx(1.0, abs=1e-9)
    assert drawn.propensities[drawn.arm] > 0
    assert list(drawn.propensities) == arms
    assert draw_greedy(arms, best, epsilon, salt, request_id) == drawn


NET = {"a": -5.0, "b": 8.0, "c": 2.0}


@pytest.mark.parametrize(
    "expected", [epsilon_greedy(["no_promo", "a", "b", "c"], "b", 0.3), softmax(["no_promo", "a", "b", "c"], NET, 6.0)]
)
def test_the_logged_propensities_are_the_frequencies(expected: dict[str, float]) -> None:
    arms, count = list(expected), 40_000
    if expected["a"] == expected["c"]:
        drawn = [draw_greedy(arms, "b", 0.3, "salt", f"request {i}").arm for i in range(count)]
    else:
        drawn = [draw_by(expected, "b", "salt", f"request {i}").arm for i in range(count)]
    assert sum(expected.values()) == pytest.approx(1.0, abs=1e-12)
    for arm in arms:
        sigma = (expected[arm] * (1 - expected[arm]) / count) ** 0.5
        assert drawn.count(arm) / count == pytest.approx(expected[arm], abs=4 * sigma)


def test_softmax_prefers_what_is_worth_more_and_survives_large_numbers() -> None:
    found = softmax(["no_promo", *NET], {name: 1e6 * net for name, net in NET.items()}, 1.0)
    assert (found["b"], sum(found.values())) == (1.0, 1.0)
    assert decide(scores([1.0, 9.0, 2.0]), policy=dataclasses.replace(POLICY, temperature_cents=1e-3)).promo_id == "b"


def test_groups_are_sticky_have_their_shares_and_follow_the_salt() -> None:
    def members(salt: str, group: str, holdout: float = 0.05, randomised: float = 0.1) -> set[str]:
        return {str(i) for i in range(20_000) if group_of(str(i), holdout, randomised, salt) == group}

    held, mixed = members("one", "holdout"), members("one", "randomised")
    assert len(held) / 20_000 == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 20_000) ** 0.5)
    assert len(mixed) / 20_000 == pytest.approx(0.095, abs=4 * (0.095 * 0.905 / 20_000) ** 0.5)
    assert held == members("one", "holdout", randomised=0.5)
    assert mixed <= members("one", "randomised", randomised=0.5)
    assert len(held & members("two", "holdout")) < len(held) / 4


def test_a_uniform_never_reaches_one() -> None:
    assert all(0 <= u < 1 for i in range(1000) for u in uniforms("s", "p", str(i)))


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), st.sets(st.sampled_from("abc")), st.floats(0, 1))
def test_a_decision_survives_json(value: Any, refused: Any, epsilon: float) -> None:
    policy = dataclasses.replace(POLICY, explore_share=epsilon, do_no_harm=False)
    decision = decide(scores(value), dict.fromkeys(refused, "budget"), policy)
    assert json.loads(json.dumps(dump(decision)))["promo_id"] == decision.promo_id
    assert decision.promo_id not in refused
