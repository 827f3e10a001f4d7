from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from components.boosting import cost_boosters
from components.examples_input import batches, open_examples, vocabularies
from components.harm_knots import read_all
from components.learners import response, t_learner
from components.train_baselines import train
from promolift.contracts.artifacts import read_manifest
from promolift.contracts.features import RETAIL
from promolift.errors import InputError
from tests.components.served_model import operations, random_batch, served
from tests.components.synthetic_examples import effects, rows_of, table_of, write_lake

pytestmark = pytest.mark.slow
ROWS = 12_000


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("baselines")
    train(str(write_lake(folder / "lake", rows=ROWS)), str(folder / "models"), seed=1)
    return folder / "lake", folder / "models"


@pytest.mark.parametrize("build", [t_learner, response])
@pytest.mark.parametrize("objective", ["profit", "visited"])
def test_served_file_equals_lightgbm_on_random_rows(tmp_path: Path, build, objective: str):  # noqa: ANN001
    from components.export_model import to_tflite

    examples = open_examples(write_lake(tmp_path / "lake", rows=3_000, objective=objective))
    splits = {name: read_all(batches(examples, vocabularies(examples), name)) for name in ("train", "validation")}
    candidate = build(examples, splits, cost_boosters(examples, splits, 1), 1)
    (tmp_path / "model.tflite").write_bytes(to_tflite(candidate, RETAIL))
    batch = random_batch(300, seed=3)
    for expected, found in zip(candidate.score(batch), served(tmp_path, batch).values(), strict=True):
        assert np.ptp(expected) > 0
        assert np.max(np.abs(found - expected)) <= 1e-4 * np.max(np.abs(expected))


def test_t_learner_finds_the_known_effect_and_response_does_not_subtract(trained: tuple[Path, Path]):
    truth = rows_of(0, ROWS)
    margin, cost = effects(truth)
    scores = {name: pq.read_table(trained[1] / name / "scores.parquet").to_pandas() for name in ("lightgbm", "response")}
    rows = scores["lightgbm"]["exposure_id"].str[1:].astype(int)
    assert np.corrcoef(scores["lightgbm"]["value_deli_40"], (margin - cost)[rows, 1])[0, 1] > 0.5
    assert np.corrcoef(scores["lightgbm"]["cost_deli_40"], cost[rows, 1])[0, 1] > 0.8
    assert scores["response"]["value_deli_40"].mean() > 5 * scores["lightgbm"]["value_deli_40"].abs().mean()


def test_scores_hold_every_validation_and_test_row_once(trained: tuple[Path, Path]):
    table = pq.read_table(trained[1] / "response" / "scores.parquet")
    wanted = table_of(rows_of(0, ROWS)).filter(pc.field("split") != "train")
    assert sorted(table["exposure_id"].to_pylist()) == sorted(wanted["exposure_id"].to_pylist())
    assert set(table["split"].to_pylist()) == {"validation", "test"}


def test_only_builtin_operations_are_served(trained: tuple[Path, Path]):
    found = operations((trained[1] / "lightgbm" / "model.tflite").read_bytes())
    assert found
    assert not [name for name in found if name.startswith("Flex") or name == "CUSTOM"]


def test_same_seed_same_file(trained: tuple[Path, Path], tmp_path: Path):
    train(str(trained[0]), str(tmp_path), seed=1)
    for name in ("lightgbm", "response"):
        assert read_manifest(tmp_path / name).sha256 == read_manifest(trained[1] / name).sha256


def test_arm_without_training_rows_is_a_sentence(tmp_path: Path):
    table = table_of(rows_of(0, 2_000)).filter(pc.field("promo_id") != "deli_40")
    with pytest.raises(InputError, match="No training row was given arm 'deli_40'"):
        train(str(write_lake(tmp_path / "lake", table=table)), str(tmp_path / "models"), seed=1)
