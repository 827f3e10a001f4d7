"""Rows of both splits -> a candidate whose effects come from one of the effect network's structures (effect_config).

What the network sees of a row: skewed numbers as logarithms, and one column a value of each attribute, so that no order is invented.
Its cost is the boosters', as that of every learner here.
"""

from collections.abc import Sequence
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
from components.uplift_model import NetConfig, NetSpec

SIZES = EffectConfig(trunk=(64, 64), head=(32,), l2_trunk=1e-3, l2_head=1e-3, epochs=40, patience=6, batch_rows=1_024, targeted=False)


def effect_candidate(name: str, examples: Examples, splits: Splits, cost: list[Any], seed: int) -> Candidate:
    """The network `name` on all arms, stopped by rows of the train split that it keeps apart.

    For profit its outcome is the margin, zero-inflated and lognormal where no margin is negative; the promo's predicted cost is taken
    off. For a visit it is the visit.
    """
    spec = NetSpec(
        examples.card, tuple(1 + int(splits["train"]["attributes"][:, a].max()) for a in range(_attributes(splits))), NetConfig()
    )
    outcome, kind = _outcome(examples, splits["train"])
    config = EffectConfig(**{**vars(SIZES), "structure": NETWORKS[name], "outcome": kind})
    model = fit(dense(spec, splits["train"]), splits["train"]["arm"], outcome, config, seed)
    profit, cost_forest = examples.card.objective == "profit", forest_of(cost)

    def score(batch: Batch) -> Scores:
        paid = np.maximum(predict(cost, features(batch)), 0)
        effect = model.effects(dense(spec, vars(batch)))
        return (effect - paid if profit else effect), paid

    def serve(numeric: Any, attributes: Any) -> dict[str, Any]:
        paid = positive(walk(cost_forest, wide_row(numeric, attributes)))
        effect = _served(model, spec, numeric, attributes)
        return {"value": effect - paid if profit else effect, "cost": paid}

    return Candidate(name, serve, score, model.net, seed)


TRAINERS = {name: partial(effect_candidate, name) for name in NETWORKS}


def _attributes(splits: Splits) -> int:
    return int(splits["train"]["attributes"].shape[1])


def _outcome(examples: Examples, rows: Rows) -> tuple[NDArray[np.float64], str]:
    """What the network learns [n] and its kind."""
    if examples.card.objective != "profit":
        return outcome_of(examples)(rows), "binary"
    margin = rows["labels"][:, 1].astype(np.float64)
    return margin, "ziln" if margin.min() >= 0 else "continuous"


def dense(spec: NetSpec, rows: Any) -> NDArray[np.float64]:
    """[n, N + sizes] numbers, skewed ones as log1p, then one column a known value of each attribute (an unknown later one: none)."""
    numeric = rows["numeric"].astype(np.float64)
    logged = np.where(np.array(spec.logged) > 0, np.log1p(np.maximum(numeric, 0.0)), numeric)
    codes = [np.eye(size + 1)[np.minimum(rows["attributes"][:, i], size)][:, :size] for i, size in enumerate(spec.sizes)]
    return np.concatenate([logged, *codes], axis=1)


def _served(model: EffectModel, spec: NetSpec, numeric: Any, attributes: Any) -> Any:
    """The same in TensorFlow for one shopper: [1, N], [1, A] -> [1, P] effects in the outcome's unit."""
    import tensorflow as tf  # noqa: PLC0415 (takes seconds)

    logged = tf.where(tf.constant(spec.logged) > 0, tf.math.log1p(tf.maximum(numeric, 0.0)), numeric)
    codes: Sequence[Any] = [tf.one_hot(attributes[:, i], size) for i, size in enumerate(spec.sizes)]
    scaling = model.scaling
    middle, width = (tf.constant(v[None], tf.float32) for v in (scaling.middle, scaling.width))
    raw, _ = model.net((tf.concat([logged, *codes], axis=1) - middle) / width)
    means = scaling.shift + scaling.unit * load_net().row_means(model.net.config.outcome, raw)
    return means[:, 1:] - means[:, :1]
