import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promolift.errors import InputError
from promolift.uplift.calibration import PromoBounds, coverage, lower_at, promo_bounds
from promolift.uplift.isotonic import apply_knots, cross_calibrated, fit_knots, held_out, isotonic, out_of_fold, shopper_folds
from promolift.uplift.scores import aipw, make_trial

NAMES = ("a", "b", "c")
numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3))
pairs = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40)


def world(seed: int, *, rows: int = 1500, shares: Any = (0.25, 0.25, 0.25, 0.25), flat: bool = False, skew: bool = False):
    """Scores, AIPW effects, true conditional effects, shoppers (two rows each) and arms; nuisances are wrong, propensities right."""
    rng = np.random.default_rng(seed)
    shopper = np.repeat(np.arange(rows // 2), 2)
    x = rng.normal(size=rows) + rng.normal(size=rows // 2)[shopper]
    truth = np.zeros((rows, 3)) if flat else np.column_stack([5 * x, 3 * x - 4, 2 + 4 * np.tanh(x)])
    score = truth + rng.normal(0, 4, (rows, 3)) + [3.0, 0.0, -2.0]
    arm = np.searchsorted(np.cumsum(shares)[:-1], rng.uniform(size=rows))
    noise = 20 - rng.exponential(20, rows) if skew else rng.normal(0, 20, rows)
    outcome = 4 * x + np.column_stack([np.zeros(rows), truth])[np.arange(rows), arm] + noise + rng.normal(0, 8, rows // 2)[shopper]
    gamma = aipw(outcome, make_trial(arm, np.tile(shares, (rows, 1)), shopper), np.repeat(3 * x[:, None], 4, axis=1))
    return score, gamma[:, 1:] - gamma[:, :1], truth, shopper, arm


def mean_and_error(values: Any):
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def test_isotonic_pools_violators_by_weight():
    assert isotonic(np.array([1.0, 3.0, 2.0, 4.0]), np.ones(4)).tolist() == [1.0, 2.5, 2.5, 4.0]
    assert isotonic(np.array([3.0, 0.0]), np.array([1.0, 3.0])).tolist() == [0.75, 0.75]
    assert isotonic(np.empty(0), np.empty(0)).tolist() == []


@settings(deadline=None)
@given(pairs, pairs)
def test_isotonic_is_the_nearest_ascending_sequence(found: Any, other: Any):
    values, rival = np.array([p[0] for p in found]), np.sort(np.resize([p[0] for p in other], len(found)))
    fitted = isotonic(values, np.ones(len(values)))
    assert np.all(np.diff(fitted) >= 0)
    assert np.sum((fitted - values) ** 2) <= np.sum((rival - values) ** 2) * (1 + 1e-9) + 1e-6


def test_isotonic_agrees_with_scikit_learn():
    library = pytest.importorskip("sklearn.isotonic")
    rng = np.random.default_rng(4)
    values, weights = np.arange(300) / 50 + rng.normal(0, 3, 300), rng.uniform(0.1, 3, 300)
    np.testing.assert_allclose(isotonic(values, weights), library.isotonic_regression(values, sample_weight=weights), atol=1e-9)


def test_knots_by_hand_with_equal_scores():
    knots = fit_knots(np.array([1.0, 1.0, 2.0, 3.0, 4.0]), np.array([0.0, 2.0, 5.0, 3.0, 9.0]))
    assert knots == ((1.0, 1.0), (2.0, 4.0), (3.0, 4.0), (4.0, 9.0))
    at = np.array([0.0, 1.5, 2.5, 3.5, 4.0, 7.0])
    assert apply_knots(knots, at).tolist() == [1, 1, 4, 4, 9, 9]
    assert apply_knots(knots, at, "linear").tolist() == [1, 2.5, 4, 6.5, 9, 9]
    assert json.loads(json.dumps(knots)) == [list(knot) for knot in knots]


@settings(deadline=None)
@given(pairs, st.lists(numbers, min_size=2, max_size=30), st.sampled_from(["constant", "linear"]))
def test_calibration_makes_ties_but_never_changes_places_and_keeps_the_mean(rows: Any, new: Any, between: Any):
    score, effect = np.array(rows).T
    knots = fit_knots(score, effect)
    assert np.all(np.diff(np.array(knots)[:, 0]) > 0) and np.all(np.diff(np.array(knots)[:, 1]) >= 0)
    assert np.all(np.diff(apply_knots(knots, np.sort(new), between)) >= 0)
    fitted = apply_knots(knots, score, between)
    assert fitted.mean() == pytest.approx(effect.mean(), rel=1e-9, abs=1e-6)
    assert effect.min() - 1e-6 <= fitted.min() and fitted.max() <= effect.max() + 1e-6


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-50, 50))
def test_calibration_does_not_depend_on_scale_or_row_order(seed: int, scale: float, shift: float):
    rng = np.random.default_rng(seed)
    score, order = np.round(rng.normal(size=60), 1), rng.permutation(60)
    effect = score + rng.normal(size=60)
    plain = apply_knots(fit_knots(score, effect), score)
    rescaled = score[order] * scale + shift
    np.testing.assert_allclose(apply_knots(fit_knots(rescaled, effect[order]), rescaled), plain[order], atol=1e-9)


def test_cross_calibration_undoes_wrong_sizes_on_rows_that_did_not_fit_it():
    rng = np.random.default_rng(5)
    shopper = np.repeat(np.arange(4000), 2)
    truth = rng.normal(size=8000)
    score, effect = np.exp(truth), 2 * truth + rng.normal(0, 3, 8000)
    fold = shopper_folds(shopper, 5, 1)
    assert all(len(set(fold[shopper == s])) == 1 for s in range(50)) and set(np.bincount(fold)) == {1600}
    found = held_out(score, effect, fold)
    assert np.mean((found - 2 * truth) ** 2) < 0.15 * np.mean((score - 2 * truth) ** 2)
    assert np.cov(found, effect)[0, 1] / np.var(found, ddof=1) == pytest.approx(1, abs=0.05)


def test_cross_calibrated_is_the_median_over_the_folds_models():
    scores, fold = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]), np.array([0, 1, 2])
    assert out_of_fold(scores, fold).tolist() == [1, 5, 9]
    knots = fit_knots(out_of_fold(scores, fold), np.array([10.0, 20.0, 30.0]))
    assert cross_calibrated(scores, knots).tolist() == [10, 20, 20]
    assert cross_calibrated(scores, knots, "linear").tolist() == [12.5, 20, 27.5]


