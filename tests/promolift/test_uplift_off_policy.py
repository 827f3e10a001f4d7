import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promolift.errors import InputError
from promolift.uplift.clusters import Floats
from promolift.uplift.off_policy import (
    BEST_SINGLE,
    METHODS,
    SHUFFLED,
    TARGET,
    Method,
    Options,
    all_estimates,
    best_arm,
    chosen,
    difference,
    effective_size,
    estimate,
    same_mix,
    shrunk,
)
from promolift.uplift.scores import make_trial

# Four rows by hand: weights 0.75/0.5, 1/0.25, 0/0.5, 0.5/0.1 = 1.5, 4, 0, 5; model of the target 2, 3, 4, 2; residuals 1, 2, 5, -2.
PROPENSITIES = np.array([[0.5, 0.5], [0.75, 0.25], [0.5, 0.5], [0.1, 0.9]])
TABLE = np.array([[0.75, 0.25], [0.0, 1.0], [0.0, 1.0], [0.5, 0.5]])
OUTCOME = np.array([2.0, 5.0, 6.0, 1.0])
MU = np.array([[1.0, 5.0], [0.0, 3.0], [1.0, 4.0], [3.0, 1.0]])
SMALL = Options(clip=3.0, switch=4.5, shrink=4.0)


def four(shoppers: Any = (0, 1, 2, 3)):
    return make_trial([0, 1, 0, 0], PROPENSITIES, np.array(shoppers))


HAND = {
    "ips": ([3.0, 15.0, 0.0, 3.0], [1.5, 3.0, 0.0, 3.0]),
    "dm": ([2.0, 3.0, 4.0, 2.0], [0.0, 0.0, 0.0, 0.0]),
    "dr": ([3.5, 11.0, 4.0, -8.0], [1.5, 4.0, 0.0, 5.0]),
    "switch": ([3.5, 11.0, 4.0, 2.0], [1.5, 4.0, 0.0, 0.0]),
    "dros": ([2 + 0.96, 3 + 1.6, 4.0, 2 - 2 * 20 / 29], [0.96, 0.8, 0.0, 20 / 29]),
}


@pytest.mark.parametrize("method", HAND)
def test_means_by_hand(method: Method):
    terms, weights = np.array(HAND[method][0]), np.array(HAND[method][1])
    found = estimate(method, OUTCOME, four(), TABLE, MU, options=SMALL)
    assert found.metric.value == pytest.approx(terms.mean())
    assert found.metric.error == pytest.approx(terms.std(ddof=1) / 2)
    assert found.metric.high - found.metric.value == pytest.approx(1.959964 * found.metric.error)
    assert found.effective == pytest.approx(weights.sum() ** 2 / np.sum(weights**2) if weights.any() else 0.0)
    assert found.overlap == pytest.approx(10.5**2 / (2.25 + 16 + 25)) and found.matched == 3


def test_self_normalised_by_hand():
    weight = np.array([1.5, 4.0, 0.0, 5.0])
    snips = estimate("snips", OUTCOME, four(), TABLE)
    assert snips.metric.value == pytest.approx((3 + 20 + 5) / 10.5)
    influence = weight * (OUTCOME - 28 / 10.5) / (10.5 / 4)
    assert snips.metric.error == pytest.approx(math.sqrt(np.sum(influence**2) * 4 / 3) / 4)
    sndr = estimate("sndr", OUTCOME, four(), TABLE, MU)
    correction = (1.5 + 8 - 10) / 10.5
    assert sndr.metric.value == pytest.approx(11 / 4 + correction)
    influence = np.array([2.0, 3.0, 4.0, 2.0]) - 11 / 4 + weight * (np.array([1.0, 2.0, 5.0, -2.0]) - correction) / (10.5 / 4)
    assert sndr.metric.error == pytest.approx(math.sqrt(np.sum(influence**2) * 4 / 3) / 4)


