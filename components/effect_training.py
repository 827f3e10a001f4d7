"""x [n, d], arm [n] in 0..K, outcome [n] and an EffectConfig -> EffectModel: mean outcome under every arm and effects against arm 0.

An epoch is one graph call on tensors that stay in memory (batches, gradients, Adam), so that Python costs nothing per batch. Long training
is compiled by XLA, which takes seconds and makes a step a third faster.
"""

import os
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from components.effect_config import EffectConfig
from components.effect_input import Floats, Rows, Scaling, checked, scaled, split
from promolift.errors import InputError

Tensor = Any
LEAST_STEPS = 2_500
"""Batches from which compiling pays."""
_STRIDE = 104_729
"""Between the dropout seeds of two batches, so that those of arms and layers fit between them."""


def load_net() -> ModuleType:
    """components.effect_net with Keras 2, as in uplift_model.load_layers; where Keras 3 was touched before, Trainer raises ImportError."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from components import effect_net  # noqa: PLC0415 (the variable above must be set before the import)

    return effect_net


@dataclass(frozen=True)
class EffectModel:
    """A trained network. `history`: validation loss of each epoch; the weights are those of the least."""

    net: Any
    scaling: Scaling
    history: list[float]

    def means(self, x: npt.ArrayLike) -> Floats:
        """[n, d] -> [n, K + 1] mean outcome under every arm, in the outcome's unit."""
        raw, _ = self.net(self.scaling.inputs(x))
        means = load_net().row_means(self.net.config.outcome, raw).numpy().astype(np.float64)
        return np.asarray(self.scaling.shift + self.scaling.unit * means)

    def effects(self, x: npt.ArrayLike) -> Floats:
        """[n, d] -> [n, K] effect of arms 1..K against arm 0, in the outcome's unit."""
        means = self.means(x)
        return np.asarray(means[:, 1:] - means[:, :1])

    def propensities(self, x: npt.ArrayLike) -> Floats:
        """[n, d] -> [n, K + 1] probability of each arm. Raises InputError when the structure has no propensity head."""
        if self.net.config.structure != "dragonnet":
            raise InputError(f"Structure {self.net.config.structure!r} has no propensity head; only dragonnet has one.")
        _, logits = self.net(self.scaling.inputs(x))
        odds = np.exp(logits.numpy().astype(np.float64) - logits.numpy().max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def fit(x: npt.ArrayLike, arm: npt.ArrayLike, outcome: npt.ArrayLike, config: EffectConfig, seed: int) -> EffectModel:
    """Train one network; the same seed gives the same weights. Raises InputError on data that cannot be used (see `checked`)."""
    table, arms, y = checked(x, arm, outcome, config.outcome)
    return Trainer(config, table.shape[1], int(arms.max()) + 1).fit(table, arms, y, seed)


class Trainer:
    """One network and its compiled epoch, to be used for any number of tables with the same columns and arms."""

    def __init__(self, config: EffectConfig, columns: int, arms: int) -> None:
        import tensorflow as tf  # noqa: PLC0415 (takes seconds)

        self.config, self.columns, self.arms = config, columns, arms
        self.net = load_net().EffectNet(config, columns, arms)
        self.judged = load_net().EffectNet(config, columns, arms) if config.averaged else self.net
        self.optimizer = tf.keras.optimizers.legacy.Adam(config.learning_rate)  # one fused operation per variable
        self.optimizer._create_all_weights(self.net.trainable_variables)
        data = [tf.TensorSpec([None, columns]), tf.TensorSpec([None], tf.int32), tf.TensorSpec([None]), tf.TensorSpec([None])]
        self.epochs = {compiled: tf.function(self._epoch, jit_compile=compiled) for compiled in (False, True)}
        self.judge = tf.function(self._judge, input_signature=data)

    def fit(self, x: npt.ArrayLike, arm: npt.ArrayLike, outcome: npt.ArrayLike, seed: int) -> EffectModel:
        """Train from fresh weights. Raises InputError as `checked` does, and when columns or arms are not those of this trainer."""
        table, arms, y = checked(x, arm, outcome, self.config.outcome)
        if (table.shape[1], int(arms.max()) + 1) != (self.columns, self.arms):
            raise InputError(
                f"x has {table.shape[1]} columns and {int(arms.max()) + 1} arms but this trainer takes {self.columns} and {self.arms}."
            )
        train, validation = split(arms, self.config.validation_share, seed)
        scaling = scaled(table[train], y[train], self.config.outcome)
        parts = [self._tensors(scaling, table[rows], arms[rows], y[rows]) for rows in (train, validation)]
        self._restart(seed)
        history = self._run(parts[0], parts[1], seed)
        return EffectModel(self._copy(), scaling, history)

    def _tensors(self, scaling: Scaling, x: Floats, arm: Rows, y: Floats) -> list[Tensor]:
        import tensorflow as tf  # noqa: PLC0415 (takes seconds)

        weight = len(arm) / (self.arms * np.bincount(arm)[arm]) if self.config.balanced else np.ones(len(arm))
        scaled_outcome = (y - scaling.shift) / scaling.unit
        x32, y32, weight32 = (values.astype(np.float32) for values in (scaling.inputs(x), scaled_outcome, weight))
        return [tf.constant(values) for values in (x32, arm.astype(np.int32), y32, weight32)]

    def _restart(self, seed: int) -> None:
        self.net.start(seed)
        self.judged.set_weights(self.net.get_weights())
        for state in self.optimizer.variables():
            state.assign(np.zeros(state.shape, state.dtype.as_numpy_dtype))

    def _run(self, train: list[Tensor], validation: list[Tensor], seed: int) -> list[float]:
        """Epochs until `patience` of them bring nothing; leaves the best epoch's weights in the network that is judged."""
        import tensorflow as tf  # noqa: PLC0415 (takes seconds)

        history: list[float] = []
        best = self.judged.get_weights()
        rows = len(train[1])
        epoch = self.epochs[self.config.epochs * (rows // self.config.batch_rows) >= LEAST_STEPS]
        while len(history) < self.config.epochs and len(history) - _best(history) <= self.config.patience:
            self.optimizer.learning_rate.assign(self.config.learning_rate * self.config.decay ** len(history))
            moment = tf.constant([seed, len(history)], tf.int32)
            epoch(train, tf.random.experimental.stateless_shuffle(tf.range(rows), moment), moment)
            history.append(float(self.judge(*validation)))
            if not np.isfinite(history[-1]):
                raise InputError(f"Training diverged in epoch {len(history)} (validation loss {history[-1]}): lower learning_rate.")
            if _best(history) == len(history):
                best = self.judged.get_weights()
        self.judged.set_weights(best)
        return history

    def _epoch(self, data: list[Tensor], order: Tensor, seed: Tensor) -> None:
        """All rows of x, arm, y, weight once in `order` [n], with dropout that the seed alone decides. Shapes are known, as XLA asks."""
        import tensorflow as tf  # noqa: PLC0415 (takes seconds)

        size, rows = self.config.batch_rows, data[0].shape[0]
        whole = rows // size
        batches = tf.reshape(order[: whole * size], [whole, size])
        for number in tf.range(whole):
            self._step([tf.gather(values, batches[number]) for values in data], number * size, seed)
        if rows % size:
            self._step([tf.gather(values, order[whole * size :]) for values in data], whole * size, seed)
        if self.config.averaged:
            for mean, now in zip(self.judged.weights, self.net.weights, strict=True):
                mean.assign(self.config.averaged * mean + (1 - self.config.averaged) * now)

    def _step(self, batch: list[Tensor], start: Tensor, seed: Tensor) -> None:
        """One batch, which begins at row `start` of the order."""
        import tensorflow as tf  # noqa: PLC0415 (takes seconds)

        with tf.GradientTape() as tape:
            loss = self.net.loss(*batch, seed + tf.stack([_STRIDE * (start + 1), 0]))
        variables = self.net.trainable_variables
        used = [(g, v) for g, v in zip(tape.gradient(loss, variables), variables, strict=True) if g is not None]
        self.optimizer.apply_gradients(used)

    def _judge(self, x: Tensor, arm: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return self.judged.factual(self.judged(x)[0], arm, y, weight)

    def _copy(self) -> Any:
        twin = load_net().EffectNet(self.config, self.columns, self.arms)
        twin.set_weights(self.judged.get_weights())
        return twin


def _best(history: list[float]) -> int:
    """Epoch (from 1) with the least loss; 0 before the first."""
    return 1 + int(np.argmin(history)) if history else 0