def test_calibration_of_degenerate_inputs():
    assert fit_knots(np.ones(5), np.arange(5.0)) == ((1.0, 2.0),)
    assert fit_knots(np.arange(3.0), np.zeros(3)) == ((0.0, 0.0), (2.0, 0.0))
    assert np.isfinite(apply_knots(fit_knots(np.arange(9.0), np.append(np.ones(8), 1e12)), np.arange(9.0))).all()
    for score, effect, sentence in (([1.0, np.inf], [0.0, 0.0], "score of row 1 is inf"), ([], [], "got 0, 0"), ([1.0], [1, 2], "1, 2")):
        with pytest.raises(InputError, match=sentence):
            fit_knots(np.array(score), np.array(effect, dtype=float))
    with pytest.raises(InputError, match="5 folds and 1 shoppers"):
        shopper_folds(np.zeros(9), 5)
    with pytest.raises(InputError, match="all 3 rows are in fold 0"):
        held_out(np.arange(3.0), np.arange(3.0), np.zeros(3, dtype=int))


def test_a_promos_bound_by_hand():
    """400 rows, four bins; effects alternate around 1, 2, 3, 4 with standard deviation 1, so each bin's error is sqrt(1/99)."""
    score = np.arange(400.0)[:, None]
    effect = 1.0 + score // 100 + np.where(score % 2 == 0, 1.0, -1.0)
    bounds = promo_bounds(score, effect, np.arange(400), np.ones(400, dtype=int), ["a"])
    assert [at for at, _ in bounds.of("a")] == [0, 99, 100, 199, 200, 299, 300, 399]
    width = 1.66039 / np.sqrt(99)  # Student's t, 99 degrees of freedom, 95 %
    assert [b for _, b in bounds.of("a")][::2] == pytest.approx([k - width for k in (1, 2, 3, 4)], abs=1e-5)
    found = lower_at(bounds.of("a"), np.array([50.0, 1e9, -10.0]))
    assert found.tolist() == pytest.approx([1 - width, 4 - width, -9 - width], abs=1e-5)


def test_promos_have_their_own_curves_and_few_pairs_are_pooled_and_capped():
    score, effect, _, shopper, arm = world(1, rows=6000, shares=(0.4, 0.4, 0.19, 0.01))
    bounds = promo_bounds(score, effect, shopper, arm, NAMES)
    assert len({bounds.of(name) for name in NAMES}) == 3 and bounds.of("new") == bounds.pooled
    for name in NAMES:
        assert np.all(np.diff(np.array(bounds.of(name)), axis=0) >= 0)
    # Promo c was given to some 60 rows: not enough for four bins of its own.
    assert [at for at, _ in bounds.of("c")] == [at for at, _ in bounds.pooled]
    assert all(own <= pooled for (_, own), (_, pooled) in zip(bounds.of("c"), bounds.pooled, strict=True))
    assert max(bound for _, bound in bounds.of("c")) < effect[:, 2].mean()
    assert json.loads(json.dumps(vars(bounds)))["promos"].keys() == set(NAMES)


