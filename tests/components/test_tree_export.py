import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.tree_export import _below, forest_of, walk
from promolift.errors import InputError

SETTINGS = {"verbosity": -1, "use_missing": False, "num_threads": 1, "deterministic": True, "min_data_in_leaf": 5}


def _booster(seed: int, rounds: int, **more: object) -> lightgbm.Booster:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(400, 6)).astype(np.float32)
    target = rows[:, 0] * (rows[:, 1] > 0) + np.sin(3 * rows[:, 2])
    return lightgbm.train({**SETTINGS, **more, "seed": seed}, lightgbm.Dataset(rows, target), rounds)


@pytest.mark.slow
def test_graph_equals_lightgbm_for_boosters_of_different_depth():
    boosters = [_booster(1, 30, max_depth=5), _booster(2, 3, max_depth=1), _booster(3, 50, num_leaves=20)]
    rows = np.random.default_rng(9).normal(scale=2, size=(500, 6)).astype(np.float32)
    expected = np.stack([b.predict(rows) for b in boosters], axis=1)
    assert np.allclose(walk(forest_of(boosters), rows).numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_booster_without_a_split_is_its_constant():
    booster = lightgbm.train({**SETTINGS, "min_data_in_leaf": 1_000}, lightgbm.Dataset(np.zeros((50, 2), np.float32), np.full(50, 7.0)), 3)
    assert walk(forest_of([booster]), np.ones((4, 2), np.float32)).numpy().ravel().tolist() == pytest.approx([7.0] * 4)


def test_missing_value_rules_are_refused():
    rows = np.random.default_rng(0).normal(size=(300, 2))
    rows[::3, 0] = np.nan
    booster = lightgbm.train({"verbosity": -1, "num_threads": 1}, lightgbm.Dataset(rows, np.isnan(rows[:, 0]) + rows[:, 1]), 3)
    with pytest.raises(InputError, match="use_missing=False"):
        forest_of([booster])


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6, width=32))
@settings(max_examples=300)
def test_a_float32_value_falls_on_the_same_side_of_the_rounded_threshold(threshold: float, value: float):
    assert (np.float32(value) <= _below(threshold)) == (value <= threshold)
