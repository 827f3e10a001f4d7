import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promolift.errors import InputError
from promolift.uplift.audit import audit
from promolift.uplift.clusters import encode, mean_error
from promolift.uplift.distributions import chi_square_tail, normal_quantile, normal_tail
from promolift.uplift.scores import aipw, faults, ipw, make_trial, no_overlap, overlap

HALF = np.array([[0.5, 0.5]] * 4)


def trial(arm: Any = (0, 1, 0, 1), propensities: Any = HALF):
    return make_trial(np.array(arm), propensities, np.arange(len(arm)))


def test_ipw_by_hand():
    gamma = ipw(np.array([1.0, 2.0, 3.0, 4.0]), trial())
    assert gamma.tolist() == [[2, 0], [0, 4], [6, 0], [0, 8]]


def test_aipw_by_hand_keeps_the_model_for_the_arm_not_given():
    gamma = aipw(np.array([1.0, 2.0, 3.0, 4.0]), trial(), np.array([[1.0, 2.0]] * 4))
    assert gamma.tolist() == [[1, 2], [1, 2], [5, 2], [1, 6]]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ([0.0, 1.0], "row 2 has propensity 0 for the arm it was given"),
        ([np.nan, 1.0], "row 2 has propensities .*nan.* that are not probabilities"),
        ([0.6, 0.6], "row 2 has propensities that sum to 1.2 instead of 1"),
        ([-0.5, 1.5], "not probabilities"),
    ],
)
def test_unusable_propensities_name_row_and_value(row: list[float], sentence: str):
    broken = HALF.copy()
    broken[2] = row
    with pytest.raises(InputError, match=sentence):
        ipw(np.ones(4), trial(propensities=broken))
    assert faults(trial(propensities=broken))[0].tolist() == [False, False, True, False]


def test_outcomes_that_are_not_finite_or_of_another_shape_are_refused():
    with pytest.raises(InputError, match="outcome of row 1 is nan"):
        ipw(np.array([1.0, np.nan, 1.0, 1.0]), trial())
    with pytest.raises(InputError, match="shape"):
        ipw(np.ones(3), trial())
    with pytest.raises(InputError, match="Row 3 was given arm 2"):
        trial(arm=(0, 1, 0, 2))
    with pytest.raises(InputError, match="equally many"):
        make_trial([0], HALF, np.arange(4))


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_aipw_is_unbiased_for_any_nuisance_model(seed: int):
    """Exact: the mean over the two possible arms of one row, weighted by their probability, is the true outcome pair."""
    rng = np.random.default_rng(seed)
    p, y, mu = rng.uniform(0.05, 0.95), rng.normal(size=2), rng.normal(size=(1, 2))
    table = np.array([[1 - p, p]])
    parts = [aipw(y[[a]], make_trial([a], table, np.zeros(1)), mu) * table[0, a] for a in (0, 1)]
    np.testing.assert_allclose(sum(parts)[0], y, rtol=1e-9, atol=1e-9)


def test_holdout_rows_lack_overlap_and_effective_sizes_are_kish():
    table = np.array([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75], [0.5, 0.5]])
    t = trial(arm=(0, 1, 1, 0), propensities=table)
    assert no_overlap(t).tolist() == [True, False, False, False]
    found = overlap(t)
    assert found.least == 0 and found.counts == (2, 2)
    assert found.effective[1] == pytest.approx((2 + 4 / 3) ** 2 / (4 + 16 / 9))


def test_sample_ratio_is_pearson_for_equal_propensities():
    scipy_stats = pytest.importorskip("scipy.stats")
    arm = np.repeat([0, 1, 2], [480, 260, 260])
    found = audit(make_trial(arm, np.tile([0.5, 0.25, 0.25], (1000, 1)), np.arange(1000)))
    assert found.p_value == pytest.approx(scipy_stats.chisquare([480, 260, 260], [500, 250, 250]).pvalue, rel=1e-9)
    assert found.sound == 1 and found.counts == (480, 260, 260)


def test_weights_of_each_arm_average_1_over_the_rows_where_it_was_possible():
    """Arm 1: weights 2, 0 and, where it was impossible, none: mean 1. Arm 0: weights 0, 2, 1: mean 1."""
    found = audit(make_trial([1, 0, 0], np.array([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]]), np.arange(3)))
    assert (found.odd_mean, found.odd_p) == (1.0, 1.0)
    odd = audit(make_trial([1, 1, 1, 0], np.tile([0.5, 0.5], (4, 1)), np.arange(4)))
    error = math.sqrt(sum((w - 1.5) ** 2 for w in (2, 2, 2, 0)) * 4 / 3) / 4
    assert (odd.odd_arm, odd.odd_mean) in {(0, 0.5), (1, 1.5)}
    assert odd.odd_p == pytest.approx(min(1.0, 2 * 2 * normal_tail(0.5 / error)))


def test_sample_ratio_ignores_rows_without_chance():
    arm = np.zeros(10, dtype=int)
    assert audit(make_trial(arm, np.tile([1.0, 0.0], (10, 1)), np.arange(10))).p_value is None


def test_quantiles_and_tails_agree_with_scipy():
    scipy_stats = pytest.importorskip("scipy.stats")
    for degrees in (1, 2, 3, 7, 40):
        for statistic in (0.0, 0.01, 1.0, 5.0, 12.0, 60.0, 200.0):
            assert chi_square_tail(statistic, degrees) == pytest.approx(scipy_stats.chi2.sf(statistic, degrees), rel=1e-8, abs=1e-15)
    for z in (-3.0, 0.0, 1.0, 8.0):
        assert normal_tail(z) == pytest.approx(scipy_stats.norm.sf(z), rel=1e-12)
    assert normal_quantile(0.95) == pytest.approx(1.6448536269514722)


def test_clustered_error_of_repeated_rows_is_that_of_one_row_each():
    values = np.random.default_rng(3).normal(size=50)
    codes, count = encode(np.repeat(np.arange(50), 4))
    assert mean_error(np.repeat(values, 4), codes, count) == pytest.approx(values.std(ddof=1) / np.sqrt(50))
