import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.examples_input import batches, open_examples, vocabularies
from components.train_uplift import Training, candidate_of, in_float32, prepare_device, train
from components.uplift_model import NetConfig, NetSpec
from promolift.contracts.artifacts import read_manifest
from promolift.contracts.features import RETAIL
from promolift.errors import InputError
from tests.components.served_model import operations, random_batch, served
from tests.components.synthetic_examples import CARD, effects, rows_of, write_lake

pytestmark = pytest.mark.slow
ROWS = 20_000
SMALL = NetConfig(members=1, batch_rows=1_024, epochs=3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("uplift")
    return folder, train(str(write_lake(folder / "lake", rows=ROWS)), str(folder / "models"), seed=1, epochs=16)


def _training(lake: Path, folder: Path, config: NetConfig = SMALL) -> Training:
    prepare_device(seed=5)
    examples = open_examples(lake)
    vocabulary = vocabularies(examples)
    return Training(examples, vocabulary, NetSpec(examples.card, tuple(map(len, vocabulary.values())), config), 5, folder)


def _digest(training: Training) -> str:
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in training.model.trainable_variables)).hexdigest()


class KilledError(Exception):
    """Stands for the end of the process."""


def _kill(_: dict[str, float]) -> None:
    raise KilledError


def test_a_killed_training_resumes_to_the_weights_of_an_uninterrupted_one(tmp_path: Path):
    lake = write_lake(tmp_path / "lake", rows=4_000)
    whole = _training(lake, tmp_path / "whole")
    epochs = whole.run().history
    with pytest.raises(KilledError):
        _training(lake, tmp_path / "killed").run(after_epoch=_kill)
    resumed = _training(lake, tmp_path / "killed")
    seen: list[dict[str, float]] = []
    assert len(resumed.run(after_epoch=seen.append).history) == len(epochs)
    assert len(seen) == len(epochs) - 1
    assert _digest(resumed) == _digest(whole)


def test_another_seed_or_setting_does_not_resume_old_checkpoints(tmp_path: Path):
    lake = write_lake(tmp_path / "lake", rows=4_000)
    _training(lake, tmp_path / "run", replace(SMALL, epochs=1)).run()
    seen: list[dict[str, float]] = []
    _training(lake, tmp_path / "run", replace(SMALL, epochs=1, learning_rate=1e-3)).run(after_epoch=seen.append)
    assert len(seen) == 1


def test_the_known_effect_is_found(trained: tuple[Path, dict[str, Any]]):
    margin, cost = effects(rows_of(0, ROWS))
    scores = pq.read_table(trained[0] / "models" / "uplift_net" / "scores.parquet").to_pandas()
    rows = scores["exposure_id"].str[1:].astype(int)
    for place, promo in enumerate(CARD.promos):
        assert np.corrcoef(scores[f"value_{promo.promo_id}"], (margin - cost)[rows, place])[0, 1] > 0.8
        assert scores[f"cost_{promo.promo_id}"].mean() == pytest.approx(cost[rows, place].mean(), rel=0.2)


def test_the_manifest_says_what_the_file_is(trained: tuple[Path, dict[str, Any]]):
    folder = trained[0] / "models" / "uplift_net"
    manifest, content = read_manifest(folder), (folder / "model.tflite").read_bytes()
    assert manifest.sha256 == hashlib.sha256(content).hexdigest()
    assert manifest.features_hash == RETAIL.hash
    assert (manifest.promos, manifest.objective, manifest.tables) == (CARD.promos, "profit", {"gold/examples": 0})
    assert set(manifest.harm_bound) == {promo.promo_id for promo in CARD.promos}
    for knots in manifest.harm_bound.values():
        assert np.all(np.diff(np.array(knots), axis=0) >= 0)
    assert not [name for name in operations(content) if name.startswith("Flex") or name == "CUSTOM"]


def test_checkpoints_are_gone_and_losses_are_reported(trained: tuple[Path, dict[str, Any]]):
    folder, summary = trained
    assert not (folder / "models" / "checkpoints" / "uplift_net").exists()
    assert summary["device"].startswith(("CPU", "GPU"))
    assert len(summary["history"]) == summary["epochs"]
    assert {"train_effect", "effect", "cost", "margin", "conversion", "seconds"} <= set(summary["history"][0])


@pytest.mark.parametrize("objective", ["profit", "visited"])
def test_served_file_equals_keras_on_random_rows(tmp_path: Path, objective: str):
    from components.export_model import to_tflite

    training = _training(write_lake(tmp_path / "lake", rows=4_000, objective=objective), tmp_path / "run", replace(SMALL, epochs=1))
    training.run()
    candidate = candidate_of(training.model, 5)
    (tmp_path / "model.tflite").write_bytes(to_tflite(candidate, RETAIL))
    batch = random_batch(300, seed=3)
    for expected, found in zip(candidate.score(batch), served(tmp_path, batch).values(), strict=True):
        assert np.ptp(expected) > 0
        assert np.max(np.abs(found - expected)) <= 1e-4 * np.max(np.abs(expected))


def test_a_model_of_mixed_precision_is_served_in_float32(tmp_path: Path):
    import tensorflow as tf

    from components.export_model import to_tflite

    lake = write_lake(tmp_path / "lake", rows=4_000)
    prepare_device(seed=5)
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    examples = open_examples(lake)
    vocabulary = vocabularies(examples)
    spec = NetSpec(examples.card, tuple(map(len, vocabulary.values())), replace(SMALL, epochs=1))
    training = Training(examples, vocabulary, spec, 5, tmp_path / "run")
    training.run()
    mixed, batch = candidate_of(training.model, 5), next(batches(examples, vocabulary, "test"))
    before = mixed.score(batch)[0]
    candidate = candidate_of(in_float32(training.model, spec), 5)
    (tmp_path / "model.tflite").write_bytes(to_tflite(candidate, RETAIL))
    after = candidate.score(batch)[0]
    assert np.max(np.abs(served(tmp_path, batch)["value"] - after)) <= 1e-4 * np.max(np.abs(after))
    assert 0 < np.max(np.abs(before - after)) < 0.1 * np.max(np.abs(after))


def test_one_shopper_is_scored_in_a_fraction_of_a_millisecond(trained: tuple[Path, dict[str, Any]]):
    from components.export_model import interpreter_of

    run = interpreter_of((trained[0] / "models" / "uplift_net" / "model.tflite").read_bytes())
    batch = random_batch(1, seed=1)
    seconds = []
    for _ in range(500):
        start = time.perf_counter()
        run(numeric=batch.numeric, attributes=batch.attributes)
        seconds.append(time.perf_counter() - start)
    assert np.median(seconds) < 0.3e-3


def test_epochs_below_1_is_a_sentence(tmp_path: Path):
    with pytest.raises(InputError, match="epochs is 0 but must be at least 1"):
        train(str(tmp_path), str(tmp_path), 1, 0)
