"""The gate on worlds whose true effects are known: it must promote what earns and refuse what does not."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promolift.contracts.artifacts import Verdict
from promolift.uplift.audit import audit
from promolift.uplift.bootstrap import half_samples
from promolift.uplift.calibration import blp_slope, ece_squared
from promolift.uplift.effects import Choice, Effects, Measured, choose, measure
from promolift.uplift.gate import EFFECT_CHECKS, GateLimits, judge
from promolift.uplift.scores import Trial, aipw, make_trial
from promolift.uplift.value import Prediction

ARMS = ("no_promo", "a", "b")
BUDGET = 12.0


@dataclass(frozen=True)
class World:
    """Two promos whose profit effects cross zero; the base outcome is large, noisy and unrelated to them."""

    trial: Trial
    measured: Measured
    effect: Any
    base: Any
    cost: Any
    feature: Any


def world(seed: int, shoppers: int = 1500, scale: float = 1.0, noise: float = 30.0) -> World:
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(shoppers), 2)
    n = len(codes)
    x = rng.normal(size=(n, 3))
    effect = scale * np.column_stack([20 * x[:, 0] - 4, 15 * x[:, 1] - 6])
    base = 50 + 40 * x[:, 2]
    cost = np.tile([20.0, 10.0], (n, 1))
    table = np.where((x[:, 2] > 0)[:, None], [0.4, 0.3, 0.3], [0.5, 0.25, 0.25])
    arm = (rng.uniform(size=n)[:, None] > np.cumsum(table, axis=1)).sum(axis=1).clip(0, 2)
    full = np.column_stack([np.zeros(n), effect])
    outcome = base + full[np.arange(n), arm] + noise * rng.normal(size=shoppers)[codes] + noise * rng.normal(size=n)
    trial = make_trial(arm, table, codes)
    gamma = aipw(outcome, trial, np.tile(base[:, None] + 5, (1, 3)))
    paid = aipw(np.column_stack([np.zeros(n), cost])[np.arange(n), arm], trial, np.zeros((n, 3)))
    return World(trial, Measured(trial, gamma, paid, ARMS), effect, base, cost, x)


def predictions(w: World, candidate: Any) -> dict[str, Prediction]:
    """The candidate beside the two mandatory baselines; LightGBM's place is taken by a noisier copy of the truth."""
    rng = np.random.default_rng(99)
    other = w.effect + rng.normal(0, 12, w.effect.shape)
    response = np.tile(w.base[:, None] / 10, (1, 2))
    values = {"uplift_net": candidate, "lightgbm": other, "response": response}
    return {name: Prediction(np.asarray(value, dtype=float), w.cost) for name, value in values.items()}


def effects_of(w: World, candidate: Any, chosen: str = "uplift_net", **others: Prediction) -> Effects:
    masks = {"low": w.feature[:, 2] < 0, "high": w.feature[:, 2] >= 0}
    table = predictions(w, candidate) | others
    return measure(w.measured, table, Choice(chosen, "a", {}), budget=BUDGET, segments=masks, resamples=200, seed=3)


def verdict_of(w: World, candidate: Any, **others: Prediction) -> Verdict:
    return judge(audit(w.trial), effects_of(w, candidate, **others))


def statuses(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.status for check in verdict.checks}


def test_a_good_model_is_promoted_and_every_check_says_so():
    w = world(1)
    verdict = verdict_of(w, w.effect)
    assert verdict.promoted and verdict.chosen == "uplift_net"
    assert set(statuses(verdict).values()) == {"passed"}
    assert list(statuses(verdict)) == ["propensity_completeness", "sample_ratio", "propensity_weights", *EFFECT_CHECKS]
    assert all(check.detail.endswith(".") for check in verdict.checks)
    assert verdict.reasons[-1].startswith("Power: proving a 10% gain over lightgbm")


