import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promolift.errors import InputError
from promolift.uplift.bootstrap import half_samples
from promolift.uplift.segments import holm, judge_segments, quantile_masks
from promolift.uplift.value import (
    Prediction,
    affordable_share,
    assign,
    best_promo,
    contribution,
    mean_given,
    price_for,
    shuffled,
    single,
    spend_path,
)  # fmt: skip


def prediction(seed: int, rows: int = 200, promos: int = 3):
    rng = np.random.default_rng(seed)
    return Prediction(rng.normal(10, 40, (rows, promos)), rng.normal(20, 20, (rows, promos)))


def test_the_arm_is_the_best_net_promo_or_none():
    table = Prediction(np.array([[5.0, 8.0], [5.0, 4.0], [-1.0, -2.0], [0.0, 0.0]]), np.array([[1.0, 6.0]] * 4))
    assert assign(table, 0.0).tolist() == [2, 1, 0, 0]
    assert assign(table, 1.0).tolist() == [1, 1, 0, 0]
    assert best_promo(table)[0].tolist() == [2, 1, 1, 1]
    assert best_promo(table)[1].tolist() == [8.0, 5.0, -1.0, 0.0]


@settings(deadline=None)
@given(st.integers(0, 500), st.floats(0, 30))
def test_the_price_keeps_the_budget_and_a_lower_price_does_not(seed: int, budget: float):
    table = prediction(seed)
    price = price_for(table, budget)
    assert mean_given(table.cost, assign(table, price)) <= budget
    if price > 0:
        assert mean_given(table.cost, assign(table, price * (1 - 1e-9))) > budget


@settings(deadline=None)
@given(st.integers(0, 500), st.floats(0, 30), st.integers(0, 1000))
def test_no_other_assignment_that_spends_as_little_is_predicted_to_earn_more(seed: int, budget: float, other: int):
    """Lagrangian optimality: at the solution's own spend no assignment has a higher predicted value."""
    table = prediction(seed, rows=30)
    arm = assign(table, price_for(table, budget))
    rival = np.random.default_rng(other).integers(0, 4, 30)
    value = np.column_stack([np.zeros(30), table.value])
    if mean_given(table.cost, rival) <= mean_given(table.cost, arm):
        assert value[np.arange(30), rival].sum() <= value[np.arange(30), arm].sum() + 1e-9


def test_costs_of_either_sign_and_unreachable_budgets():
    saver = Prediction(np.array([[-1.0]]), np.array([[-10.0]]))
    assert assign(saver, price_for(saver, -5.0)).tolist() == [1]
    with pytest.raises(InputError, match="No policy keeps a budget of -20"):
        price_for(saver, -20.0)
    assert assign(prediction(1), price_for(prediction(1), 5.0, np.full((200, 3), 30.0))).mean() > 0
    free = Prediction(np.array([[3.0]]), np.array([[0.0]]))
    assert price_for(free, 0.0) == 0.0


def test_the_price_can_keep_the_budget_by_what_promos_really_cost():
    table = prediction(3)
    charged = 2 * np.maximum(table.cost, 1.0)
    arm = assign(table, price_for(table, 10.0, charged))
    assert 9.0 < mean_given(charged, arm) <= 10.0
    unpriced = Prediction(np.ones((5, 1)), np.zeros((5, 1)))
    assert price_for(unpriced, 1.0, np.full((5, 1), 9.0)) > 1e14


def test_contributions_by_hand():
    gamma = np.array([[1.0, 4.0], [2.0, 0.0]])
    assert contribution(gamma, np.array([1, 0])).tolist() == [3.0, 0.0]
    assert shuffled(gamma, np.array([1, 0])).tolist() == [1.5, -1.0]
    assert single(gamma, 1, 0.5).tolist() == [1.5, -1.0]
    assert [affordable_share(c, 10.0) for c in (-3.0, 10.0, 40.0)] == [1.0, 1.0, 0.25]
    assert affordable_share(5.0, -1.0) == 0.0


def test_shuffled_is_the_expectation_over_shuffles():
    rng = np.random.default_rng(1)
    gamma, arm = rng.normal(size=(50, 3)), rng.integers(0, 3, 50)
    dealt = [contribution(gamma, rng.permutation(arm)).mean() for _ in range(4000)]
    assert shuffled(gamma, arm).mean() == pytest.approx(np.mean(dealt), abs=4 * np.std(dealt) / np.sqrt(4000))


def test_the_spend_path_never_spends_less():
    table = prediction(4)
    spends = [mean_given(table.cost, arm) for arm in spend_path(table)]
    assert len(spends) > 10 and np.all(np.diff(spends) >= -1e-12)


def test_half_samples_are_halves_of_shoppers_and_keep_rows_together():
    codes = np.repeat(np.arange(9), 3)
    samples = half_samples(codes, 9, 20, 3)
    assert samples.chosen.sum(axis=1).tolist() == [4] * 20
    for rows in samples.rows():
        assert all(len(set(rows[codes == c])) == 1 for c in range(9))
    assert np.array_equal(samples.chosen, half_samples(codes, 9, 20, 3).chosen)
    with pytest.raises(InputError, match="4 shoppers"):
        half_samples(codes[:9], 3, 20, 3)


def test_half_sample_error_of_a_mean_is_near_the_clustered_error():
    rng = np.random.default_rng(8)
    codes = np.repeat(np.arange(1500), 3)
    values = rng.normal(size=1500)[codes] + rng.normal(size=4500)
    found = half_samples(codes, 1500, 1000, 1).mean(values)
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx(np.sqrt((1 + 1 / 3) / 1500), rel=0.08)
    assert found.minus(found).error == 0


def test_holm_by_hand_and_segments_that_are_harmed():
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])
    rng = np.random.default_rng(2)
    feature = rng.uniform(size=4000)
    effect = np.where(feature < 0.25, -0.5, 0.2) + rng.normal(size=4000)
    masks = quantile_masks("age", feature) | {"few": np.arange(4000) < 5}
    found = judge_segments(effect, masks, half_samples(np.arange(4000), 4000, 200, 1))
    assert len(found) == 4 and found[0].name == "age part 1 of 4"
    assert found[0].p_harm < 0.001 and all(s.p_harm > 0.5 for s in found[1:])