def test_rows_of_one_shopper_are_summed_before_they_are_squared():
    terms = np.array(HAND["dr"][0]) - np.mean(HAND["dr"][0])
    sums = np.array([terms[0] + terms[1], terms[2] + terms[3]])
    found = estimate("dr", OUTCOME, four([7, 7, 9, 9]), TABLE, MU)
    assert found.shoppers == 2 and found.metric.error == pytest.approx(math.sqrt(np.sum(sums**2) * 2) / 4)


def test_the_number_carries_its_definition():
    found = estimate("switch", OUTCOME, four(), TABLE, MU, options=Options(outcome="margin", unit="cents per decision"))
    record = found.record()
    assert record["id"] == "value/switch" and record["outcome"] == "margin" and record["propensity"] == "logged" and record["rows"] == 4
    assert "w above 10 set to 0" in record["scaling"] and record["policy"] == TARGET and record["unsupported"] == 0.0
    assert str(found).startswith("target policy: value/switch = ") and "cents per decision" in str(found)


def world(seed: int, rows: int = 400, per_shopper: int = 1, floor: float = 0.1):
    """Three arms, logged propensities >= floor that follow x, a skewed outcome, shoppers who share a level, and a stochastic target.

    The target prefers arm 2 where x > 0: there its outcome is largest and its propensity least, which is hard for weights.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    logits = np.column_stack([np.zeros(rows), 0.5 * x, -0.5 * x])
    p = floor + (1 - 3 * floor) * np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    mean = np.column_stack([1 + x, 2 + 0.5 * x, 1.5 + x**2])
    arm = (rng.uniform(size=rows)[:, None] > np.cumsum(p, axis=1)[:, :2]).sum(axis=1)
    codes = np.arange(rows) // per_shopper
    noise = rng.exponential(size=rows) - 1 + (rng.normal(size=rows)[codes] if per_shopper > 1 else 0.0)
    target = 0.2 / 3 + 0.8 * np.eye(3)[np.where(x > 0, 2, 1)]
    return mean[np.arange(rows), arm] + noise, make_trial(arm, p, codes), target, mean


# E of the target: 0.2/3 (1 + 2 + 2.5) + 0.8 (E[1.5 + x^2; x > 0] + E[2 + 0.5 x; x <= 0])
TRUTH = 0.2 / 3 * 5.5 + 0.8 * (0.75 + 0.5 + 1.0 - 0.5 / math.sqrt(2 * math.pi))


@pytest.mark.parametrize("model", ["right", "wrong", "zero"])
def test_ips_and_dr_are_unbiased_whatever_the_model(model: str):
    """With logged propensities DR is right for any model; SNIPS and SNDR are within their O(1/n) bias."""
    values = np.zeros((400, 4))
    for seed in range(400):
        outcome, trial, target, mean = world(seed, rows=200)
        mu = {"right": mean, "wrong": -mean - 3, "zero": 0 * mean}[model]
        for j, method in enumerate(("ips", "dr", "snips", "sndr")):
            values[seed, j] = estimate(method, outcome, trial, target, mu).metric.value
    error = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    assert np.all(np.abs(values.mean(axis=0) - TRUTH)[:2] < 3.5 * error[:2])
    assert np.all(np.abs(values.mean(axis=0) - TRUTH)[2:] < 3.5 * error[2:] + 0.02)


def test_dr_is_right_with_wrong_propensities_when_the_model_is_right():
    """The other half of double robustness: equal propensities are logged, which is false; IPS is off, DR is not."""
    values = np.zeros((300, 2))
    for seed in range(300):
        outcome, trial, target, mean = world(seed, rows=200)
        false = make_trial(trial.arm, np.full_like(trial.propensities, 1 / 3), trial.codes)
        values[seed] = [estimate(method, outcome, false, target, mean).metric.value for method in ("dr", "ips")]
    error = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    assert abs(values[:, 0].mean() - TRUTH) < 3.5 * error[0]
    assert abs(values[:, 1].mean() - TRUTH) > 10 * error[1]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000))
def test_the_ends_of_switch_dros_and_clip(seed: int):
    outcome, trial, target, mean = world(seed, rows=60)
    mu = mean + 1

    def value(method: Method, **limits: float) -> float:
        return estimate(method, outcome, trial, target, mu, options=Options(**limits)).metric.value

    assert value("switch", switch=0.0) == value("dros", shrink=0.0) == value("dm")
    assert value("switch", switch=math.inf) == value("dros", shrink=math.inf) == value("dr")
    assert value("dros", shrink=1e12) == pytest.approx(value("dr"), rel=1e-6)
    assert value("dros", shrink=1e-12) == pytest.approx(value("dm"), rel=1e-6)
    assert value("ips", clip=1e9) == value("ips")
    same = estimate("ips", outcome, trial, trial.propensities)
    assert same.metric.value == pytest.approx(outcome.mean()) and same.effective == pytest.approx(60)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.floats(-50, 50), st.floats(0.1, 9))
def test_snips_moves_with_the_outcome(seed: int, shift: float, scale: float):
    outcome, trial, target, _ = world(seed, rows=60)
    one, moved = (estimate("snips", y, trial, target).metric for y in (outcome, scale * outcome + shift))
    assert moved.value == pytest.approx(scale * one.value + shift, abs=1e-9) and moved.error == pytest.approx(scale * one.error)


def test_the_shrunk_weight_halves_at_the_root():
    assert shrunk(np.array([0.0, 10.0]), 100.0).tolist() == [0.0, 5.0]
    assert effective_size(np.array([2.0, 2.0, 0.0])) == 2.0 and effective_size(np.zeros(3)) == 0.0


def test_every_policy_stands_beside_its_shuffled_mix_and_the_best_single_arm():
    outcome, trial, target, mean = world(3, rows=2000)
    found = all_estimates(outcome, trial, target, mean)
    assert list(found) == [TARGET, SHUFFLED, f"{BEST_SINGLE} (2, chosen on these rows)"] and best_arm(outcome, trial) == 2
    assert all(tuple(r.metric.definition.id for r in row) == tuple(f"value/{m}" for m in METHODS) for row in found.values())
    without = all_estimates(outcome, trial, target, best=1)
    assert list(without)[2] == f"{BEST_SINGLE} (1, chosen on other rows)" and [len(row) for row in without.values()] == [2, 2, 2]
    assert same_mix(target)[0] == pytest.approx(target.mean(axis=0))
    gap = difference("dr", outcome, trial, (target, same_mix(target)), mean)
    assert gap.metric.value == pytest.approx(found[TARGET][3].metric.value - found[SHUFFLED][3].metric.value)
    assert gap.metric.definition.id == "value-difference/dr" and gap.policy == f"{TARGET} less {SHUFFLED}"
    assert 0 < gap.metric.error < found[TARGET][3].metric.error + found[SHUFFLED][3].metric.error
    assert difference("dr", outcome, trial, (target, target), mean).metric.error == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_no_overlap_cannot_tell_and_is_no_exception(method: Method):
    trial = make_trial([0, 1, 0], np.array([[0.5, 0.5]] * 3), np.arange(3))
    found = estimate(method, np.ones(3), trial, chosen(np.array([1, 0, 1]), 2), np.ones((3, 2)))
    assert "None of 3 logged rows" in found.cannot_tell and str(found).startswith("cannot tell: ")
    assert found.overlap == 0.0 and found.matched == 0
    assert all(math.isnan(number) for number in (found.metric.value, found.metric.error, found.metric.low, found.metric.high))


def test_one_matching_shopper_or_no_spread_gives_no_interval():
    trial = make_trial([0, 1, 0, 1], np.array([[0.5, 0.5]] * 4), np.arange(4))
    one = estimate("snips", np.arange(4.0), trial, chosen(np.array([1, 0, 1, 1]), 2))
    assert one.metric.value == 3.0 and math.isnan(one.metric.low) and "Only one shopper" in one.cannot_tell
    zero = estimate("snips", np.zeros(4), trial, np.full((4, 2), 0.5))
    assert zero.metric.value == 0.0 and math.isnan(zero.metric.low) and "without any spread" in zero.cannot_tell


def test_target_mass_that_the_log_could_not_give_is_said():
    trial = make_trial([0, 1, 0, 1], np.array([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]), np.arange(4))
    assert estimate("snips", np.arange(4.0), trial, np.array([[0.6, 0.4]] * 4)).unsupported == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"arm": [0, 0, 0, 0]}, "All 4 rows were given arm 0"),
        ({"propensities": np.array([[0.5, 0.6]] * 4)}, r"sum to 1\.1 instead of 1"),
        ({"propensities": np.array([[0.0, 1.0]] * 4)}, "propensity 0 for the arm it was given"),
        ({"outcome": np.array([1.0, np.nan, 1.0, 1.0])}, "outcome of row 1 is nan"),
        ({"target": np.array([[0.5, 0.4]] * 4)}, r"probabilities of row 0 are \[0\.5, 0\.4\]"),
        ({"target": np.array([[1.5, -0.5]] * 4)}, r"probabilities of row 0 are \[1\.5, -0\.5\]"),
        ({"target": np.ones((4, 3)) / 3}, r"target probability has shape \(4, 3\)"),
        ({"mu": None}, "'dr' needs `mu`"),
        ({"mu": np.full((4, 2), np.inf)}, "mu of row 0 is inf"),
        ({"method": "magic"}, "'magic' is unknown"),
        ({"options": Options(clip=0.0)}, "clip > 0"),
        ({"options": Options(shrink=math.nan)}, "shrink >= 0"),
    ],
)
def test_unusable_input_is_refused_in_a_sentence(change: dict[str, Any], sentence: str):
    case: dict[str, Any] = {"method": "dr", "outcome": OUTCOME, "arm": [0, 1, 0, 0], "propensities": PROPENSITIES, "target": TABLE}
    case = {**case, "mu": MU, "options": None, **change}
    trial = make_trial(case.pop("arm"), case.pop("propensities"), np.arange(4))
    with pytest.raises(InputError, match=sentence):
        estimate(trial=trial, **case)


def test_a_policy_names_arms_that_exist():
    with pytest.raises(InputError, match="row 1 arm 3; there are arms 0 to 2"):
        chosen(np.array([0, 3]), 3)


def coverage(methods: tuple[Method, ...], rows: int, worlds: int, per_shopper: int = 1, floor: float = 0.1) -> Floats:
    """Share of `worlds` in which each method's 95 % interval holds the truth; the model is wrong by a factor and a level."""
    covered = np.zeros((worlds, len(methods)))
    for seed in range(worlds):
        outcome, trial, target, mean = world(seed, rows, per_shopper, floor)
        found = [estimate(method, outcome, trial, target, 0.7 * mean + 0.3).metric for method in methods]
        covered[seed] = [metric.low <= TRUTH <= metric.high for metric in found]
    print("coverage", worlds, rows, per_shopper, floor, dict(zip(methods, covered.mean(axis=0).tolist(), strict=True)))
    return np.asarray(covered.mean(axis=0), dtype=np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("per_shopper", [1, 4])
def test_intervals_cover_the_truth(per_shopper: int):
    """3,000 worlds: Monte-Carlo error 0.004. With four rows a shopper, whose outcomes share a level, the clustered error must be right."""
    found = coverage(("snips", "dr", "sndr", "ips"), 2400, 3000, per_shopper)
    assert np.all((found >= 0.93) & (found <= 0.97))


@pytest.mark.slow
def test_without_a_floor_under_the_propensities_snips_needs_more_rows_and_the_effective_size_says_so():
    """A known limit: unbounded weights on a skewed outcome leave 95 % intervals short at some 300 effective rows."""
    few, many = (coverage(("snips",), rows, 1000, floor=0.0)[0] for rows in (1200, 12_000))
    assert few < 0.93 <= many <= 0.97
    assert 250 < estimate("snips", *world(1, 1200, floor=0.0)[:3]).effective < 350
