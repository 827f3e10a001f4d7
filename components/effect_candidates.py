"""Rows of both splits -> a candidate whose effects come from one of the effect network's structures (effect_config).

Its cost is the boosters', as that of every learner here.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.boosting import Rows, Splits, outcome_of, predict
from components.effect_config import EffectConfig
from components.effect_training import EffectModel, fit, load_net
from components.examples_input import Batch, Examples
from components.export_model import Candidate, Scores
from components.harm_knots import features
from components.learner_names import NETWORKS
from components.tree_export import forest_of, positive, walk, wide_row

SIZES = EffectConfig(trunk=(64, 64), head=(32,), l2_trunk=1e-3, l2_head=1e-3, epochs=40, patience=6, batch_rows=1_024, targeted=False)
FARTHEST = 5.0
"""Standard deviations from the mean beyond which a number counts as this far: no network is asked about what it has not seen."""


@dataclass(frozen=True)
class Seen:
    """What the network sees of a row: numbers in standard deviations, skewed ones of their logarithm; one column a value of an attribute.

    `logged`, `middle`, `width` [N] of the train rows; `sizes` [A]: known values of each attribute.
    """

    logged: NDArray[np.bool_]
    middle: NDArray[np.float64]
    width: NDArray[np.float64]
    sizes: tuple[int, ...]

    def of(self, rows: Any) -> NDArray[np.float64]:
        """[n, N + sizes]; a value that the train rows did not have has no column."""
        normal = (_logarithms(rows["numeric"], self.logged) - self.middle) / self.width
        codes = [np.eye(size + 1)[np.minimum(rows["attributes"][:, i], size)][:, :size] for i, size in enumerate(self.sizes)]
        return np.concatenate([np.clip(normal, -FARTHEST, FARTHEST), *codes], axis=1)

    def tensor_of(self, numeric: Any, attributes: Any) -> Any:
        """The same of [B, N] and [B, A] tensors."""
        import tensorflow as tf  # noqa: PLC0415 (takes seconds)

        logs = tf.where(tf.constant(self.logged), tf.math.log1p(tf.maximum(numeric, 0.0)), numeric)
        middle, width = (tf.constant(values, tf.float32) for values in (self.middle, self.width))
        codes = [tf.one_hot(attributes[:, i], size) for i, size in enumerate(self.sizes)]
        return tf.concat([tf.clip_by_value((logs - middle) / width, -FARTHEST, FARTHEST), *codes], axis=1)


def seen(examples: Examples, rows: Rows) -> Seen:
    """Means, deviations and known values of the train rows."""
    sizes = tuple(1 + int(codes.max()) for codes in rows["attributes"].T)
    logged = np.array(examples.features.skewed)
    logs = _logarithms(rows["numeric"], logged)
    return Seen(logged, logs.mean(axis=0), np.maximum(logs.std(axis=0), 1e-6), sizes)


def _logarithms(numeric: NDArray[Any], logged: NDArray[np.bool_]) -> NDArray[np.float64]:
    values = numeric.astype(np.float64)
    return np.where(logged, np.log1p(np.maximum(values, 0.0)), values)


def effect_candidate(name: str, examples: Examples, splits: Splits, cost: list[Any], seed: int) -> Candidate:
    """The network `name` on all arms, stopped by rows of the train split that it keeps apart.

    For profit its outcome is the margin, zero-inflated and lognormal where no margin is negative; the promo's predicted cost is taken
    off. For a visit it is the visit.
    """
    import tensorflow as tf  # noqa: PLC0415 (takes seconds)

    rows = splits["train"]
    view, (outcome, kind) = seen(examples, rows), _outcome(examples, rows)
    config = EffectConfig(**{**vars(SIZES), "structure": NETWORKS[name], "outcome": kind})
    model = fit(view.of(rows), rows["arm"], outcome, config, seed)
    profit, cost_forest, served = examples.card.objective == "profit", forest_of(cost), _served(model)

    def score(batch: Batch) -> Scores:
        paid = np.maximum(predict(cost, features(batch)), 0)
        effect = model.effects(view.of(vars(batch)))
        return (effect - paid if profit else effect), paid

    def serve(numeric: Any, attributes: Any) -> dict[str, Any]:
        paid = positive(walk(cost_forest, wide_row(numeric, attributes)))
        effect = served(view.tensor_of(numeric, attributes))
        return {"value": effect - paid if profit else effect, "cost": paid}

    owner = tf.Module()
    owner.kept = list(model.net.variables)  # the variables alone: Keras would serialise every layer for nothing
    return Candidate(name, serve, score, owner, seed)


TRAINERS = {name: partial(effect_candidate, name) for name in NETWORKS}


def _outcome(examples: Examples, rows: Rows) -> tuple[NDArray[np.float64], str]:
    """What the network learns [n] and its kind."""
    if examples.card.objective != "profit":
        return outcome_of(examples)(rows), "binary"
    margin = rows["labels"][:, 1].astype(np.float64)
    return margin, "ziln" if margin.min() >= 0 else "continuous"


def _served(model: EffectModel) -> Any:
    """EffectModel.effects as a function of tensors: [B, columns] -> [B, P]."""
    scaling, row_means = model.scaling, load_net().row_means
    middle, width = (values[None].astype(np.float32) for values in (scaling.middle, scaling.width))

    def effects(x: Any) -> Any:
        raw, _ = model.net((x - middle) / width)
        means = np.float32(scaling.shift) + np.float32(scaling.unit) * row_means(model.net.config.outcome, raw)
        return means[:, 1:] - means[:, :1]

    return effects
