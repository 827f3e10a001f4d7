"""Hillstrom's step on small files, and the test over splits by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promolift.errors import InputError
from promolift.uplift.bootstrap import half_samples
from promolift.uplift.conventions import DEFINITIONS, all_conventions
from science.hillstrom import PER_ROWS, PUBLISHED, RAW, SOURCES, corrected, load, measure, numbers_of, split
from science.hillstrom_models import MODELS, Customers, linear
from science.hillstrom_tables import tables, targets, verdict
from tests.science.hillstrom_rows import write_hillstrom


@pytest.fixture(scope="module")
def file(tmp_path_factory: Any) -> Path:
    return write_hillstrom(tmp_path_factory.mktemp("data") / "hillstrom.csv")


@pytest.fixture(scope="module")
def result(file: Path) -> dict[str, Any]:
    return measure(path=str(file), splits=3, resamples=20)


@given(st.integers(4, 200), st.integers(4, 200), st.integers(0, 1000))
def test_a_split_holds_every_customer_once_and_thirty_percent_of_each_arm(control: int, treated: int, seed: int):
    arm = np.repeat([0, 1], [control, treated])
    train, test = split(arm, seed)
    assert sorted([*train, *test]) == list(range(control + treated))
    assert [int((arm[test] == a).sum()) for a in (0, 1)] == [round(0.3 * control), round(0.3 * treated)]


def test_splits_differ_by_seed_and_repeat_by_seed():
    arm = np.repeat([0, 1], 100)
    assert np.array_equal(split(arm, 1)[1], split(arm, 1)[1])
    assert not np.array_equal(split(arm, 1)[1], split(arm, 2)[1])


def test_the_mens_email_is_left_out_and_texts_become_columns(file: Path):
    customers = load(str(file))
    text = file.read_text()
    assert customers.rows == text.count("No E-Mail") + text.count("Womens E-Mail")
    assert customers.treated.sum() == text.count("Womens E-Mail")
    assert customers.features.shape[1] == 5 + 1 + 2 + 2  # five numbers; one segment, two areas, two channels in this file


def test_the_corrected_test_by_hand():
    """Differences 1, 2, 3: mean 2, sd 1, error sqrt(1/3 + 3/7) = 0.8729; t of 2 degrees 4.3027; p of t = 2.2912 is 0.149."""
    found = corrected(np.array([1.0, 2.0, 3.0]), 3 / 7)
    error = np.sqrt(1 / 3 + 3 / 7)
    assert found["difference"] == 2
    assert found["error"] == pytest.approx(error)
    assert found["interval"] == pytest.approx([2 - 4.30265 * error, 2 + 4.30265 * error], rel=1e-5)
    assert found["p"] == pytest.approx(0.1490, abs=5e-4)


def test_one_split_tells_nothing_and_equal_models_do_not_differ():
    assert corrected(np.array([0.4]), 0.4)["p"] == 1
    assert corrected(np.zeros(5), 0.4) == {"difference": 0.0, "error": 0.0, "interval": [0.0, 0.0], "p": 1.0}


def test_raw_areas_are_stated_for_the_published_number_of_rows():
    rng = np.random.default_rng(5)
    test = Customers(np.zeros((60, 1), np.float32), rng.permutation(np.repeat([0, 1], 30)), rng.integers(0, 2, 60).astype(float))
    score = rng.normal(size=60)
    found = numbers_of(test, score, half_samples(np.arange(60), 60, 5, 1))
    plain = all_conventions(test.visited, test.treated, score)
    for key in DEFINITIONS:
        assert found[key].value == pytest.approx(plain[key] * (PER_ROWS / 60 if key in RAW else 1))
        assert len(found[key].draws) == 5
    assert {key for key, d in DEFINITIONS.items() if d.normaliser.startswith("none")} == set(RAW)


def test_the_linear_model_recovers_a_linear_effect():
    rng = np.random.default_rng(2)
    x, treated = rng.normal(size=(400, 2)).astype(np.float32), rng.permutation(np.repeat([0, 1], 200))
    customers = Customers(x, treated, x[:, 0] + treated * (0.5 + 2.0 * x[:, 1]))
    np.testing.assert_allclose(linear(customers, customers, 0), 0.5 + 2.0 * x[:, 1], atol=1e-5)


def test_uplift_models_find_a_planted_effect(result: dict[str, Any]):
    assert result["splits"] == 3
    assert result["seeds"] == [1, 2, 3]
    for name in ("linear, one an arm", "LightGBM T-learner"):
        found = result["models"][name]["qini/sklift"]
        assert found["mean"] > 0.1
        assert all(low < value < high for value, low, high in found["each"])
    assert len(result["differences"]) == len(MODELS) * (len(MODELS) - 1) // 2


def test_a_model_is_not_told_apart_from_itself(file: Path):
    same = measure(path=str(file), splits=3, resamples=20, models={"one": linear, "other": linear})
    (pair,) = same["differences"]
    assert pair["difference"] == 0
    assert pair["splits_apart"] == 0
    assert "None of the 1 pairs" in verdict(same)


def test_tables_show_ours_beside_every_published_figure(result: dict[str, Any]):
    beside, conventions, pairs = tables(result)
    assert sum(row[-1] == "ours" for row in beside.rows) == 3 * len(MODELS)
    assert len(beside.rows) == 3 * len(MODELS) + len(PUBLISHED)
    assert {figure.source for figure in PUBLISHED} == set(SOURCES)
    assert [row[0] for row in conventions.rows] == list(DEFINITIONS)
    assert len(pairs.rows) == len(result["differences"])


def test_too_few_splits_do_not_meet_the_target(result: dict[str, Any]):
    assert [target.status for target in targets(result)] == ["not met"]
    assert [target.status for target in targets({**result, "splits": 10})] == ["met"]


def test_a_missing_file_is_a_sentence(tmp_path: Path):
    with pytest.raises(InputError, match="give its path"):
        measure(path=str(tmp_path / "absent.csv"))
