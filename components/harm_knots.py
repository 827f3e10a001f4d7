"""A candidate's scores on the validation split -> each promo's knots of the do-no-harm bound (uplift.calibration.promo_bounds)."""

from collections.abc import Iterator
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from components.examples_input import Batch, Examples, Vocabularies, batches
from promolift.uplift.calibration import promo_bounds
from promolift.uplift.isotonic import Knots
from promolift.uplift.scores import aipw, make_trial

Floats = NDArray[np.float64]
_BASELINE = {
    "objective": "regression", "learning_rate": 0.1, "num_leaves": 15, "min_data_in_leaf": 100, "num_threads": 1, "verbosity": -1,
    "deterministic": True, "force_row_wise": True,
}  # fmt: skip


def features(batch: Batch) -> NDArray[np.float32]:
    """[n, N + A] float32: numerics, then attribute indices."""
    return np.concatenate([batch.numeric, batch.attributes.astype(np.float32)], axis=1)


def objective_outcome(examples: Examples, labels: NDArray[np.float32]) -> Floats:
    """[n] what the policy maximises: margin less cost in cents, or the visit; `labels` [n, 3] as in Batch."""
    values = labels.astype(np.float64)
    return values[:, 1] - values[:, 2] if examples.card.objective == "profit" else values[:, 0]


def read_all(rows: Iterator[Batch]) -> dict[str, NDArray[Any]]:
    """All rows as arrays by field name: for LightGBM, which needs every row to find its bins (4 bytes a feature value)."""
    parts = [{**vars(batch), "features": features(batch)} for batch in rows]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def knots(examples: Examples, vocabulary: Vocabularies, value: Floats, seed: int) -> dict[str, Knots]:
    """Knots by promo for `value` [n, P] of the randomised validation rows in the table's order.

    Every row counts for every promo, with its AIPW effect; the outcome model sees the train split only, and no arm.
    """
    rows = read_all(batches(examples, vocabulary, "validation"))
    trial = make_trial(rows["arm"], rows["propensities"], rows["shopper_id"])
    base = _baseline(examples, vocabulary, rows["features"], seed)
    gamma = aipw(objective_outcome(examples, rows["labels"]), trial, np.repeat(base[:, None], value.shape[1] + 1, axis=1))
    effect = gamma[:, 1:] - gamma[:, :1]
    names = [promo.promo_id for promo in examples.card.promos]
    return promo_bounds(value, effect, rows["shopper_id"].astype(str), rows["arm"].astype(np.int64), names).promos


def _baseline(examples: Examples, vocabulary: Vocabularies, rows: NDArray[np.float32], seed: int) -> Floats:
    train = read_all(batches(examples, vocabulary, "train"))
    data = lightgbm.Dataset(train["features"], objective_outcome(examples, train["labels"]))
    booster = lightgbm.train({**_BASELINE, "seed": seed}, data, num_boost_round=60)
    return np.asarray(booster.predict(rows, num_threads=1), dtype=np.float64)
