import numpy as np
import pytest

from promolift.errors import InputError
from promolift.uplift.calibration import harm_bound, isotonic


def test_isotonic_pools_violators_by_weight():
    assert isotonic(np.array([1.0, 3.0, 2.0, 4.0]), np.ones(4)).tolist() == [1.0, 2.5, 2.5, 4.0]
    assert isotonic(np.array([3.0, 0.0]), np.array([1.0, 3.0])).tolist() == [0.75, 0.75]


def test_harm_bound_is_ascending_and_below_the_measured_effect():
    rng = np.random.default_rng(1)
    score = rng.normal(0, 1, 4000)
    knots = np.array(harm_bound(score, 2 * score + rng.normal(0, 3, 4000), np.arange(4000)))
    assert np.all(np.diff(knots[:, 0]) > 0) and np.all(np.diff(knots[:, 1]) >= 0)
    assert np.mean(knots[:, 1] < 2 * knots[:, 0]) >= 0.8  # each holds with probability 0.95
    assert np.interp(1.5, *knots.T) > 0 > np.interp(-1.0, *knots.T)


def test_harm_bound_covers_the_true_bin_mean_about_95_times_in_100():
    rng = np.random.default_rng(2)
    misses = 0
    for _ in range(300):
        shopper = np.repeat(np.arange(200), 5)
        noise = rng.normal(0, 2, 200)[shopper] + rng.normal(0, 1, 1000)
        knots = harm_bound(np.ones(1000), 1.0 + noise, shopper)
        misses += knots[0][1] > 1.0
    assert 2 <= misses <= 27  # 300 * 0.05 = 15, sd 3.8: without clustering it would be about 70


def test_harm_bound_names_a_row_that_is_not_finite():
    with pytest.raises(InputError, match="row 1 is nan"):
        harm_bound(np.array([1.0, np.nan]), np.array([1.0, 2.0]), np.array([1, 2]))
