"""The validation split -> what a model's scores are held to: each promo's bound of do-no-harm, means by segment, the features' ranges."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from components.examples_input import Batch, Examples, Vocabularies, batches
from components.trial_input import segment_names
from promolift.contracts.promos import Promo
from promolift.uplift.calibration import mean_bound, promo_bounds
from promolift.uplift.isotonic import Knots
from promolift.uplift.scores import aipw, make_trial

Floats = NDArray[np.float64]
Effect = tuple[float, float, float]
BASELINE_ROWS = 200_000
LEAST_ROWS, LEAST_SHOPPERS = 500, 30
"""What a segment's mean effects rest on; a shopper of a smaller one takes everybody's."""
CONFIDENCE = 0.95
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


@dataclass(frozen=True)
class Measured:
    """The randomised validation rows in the table's order: AIPW effect of every promo [n, P], shopper and arm [n], attributes [n, A]."""

    effect: Floats
    shoppers: NDArray[np.int64]
    arm: NDArray[np.int64]
    attributes: NDArray[np.int32]


def measured(examples: Examples, vocabulary: Vocabularies, seed: int) -> Measured:
    """Every row counts for every promo; the outcome model sees the train split only, and no arm.

    Numeric features are held batch by batch, so that what stays of a row is some 8 (2 P + 6) + 4 A bytes.
    """
    model = _baseline(examples, vocabulary, seed)
    rows, shoppers = _validation(examples, vocabulary, model)
    trial = make_trial(rows["arm"], rows["propensities"], shoppers)
    gamma = aipw(rows["outcome"], trial, np.repeat(rows["base"][:, None], len(examples.card.promos) + 1, axis=1))
    return Measured(gamma[:, 1:] - gamma[:, :1], shoppers, rows["arm"].astype(np.int64), rows["attributes"])


def knots(rows: Measured, value: Floats, promos: Sequence[Promo]) -> dict[str, Knots]:
    """Knots by promo for `value` [n, P] of the measured rows."""
    return promo_bounds(value, rows.effect, rows.shoppers, rows.arm, [promo.promo_id for promo in promos]).promos


def prior(rows: Measured, cost: Floats, examples: Examples, vocabulary: Vocabularies) -> dict[str, dict[str, Effect]]:
    """Mean effect, its one-sided 95 % lower bound and mean predicted `cost` [n, P] of each promo: of everybody ("*") and by segment.

    The segments are the values ("name=value") of the attributes that the source predeclares, with LEAST_ROWS rows or more.
    """
    masks = {"*": np.ones(len(rows.arm), dtype=bool)}
    for column, name in enumerate(examples.features.attribute_names):
        if name in segment_names(examples.card)[1]:
            masks |= {f"{name}={text}": rows.attributes[:, column] == code for code, text in enumerate(vocabulary[name]) if code}
    enough = {segment: mask for segment, mask in masks.items() if mask.sum() >= LEAST_ROWS and _shoppers(rows, mask) >= LEAST_SHOPPERS}
    return {segment: _effects(rows, cost, mask, examples) for segment, mask in enough.items()}


def _shoppers(rows: Measured, mask: NDArray[np.bool_]) -> int:
    return len(np.unique(rows.shoppers[mask]))


def _effects(rows: Measured, cost: Floats, mask: NDArray[np.bool_], examples: Examples) -> dict[str, Effect]:
    codes = np.unique(rows.shoppers[mask], return_inverse=True)[1]
    return {
        promo.promo_id: (
            float(rows.effect[mask, k].mean()), mean_bound(rows.effect[mask, k], codes, CONFIDENCE), float(cost[mask, k].mean())
        )
        for k, promo in enumerate(examples.card.promos)
    }  # fmt: skip


def support(examples: Examples, vocabulary: Vocabularies) -> dict[str, tuple[float, float]]:
    """Least and greatest value of every numeric feature among the train rows."""
    ends = [(batch.numeric.min(axis=0), batch.numeric.max(axis=0)) for batch in batches(examples, vocabulary, "train")]
    low, high = np.min([a for a, _ in ends], axis=0), np.max([b for _, b in ends], axis=0)
    return {name: (float(low[i]), float(high[i])) for i, name in enumerate(examples.features.numeric_names)}


def _validation(examples: Examples, vocabulary: Vocabularies, model: Any) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """arm, propensities, attributes, outcome and the model's outcome of the validation rows; and the number of each row's shopper."""
    parts, numbers = [], []
    known: dict[str, int] = {}
    for batch in batches(examples, vocabulary, "validation"):
        parts.append({
            "arm": batch.arm, "propensities": batch.propensities, "outcome": objective_outcome(examples, batch.labels),
            "attributes": batch.attributes, "base": np.asarray(model.predict(features(batch), num_threads=1), dtype=np.float64),
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
