from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from promolift.errors import InputError
from promolift.uplift import knapsack
from promolift.uplift.bootstrap import half_samples
from promolift.uplift.clusters import Floats
from promolift.uplift.knapsack import hull_steps, integrated_difference, policy_at, policy_at_price, spend_gain
from promolift.uplift.value import Prediction, assign, contribution

SEEDS = st.integers(0, 100_000)


def prediction(seed: int, rows: int = 40, promos: int = 4):
    """Mixed signs; integers half of the time, so that ties, duplicates and collinear points happen."""
    rng = np.random.default_rng(seed)
    value, cost = rng.normal(2, 6, (rows, promos)), rng.normal(2, 5, (rows, promos))
    return Prediction(np.round(value), np.round(cost)) if seed % 2 else Prediction(value, cost)


def with_none(table: Floats):
    return np.column_stack([np.zeros(len(table)), table])


def best_by_linear_programme(table: Prediction, budget: float) -> float:
    value, cost = with_none(table.value), with_none(table.cost)
    n, arms = value.shape
    found = linprog(
        -value.ravel() / n, A_ub=cost.reshape(1, -1) / n, b_ub=[budget], A_eq=np.kron(np.eye(n), np.ones((1, arms))), b_eq=np.ones(n)
    )
    assert found.success, found.message
    return -found.fun


def test_a_path_by_hand_with_costs_and_gains_of_either_sign():
    """Row 0: a saver that gains is taken at once, then (1, 7); (3, 6) is dominated. Row 1: a saver that loses, then no_promo."""
    steps = hull_steps(Prediction(np.array([[5.0, 7.0, 6.0], [-4.0, -9.0, -1.0]]), np.array([[-1.0, 1.0, 3.0], [-2.0, -1.0, 2.0]])))
    assert steps.start.tolist() == [1, 1] and (steps.base_cost, steps.base_gain) == (-3.0, 1.0)
    assert list(zip(steps.row, steps.before, steps.after, strict=True)) == [(1, 1, 0), (0, 1, 2)]
    assert steps.slope.tolist() == [2.0, 1.0] and steps.cost.tolist() == [2.0, 2.0] and steps.gain.tolist() == [4.0, 2.0]
    assert steps.spend.tolist() == [-1.5, -0.5, 0.5] and steps.total.tolist() == [0.5, 2.5, 3.5]
    assert steps.arms(1).tolist() == [1, 0]


def test_points_under_the_hull_and_on_a_straight_line_are_skipped():
    steps = hull_steps(Prediction(np.array([[1.0, 4.0, 2.0, 4.0]]), np.array([[2.0, 4.0, 2.0, 9.0]])))
    assert steps.after.tolist() == [2] and steps.gain.tolist() == [4.0]


@pytest.mark.parametrize("value", [[[0.0, -1.0]], [[-3.0, -2.0]]])
def test_where_no_promo_gains_or_saves_nobody_moves(value: list[list[float]]):
    steps = hull_steps(Prediction(np.array(value), np.array([[0.0, 3.0]])))
    assert steps.start.tolist() == [0] and not len(steps.row) and steps.spend.tolist() == [0.0]
    assert policy_at(steps, 5.0).fraction == 0.0


@settings(deadline=None, max_examples=60)
@given(SEEDS, st.integers(1, 6), st.floats(0, 1.2))
def test_policy_at_is_the_optimum_of_the_linear_programme(seed: int, promos: int, position: float):
    table = prediction(seed, rows=12, promos=promos)
    steps = hull_steps(table)
    low, high = steps.spend[[0, -1]]
    budget = float(low + position * (high - low)) if high > low else float(low + position)
    share = policy_at(steps, budget).probabilities(promos + 1)
    assert share.sum(axis=1) == pytest.approx(1.0) and np.all(share >= 0) and np.sum((share > 0) & (share < 1)) <= 2
    spent, gained = (float(np.sum(share * with_none(t)) / 12) for t in (table.cost, table.value))
    assert spent <= budget + 1e-9
    assert gained == pytest.approx(best_by_linear_programme(table, budget + 1e-12), abs=1e-7)


@settings(deadline=None, max_examples=30)
@given(SEEDS)
def test_each_whole_step_is_the_best_of_all_whole_assignments_that_spend_as_little(seed: int):
    table = prediction(seed, rows=4, promos=3)
    value, cost, steps = with_none(table.value), with_none(table.cost), hull_steps(table)
    rivals = np.array(list(product(range(4), repeat=4)))
    spends, gains = cost[np.arange(4), rivals].sum(axis=1), value[np.arange(4), rivals].sum(axis=1)
    for spend, total in zip(steps.spend * 4, steps.total * 4, strict=True):
        assert total == pytest.approx(gains[spends <= spend + 1e-9].max())