def test_a_promo_that_is_ranked_backwards_is_still_bounded():
    misses = []
    for seed in range(60):
        score, effect, truth, shopper, arm = world(seed)
        score[:, 0] = -score[:, 0]
        top = score[:, 0] >= np.quantile(score[:, 0], 0.9)
        bounds = promo_bounds(score, effect, shopper, arm, NAMES)
        misses.append(truth[top, 0].mean() < lower_at(bounds.of("a"), score[top, 0]).mean())
    assert sum(misses) <= 8  # 60 * 0.05 = 3, sd 1.7


def test_coverage_by_hand():
    bounds = PromoBounds({"a": ((0.0, 0.0), (10.0, 0.0))}, ((0.0, 5.0), (10.0, 5.0)))
    score, truth = np.column_stack([np.arange(4.0)] * 2), np.array([[1.0, 9.0], [-3.0, 4.0], [2.0, 4.0], [-1.0, 5.0]])
    found = coverage(bounds, score, truth, ("a", "b"), bins=2)
    assert (found.cells, found.counted, found.promos) == (0.5, 4, {"a": 0.5, "b": 0.5})
    assert found.pairs == 4 / 8


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [{}, {"flat": True}, {"skew": True}, {"shares": (0.4, 0.3, 0.28, 0.02)}, {"shares": (0.4, 0.3, 0.28, 0.02), "skew": True}],
    ids=str,
)
def test_measured_coverage_of_cell_means_is_at_least_95_percent(kind: Any):
    """200 worlds with known conditional effects; cells share shoppers, so the error is that of the worlds' mean."""
    found, top = [], []
    for seed in range(200):
        score, effect, truth, shopper, arm = world(10_000 + seed, **kind)
        bounds = promo_bounds(score, effect, shopper, arm, NAMES)
        measured = coverage(bounds, score, truth, NAMES)
        found.append([measured.cells, measured.pairs])
        best = score >= np.quantile(score, 0.9, axis=0)
        lower = np.column_stack([lower_at(bounds.of(name), score[:, i]) for i, name in enumerate(NAMES)])
        top.append(np.mean([truth[best[:, i], i].mean() >= lower[best[:, i], i].mean() for i in range(3)]))
    cells, pairs_above = np.mean(found, axis=0)
    assert cells >= 0.95 - 2 * mean_and_error([f[0] for f in found])[1]
    share, error = mean_and_error(top)
    assert share >= 0.95 - 2 * error  # the scores that serving acts on, which no lower bin's caution helps
    assert pairs_above > 0.85  # not promised: single pairs scatter around their bin's mean
    print(f"coverage {kind}: cells {cells:.4f}, highest tenth {share:.4f} (error {error:.4f}), pairs {pairs_above:.4f}")


def test_bounds_of_degenerate_inputs():
    score, effect, _, shopper, arm = world(3)
    for changed in (np.ones_like(score), score):
        bounds = promo_bounds(changed, effect, shopper, arm, NAMES)
        assert np.isfinite(np.array(bounds.pooled)).all()
    assert promo_bounds(score, np.zeros_like(effect), shopper, arm, NAMES).pooled[-1][1] == 0.0
    for sign in (1.0, -1.0):
        outlier = effect.copy()
        outlier[7, 0] = sign * 1e6 * np.abs(effect).max()
        assert lower_at(promo_bounds(score, outlier, shopper, arm, NAMES).of("a"), score[7, :1])[0] < 0
    with pytest.raises(InputError, match="all 1500 rows are of one shopper"):
        promo_bounds(score, effect, np.zeros(1500), arm, NAMES)
    with pytest.raises(InputError, match=r"got \(0, 3\)"):
        promo_bounds(score[:0], effect[:0], shopper[:0], arm[:0], NAMES)
    effect[4, 1] = np.nan
    with pytest.raises(InputError, match="promo 'b': effect of row 4 is nan"):
        promo_bounds(score, effect, shopper, arm, NAMES)
    with pytest.raises(InputError, match="coverage needs"):
        coverage(PromoBounds({}, ((0.0, 0.0),)), score, effect[:5], NAMES)
