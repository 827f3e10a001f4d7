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
BASELINE_ROWS = 200_000
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

    Every row counts for every promo, with its AIPW effect; the outcome model sees the train split only, and no arm. Features are held
    batch by batch, so that what stays of a row is its outcome, propensities and shopper: some 8 (2 P + 6) bytes.
    """
    model = _baseline(examples, vocabulary, seed)
    rows, shoppers = _validation(examples, vocabulary, model)
    trial = make_trial(rows["arm"], rows["propensities"], shoppers)
    gamma = aipw(rows["outcome"], trial, np.repeat(rows["base"][:, None], value.shape[1] + 1, axis=1))
    effect = gamma[:, 1:] - gamma[:, :1]
    names = [promo.promo_id for promo in examples.card.promos]
    return promo_bounds(value, effect, shoppers, rows["arm"].astype(np.int64), names).promos


def _validation(examples: Examples, vocabulary: Vocabularies, model: Any) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """arm, propensities, outcome and the model's outcome of the validation rows; and the number of each row's shopper."""
    parts, numbers = [], []
    known: dict[str, int] = {}
    for batch in batches(examples, vocabulary, "validation"):
        parts.append({
            "arm": batch.arm, "propensities": batch.propensities, "outcome": objective_outcome(examples, batch.labels),
            "base": np.asarray(model.predict(features(batch), num_threads=1), dtype=np.float64),
        })  # fmt: skip
        numbers.append(np.array([known.setdefault(shopper, len(known)) for shopper in batch.shopper_id], dtype=np.int64))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, np.concatenate(numbers)


def _baseline(examples: Examples, vocabulary: Vocabularies, seed: int) -> Any:
    """A booster of the outcome by features: it only makes effects less noisy, so that some of the train rows are enough."""
    data = lightgbm.Dataset(*train_sample(examples, vocabulary))
    return lightgbm.train({**_BASELINE, "seed": seed}, data, num_boost_round=60)


def train_sample(examples: Examples, vocabulary: Vocabularies) -> tuple[NDArray[np.float32], Floats]:
    """Features [m, N + A] and outcome [m] of every k-th train row: all of them in a table of at most BASELINE_ROWS rows, else fewer."""
    step, seen, kept = -(-examples.dataset.count_rows() // BASELINE_ROWS), 0, []
    for batch in batches(examples, vocabulary, "train"):
        chosen = slice(-seen % step, None, step)
        kept.append((features(batch)[chosen], objective_outcome(examples, batch.labels[chosen])))
        seen += len(batch.arm)
    return np.concatenate([part[0] for part in kept]), np.concatenate([part[1] for part in kept])