@settings(deadline=None)
@given(SEEDS, st.integers(1, 12))
def test_the_path_is_concave_rises_and_keeps_each_rows_order(seed: int, promos: int):
    steps = hull_steps(prediction(seed, promos=promos))
    assert np.all(steps.cost > 0) and np.all(steps.gain > 0) and np.all(np.diff(steps.slope) <= 0)
    assert np.all(np.diff(steps.spend) > 0)
    at = steps.start.copy()
    for row, before, after in zip(steps.row, steps.before, steps.after, strict=True):
        assert at[row] == before
        at[row] = after
    assert np.array_equal(at, steps.arms(len(steps.row)))


@settings(deadline=None)
@given(SEEDS, st.floats(0.001, 20))
def test_at_a_price_the_path_is_the_assignment_of_serving(seed: int, price: float):
    table = prediction(2 * seed)
    assert np.array_equal(policy_at_price(hull_steps(table), price), assign(table, price))


@settings(deadline=None)
@given(SEEDS, st.floats(0, 5))
def test_where_arms_tie_at_a_price_the_net_value_is_still_that_of_the_assignment(seed: int, price: float):
    table = prediction(2 * seed + 1)
    net = with_none(table.value - price * table.cost)
    rows = np.arange(len(net))
    ours, theirs = policy_at_price(hull_steps(table), price), assign(table, price)
    assert net[rows, ours] == pytest.approx(net[rows, theirs], abs=1e-9)


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch):
    whole = hull_steps(prediction(7, rows=101))
    monkeypatch.setattr(knapsack, "BLOCK_CELLS", 50)
    parts = hull_steps(prediction(7, rows=101))
    assert all(np.array_equal(getattr(parts, name), getattr(whole, name)) for name in vars(whole))


def test_a_budget_below_the_cheapest_arms_is_refused():
    steps = hull_steps(Prediction(np.array([[1.0]]), np.array([[-10.0]])))
    assert policy_at(steps, -10.0).arm.tolist() == [1]
    with pytest.raises(InputError, match=r"No policy keeps a budget of -20 cents .* cost -10"):
        policy_at(steps, -20)


@pytest.mark.parametrize(
    ("value", "cost", "sentence"),
    [
        ([[1.0, np.nan]], [[1.0, 1.0]], "predicted value in row 0, column 1 is nan"),
        ([[1.0]], [[np.inf]], "predicted cost in row 0, column 0 is inf"),
        ([[1.0]], [[1.0, 2.0]], "same shape"),
        ([], [], "same shape"),
    ],
)
def test_unusable_predictions_are_refused(value: list[list[float]], cost: list[list[float]], sentence: str):
    with pytest.raises(InputError, match=sentence):
        hull_steps(Prediction(np.array(value), np.array(cost)))


