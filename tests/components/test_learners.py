"""Every learner on one table with known effects: it orders shoppers as the truth does, and its served file says what it says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.boosting import cost_boosters
from components.causal_forest import _grow, moments
from components.cross_fitting import FOLDS, with_scores
from components.examples_input import Examples, batches, open_examples, vocabularies
from components.export_model import SEEDS
from components.harm_knots import read_all
from components.learner_names import LEARNERS, names_of
from components.learners import control_weights
from components.train_baselines import TRAINERS, train
from promolift.contracts.features import RETAIL
from promolift.errors import InputError
from tests.components.served_model import random_batch, served
from tests.components.synthetic_examples import effects, rows_of, table_of, write_lake

ROWS = 12_000
EFFECTS = [name for name in LEARNERS if name != "response"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Examples, both splits and cost boosters."""
    examples = open_examples(write_lake(tmp_path_factory.mktemp("learners"), rows=ROWS))
    splits = {name: read_all(batches(examples, vocabularies(examples), name)) for name in ("train", "validation")}
    return examples, splits, cost_boosters(examples, splits, 1)


def test_every_name_has_a_trainer_and_an_unknown_one_is_a_sentence():
    assert set(TRAINERS) == set(LEARNERS)
    assert names_of(" x_learner, tarnet,lightgbm,") == ("lightgbm", "response", "x_learner", "tarnet")
    with pytest.raises(InputError, match="There is no learner 'y_learner'; choose from lightgbm, response, x_learner"):
        names_of("y_learner")


def truth(examples: Examples, split: str) -> np.ndarray:
    rows = table_of(rows_of(0, ROWS))
    keep = np.array([s == split and b != "holdout" for s, b in zip(rows["split"].to_pylist(), rows["bucket"].to_pylist(), strict=True)])
    margin, cost = effects({name: values[keep] for name, values in rows_of(0, ROWS).items() if isinstance(values, np.ndarray)})
    return margin - cost


@pytest.mark.slow
@pytest.mark.parametrize("name", EFFECTS)
def test_a_learner_finds_the_known_effect_and_its_file_says_the_same(data: Any, tmp_path: Path, name: str):
    from components.export_model import to_tflite

    examples, splits, cost = data
    candidate = TRAINERS[name](examples, splits, cost, 1)
    found = np.concatenate([candidate.score(b)[0] for b in batches(examples, vocabularies(examples), "validation")])
    wanted = truth(examples, "validation")
    assert found.shape == wanted.shape
    correlation = [np.corrcoef(found[:, k], wanted[:, k])[0, 1] for k in range(wanted.shape[1])]
    if name != "s_net":  # one network with the arm as an input shrinks effects this small to nothing, as an S-learner does
        assert np.mean(correlation) > 0.35, correlation
    (tmp_path / "model.tflite").write_bytes(to_tflite(candidate, RETAIL))
    batch = random_batch(100, seed=3)
    for expected, answer in zip(candidate.score(batch), served(tmp_path, batch).values(), strict=True):
        assert np.max(np.abs(answer - expected)) <= 2e-4 * np.max(np.abs(expected))


@pytest.mark.slow
def test_a_visit_is_learnt_as_a_probability(tmp_path: Path):
    examples = open_examples(write_lake(tmp_path / "lake", rows=3_000, objective="visited"))
    splits = {name: read_all(batches(examples, vocabularies(examples), name)) for name in ("train", "validation")}
    cost = cost_boosters(examples, splits, 1)
    for name in EFFECTS:
        value, paid = TRAINERS[name](examples, splits, cost, 1).score(next(batches(examples, vocabularies(examples), "test")))
        assert np.abs(value).max() <= 1.5 and np.ptp(value) > 0 and (paid >= 0).all(), name


def test_no_shopper_is_scored_by_a_model_that_saw_it(data: Any):
    """Rows of one fold that learn nothing: their outcomes can be anything without any change of their own predictions."""
    examples, splits, _ = data
    before = with_scores(examples, splits, 7)["train"]
    assert set(np.unique(before["fold"])) == set(range(FOLDS))
    by_shopper = {shopper: set(before["fold"][before["shopper_id"] == shopper]) for shopper in np.unique(before["shopper_id"])[:50]}
    assert all(len(folds) == 1 for folds in by_shopper.values())
    changed = dict(splits["train"])
    changed["labels"] = splits["train"]["labels"].copy()
    own = before["fold"] == 0
    changed["labels"][own, 1] += 50_000 * (np.arange(own.sum()) % 2)
    after = with_scores(examples, {**splits, "train": changed}, 7)["train"]
    assert np.array_equal(after["mu"][own], before["mu"][own])
    assert not np.array_equal(after["mu"][~own], before["mu"][~own])


def test_weights_of_the_x_learner_by_hand():
    found = control_weights({"propensities": np.array([[0.5, 0.25, 0.25], [0.8, 0.2, 0.0], [0.0, 0.0, 1.0]])})
    np.testing.assert_allclose(found, [((0.25 / 0.75) + 0.2) / 2, ((0.25 / 0.75) + 0.0 + 1.0) / 3], rtol=1e-6)


@pytest.mark.slow
def test_the_exported_forest_is_the_librarys(data: Any):
    """Its prediction is the ratio of both sums over leaves, which the served file computes."""
    examples, splits, _ = data
    scored = with_scores(examples, splits, 1)["train"]
    found = moments(scored, scored["gamma"][:, 0], 1, 1)
    assert set(np.unique(np.sign(found.arm))) == {-1.0, 1.0}
    forest = _grow(found, 1)
    sums = [
        np.mean([np.ravel(getattr(t.tree_, part))[t.apply(found.features[:20])] for t in forest], axis=0) for part in ("precond", "jac")
    ]
    np.testing.assert_allclose(forest.predict(found.features[:20])[:, 0], sums[0] / sums[1], rtol=1e-4)


@pytest.mark.slow
def test_other_seeds_leave_their_scores_and_only_the_asked_candidates_stay(tmp_path: Path):
    lake, models = str(write_lake(tmp_path / "lake", rows=3_000)), tmp_path / "models"
    first = train(lake, str(models), 1, learners="dr_learner", seeds=2)
    assert {p.parent.name for p in models.glob("*/manifest.json")} == {"lightgbm", "response", "dr_learner"}
    assert sorted(p.relative_to(models).as_posix() for p in models.glob(f"{SEEDS}/*/*")) == [
        "seeds/dr_learner/2.parquet", "seeds/lightgbm/2.parquet", "seeds/response/2.parquet",
    ]  # fmt: skip
    assert first["dr_learner"]["scored_rows"] > 0
    train(lake, str(models), 1)
    assert {p.parent.name for p in models.glob("*/manifest.json")} == {"lightgbm", "response"}
    assert not list(models.glob(f"{SEEDS}/*/*"))
    with pytest.raises(InputError, match="seeds is 0"):
        train(lake, str(models), 1, seeds=0)