@pytest.mark.parametrize("kind", ["random", "negated", "response"])
def test_useless_harmful_and_response_rankings_are_refused(kind: str):
    w = world(2)
    rng = np.random.default_rng(5)
    candidate = {
        "random": rng.normal(0, 15, w.effect.shape),
        "negated": -w.effect,
        "response": np.tile(w.base[:, None] / 5, (1, 2)),
    }[kind]
    verdict = verdict_of(w, candidate)
    found = statuses(verdict)
    assert not verdict.promoted
    assert found["qini_positive"] == "failed" and found["profit_over_no_promo"] == "failed"
    if kind == "negated":
        assert found["autoc_not_harmful"] == found["calibration_slope"] == found["profit_over_lightgbm"] == "failed"
        assert found["no_harmed_segment"] == "failed"


def test_a_model_twice_too_sure_is_refused_by_calibration_only():
    w = world(3, shoppers=6000)
    found = statuses(verdict_of(w, 3 * w.effect))
    assert found["qini_positive"] == "passed"
    assert found["calibration_slope"] == found["calibration_error"] == "failed"


def test_broken_propensities_leave_every_other_question_unanswered():
    w = world(1)
    table = w.trial.propensities.copy()
    table[7] = np.nan
    broken = judge(audit(replace(w.trial, propensities=table)), None)
    found = statuses(broken)
    assert found["propensity_completeness"] == "failed" and not broken.promoted
    assert {found[name] for name in EFFECT_CHECKS} == {"cannot tell"}
    assert "row 7" in broken.reasons[0]


def test_a_sample_ratio_mismatch_leaves_every_effect_unanswered():
    w = world(1)
    lost = (w.trial.arm == 1) & (np.arange(w.trial.rows) % 4 == 0)
    verdict = judge(audit(w.trial.take(~lost)), effects_of(w, w.effect))
    found = statuses(verdict)
    assert found["sample_ratio"] == "failed" and {found[n] for n in EFFECT_CHECKS} == {"cannot tell"}


def test_any_constant_as_propensity_of_the_arm_given_is_found_by_the_weights():
    """Its expected counts are made of the arms given, so that the sample ratio agrees with every such constant."""
    arm = np.arange(400) % 2
    given = np.where(arm[:, None] == np.arange(2), 0.9, 0.1)
    found = statuses(judge(audit(make_trial(arm, given, np.arange(400))), None))
    assert (found["sample_ratio"], found["propensity_weights"]) == ("passed", "failed")
    fair = statuses(judge(audit(make_trial(arm, np.full((400, 2), 0.5), np.arange(400))), None))
    assert fair["propensity_weights"] == "passed"


def test_a_file_without_chance_cannot_be_judged():
    trial = make_trial(np.zeros(50, dtype=int), np.tile([1.0, 0.0], (50, 1)), np.arange(50))
    verdict = judge(audit(trial), None)
    assert not verdict.promoted and statuses(verdict)["sample_ratio"] == "cannot tell"


def test_a_better_champion_blocks_and_an_equal_one_does_not():
    w = world(4)
    worse = w.effect + np.random.default_rng(1).normal(0, 60, w.effect.shape)
    champion = Prediction(w.effect, w.cost)
    assert statuses(verdict_of(w, worse, champion=champion))["profit_over_champion"] == "failed"
    assert statuses(verdict_of(w, w.effect, champion=champion))["profit_over_champion"] == "passed"


def test_a_champion_that_cannot_be_compared_is_said_so():
    w = world(1)
    verdict = judge(audit(w.trial), effects_of(w, w.effect), champion_note="The champion was trained with other features.")
    assert not verdict.promoted and "other features" in verdict.reasons[0]


def test_too_few_rows_cannot_tell_models_apart():
    w = world(6, shoppers=60)
    check = next(c for c in verdict_of(w, w.effect).checks if c.name == "profit_over_lightgbm")
    assert check.status == "cannot tell" and "cannot tell them apart" in check.detail


def test_choice_is_a_plain_maximum_of_value_at_the_budget():
    w = world(7)
    table = predictions(w, w.effect)
    choice = choose(w.measured, table, BUDGET)
    assert choice.model == "uplift_net" and choice.values["uplift_net"] == max(choice.values.values())
    assert choose(w.measured, table, 1e9).single == "a"