def measured(seed: int, rows: int = 3000, noise: float = 0.0):
    rng = np.random.default_rng(seed)
    table = Prediction(rng.normal(5, 10, (rows, 2)), rng.uniform(1, 9, (rows, 2)))
    gammas = [with_none(t) + noise * rng.normal(size=(rows, 3)) for t in (table.value, table.cost)]
    codes = np.repeat(np.arange(rows // 3), 3)
    return table, gammas, half_samples(codes, rows // 3, 200, 5)


def test_a_true_model_measures_what_it_predicts():
    table, (value, cost), samples = measured(1)
    steps = hull_steps(table)
    curve = spend_gain(steps, value, cost, samples, points=10_000)
    for budget, gain in zip(curve.budgets, curve.gains, strict=True):
        assert gain.value == pytest.approx(np.interp(budget, steps.spend, steps.total))
    assert curve.at(1e6).value == pytest.approx(steps.total[-1])
    coarse = spend_gain(steps, value, cost, samples, budgets=curve.budgets)
    assert coarse.spend.shape == (201, 33)
    assert [g.value for g in coarse.gains] == pytest.approx([g.value for g in curve.gains], rel=0.02, abs=1e-9)


def test_the_clustered_error_agrees_with_the_half_samples_and_with_the_spread_over_worlds():
    """On average: in one world the slope at the budget is itself a guess, and the two errors may differ by a fifth."""
    gains, clustered, halves = [], [], []
    for seed in range(60):
        table, (value, cost), samples = measured(seed, noise=20.0)
        curve = spend_gain(hull_steps(table), value, cost, samples, budgets=[1.0, 2.0])
        gains.append([gain.value for gain in curve.gains])
        halves.append([gain.error for gain in curve.gains])
        clustered.append(curve.errors)
    assert np.mean(clustered, axis=0) == pytest.approx(np.mean(halves, axis=0), rel=0.1)
    # The spread over 60 worlds is known to 9 %.
    assert np.mean(clustered, axis=0) == pytest.approx(np.std(gains, axis=0, ddof=1), rel=0.27)


def test_beyond_the_paths_end_the_gain_is_that_of_no_budget():
    table, (value, cost), samples = measured(2, noise=20.0)
    (gain,) = spend_gain(hull_steps(table), value, cost, samples, budgets=[1e6]).gains
    end = contribution(value, assign(table, 0.0))
    assert gain.value == pytest.approx(end.mean()) and gain.error == pytest.approx(samples.mean(end).error)


def test_equal_slopes_share_their_mean_whatever_the_order_of_rows():
    rows = 12
    table = Prediction(np.ones((rows, 1)), np.ones((rows, 1)))
    value = np.column_stack([np.zeros(rows), np.arange(rows, dtype=float)])
    samples = half_samples(np.arange(rows), rows, 5, 1)
    curve = spend_gain(hull_steps(table), value, with_none(table.cost), samples, budgets=[0.5])
    assert curve.spend.shape[1] == 2 and curve.gains[0].value == pytest.approx(0.5 * value[:, 1].mean())


def test_the_area_between_two_curves_by_hand_and_paired():
    rows = 8
    gamma = np.column_stack([np.zeros(rows), np.full(rows, 4.0), np.full(rows, 1.0)])
    spend = np.column_stack([np.zeros(rows), np.ones((rows, 2))])
    samples = half_samples(np.arange(rows), rows, 6, 1)
    flat = np.ones((rows, 2))
    one, two = (
        spend_gain(hull_steps(Prediction(flat + np.array(extra), flat)), gamma, spend, samples) for extra in ([1.0, 0.0], [0.0, 1.0])
    )
    area = integrated_difference(one, two, 2.0)
    assert area.value == pytest.approx(0.5 * 3 + 3, rel=1e-3) and area.error == pytest.approx(0.0, abs=1e-12)
    assert integrated_difference(one, one, 0.5).value == 0.0
    with pytest.raises(InputError, match=r"budget is 0\.0 cents"):
        integrated_difference(one, two, 0.0)
    other = spend_gain(hull_steps(Prediction(flat, flat)), gamma, spend, half_samples(np.arange(rows), rows, 6, 2))
    with pytest.raises(InputError, match="same half samples"):
        integrated_difference(one, other, 1.0)


def test_measuring_refuses_what_it_cannot_use():
    table, (value, cost), samples = measured(3, rows=30)
    steps = hull_steps(table)
    with pytest.raises(InputError, match="value pseudo-outcomes have shape"):
        spend_gain(steps, value[:-1], cost, samples)
    cost[4, 1] = np.nan
    with pytest.raises(InputError, match="pseudo-outcome of cost in row 4, column 1 is nan"):
        spend_gain(steps, value, cost, samples)
    with pytest.raises(InputError, match=r"budget of nan cents per decision is not at least 0"):
        spend_gain(steps, value, value * 0, samples, budgets=[np.nan])
    with pytest.raises(InputError, match="30 path rows, 29 sampled rows, 3 arms"):
        spend_gain(steps, value, value, samples.take(np.arange(30) > 0))


def world(seed: int, rows: int):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    true_value, true_cost = (
        with_none(np.column_stack([2 + 3 * x, 3 + x])),
        with_none(np.column_stack([1 + 0.3 * x, np.full(rows, 2.0)])),
    )
    table = Prediction(true_value[:, 1:] + rng.normal(size=(rows, 2)), np.abs(true_cost[:, 1:]) + 0.1)
    noisy = [t + scale * rng.normal(size=(rows, 3)) for t, scale in ((true_value, 6), (true_cost, 1))]
    return table, noisy if rows < 10_000 else [true_value, true_cost]


@pytest.mark.slow
def test_intervals_of_the_gain_at_a_budget_cover_the_truth():
    """500 worlds: pseudo-outcomes are truth plus noise; the truth is the interpolated curve of a very large sample."""
    table, (value, cost) = world(1, 400_000)
    truth = spend_gain(hull_steps(table), value, cost, half_samples(np.arange(400_000), 400_000, 2, 1), budgets=[0.6]).gains[0].value
    covered = np.zeros((500, 2))
    for seed in range(500):
        table, (value, cost) = world(1000 + seed, 600)
        curve = spend_gain(hull_steps(table), value, cost, half_samples(np.arange(600), 600, 200, seed), budgets=[0.6])
        low, high = curve.gains[0].interval()
        covered[seed] = low <= truth <= high, abs(curve.gains[0].value - truth) <= 1.96 * curve.errors[0]
    print("coverage: half samples, influence", covered.mean(axis=0))
    assert np.all((covered.mean(axis=0) >= 0.93) & (covered.mean(axis=0) <= 0.97))