def test_underrated_costs_gain_nothing_and_are_refused():
    w = world(7)
    table = predictions(w, w.effect) | {"cheap": Prediction(w.effect, w.cost / 2)}
    found = measure(w.measured, table, Choice("cheap", "a", {}), budget=6.0, segments={}, resamples=100, seed=3)
    for name in ("cheap", "uplift_net"):
        assert found.models[name].spend.value == pytest.approx(6.0, abs=0.1)
    assert found.profit("cheap").value == pytest.approx(found.profit("uplift_net").value, rel=1e-3)
    assert statuses(judge(audit(w.trial), found))["spend_within_budget"] == "failed"
    honest = measure(w.measured, table, Choice("uplift_net", "a", {}), budget=6.0, segments={}, resamples=100, seed=3)
    assert statuses(judge(audit(w.trial), honest))["spend_within_budget"] == "passed"


def test_estimates_agree_with_the_truth():
    w = world(8, shoppers=6000)
    found = effects_of(w, w.effect).models["uplift_net"]
    full = np.column_stack([np.zeros(len(w.effect)), w.effect])
    truth = full[np.arange(len(full)), found.arm].mean()
    assert abs(found.profit.value - truth) < 3 * found.profit.error
    assert found.spend.value <= BUDGET + 3 * found.spend.error
    assert abs(found.slope.value - 1) < 3 * found.slope.error
    assert found.ece.value < 0.05


def test_calibration_error_by_hand_on_exact_effects():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4000, 2))
    samples = half_samples(np.arange(4000), 4000, 100, 1)
    assert ece_squared(2 * x, x, samples).value == pytest.approx(0.25, abs=1e-4)
    assert blp_slope(2 * x, x, samples).value == pytest.approx(0.5)
    assert ece_squared(x, x, samples).value == pytest.approx(0, abs=1e-12)
    noisy = [ece_squared(x, x + rng.normal(0, 5, x.shape), samples).value for _ in range(60)]
    assert np.mean(noisy) == pytest.approx(0, abs=4 * np.std(noisy) / np.sqrt(60))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_row_order_changes_no_estimate(seed: int):
    w = world(9, shoppers=200)
    order = np.random.default_rng(seed).permutation(w.trial.rows)
    table = {k: Prediction(p.value[order], p.cost[order]) for k, p in predictions(w, w.effect).items()}
    t = w.trial
    moved = Measured(
        Trial(t.arm[order], t.propensities[order], t.codes[order], t.shoppers), w.measured.value[order], w.measured.cost[order], ARMS
    )
    masks = {"low": w.feature[order, 2] < 0, "high": w.feature[order, 2] >= 0}
    after = measure(moved, table, Choice("uplift_net", "a", {}), budget=BUDGET, segments=masks, resamples=200, seed=3)
    before = effects_of(w, w.effect)
    for name, judged in before.models.items():
        for part in ("qini", "autoc", "profit", "spend", "slope", "ece"):
            one, two = getattr(judged, part), getattr(after.models[name], part)
            assert (two.value, two.error) == pytest.approx((one.value, one.error), rel=1e-6)


def test_promoting_what_is_no_better_than_nothing_happens_at_most_alpha():
    """Worlds without any effect, a model that sees noise: 200 worlds, alpha 5 %; 20 is the 99.8 % point of Binomial(200, 0.05)."""
    promoted = [0, 0]
    for seed in range(200):
        w = world(1000 + seed, shoppers=300, scale=0.0)
        candidate = np.random.default_rng(seed).normal(0, 10, w.effect.shape)
        found = statuses(verdict_of(w, candidate))
        promoted[0] += found["profit_over_no_promo"] == "passed"
        promoted[1] += found["qini_positive"] == "passed"
    assert max(promoted) <= 20


def test_limits_are_data():
    w = world(1)
    strict = GateLimits(alpha=1e-12)
    assert not judge(audit(w.trial), effects_of(w, w.effect), strict).promoted
