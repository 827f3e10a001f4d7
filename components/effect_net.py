"""EffectConfig -> EffectNet, the Keras model for a dense table: x [n, d] -> what every arm's head says about every row.

Import through components.effect_training.load_net, which chooses Keras 2 first. Arm 0 is the control; A counts all arms.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from components.effect_config import EffectConfig

Tensor = Any
LEAST_SPREAD, MOST_SPREAD = 0.1, 4.0
LEAST_PROPENSITY = 0.01
_HALF_LOG_2PI = 0.9189385


class Block(tf.keras.layers.Layer):  # type: ignore[misc]
    """Dense layers with ELU and dropout, and a linear layer at the end when `out` is given. [B, D] -> [B, last width]."""

    def __init__(self, widths: Sequence[int], dropout: float, out: int = 0) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = [tf.keras.layers.Dense(width, "elu") for width in widths]
        self.last = [tf.keras.layers.Dense(out)] if out else []

    def call(self, x: Tensor, seed: Tensor | None = None) -> Tensor:
        """`seed` [2] switches dropout on; the same seed drops the same cells."""
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if seed is not None and self.dropout > 0:
                x = tf.nn.experimental.stateless_dropout(x, self.dropout, seed + tf.constant([0, 7_919 * number]))
        return self.last[0](x) if self.last else x

    def penalty(self) -> Tensor:
        """Sum of squared weights, without biases."""
        return tf.add_n([tf.reduce_sum(tf.square(layer.kernel)) for layer in self.layers + self.last])


class EffectNet(tf.keras.Model):  # type: ignore[misc]
    """Trunks and heads as the configuration says; `start` gives the first weights."""

    def __init__(self, config: EffectConfig, columns: int, arms: int) -> None:
        super().__init__()
        self.config, self.arms = config, arms
        trunks = {"t": arms, "euen": 2}.get(config.structure, 1)
        heads = 1 if config.structure == "s" else arms
        self.trunks = [Block(config.trunk, config.dropout) for _ in range(trunks)]
        self.heads = [Block(config.head, config.dropout, config.units) for _ in range(heads)]
        self.propensity = tf.keras.layers.Dense(arms)
        self.shift = self.add_weight(name="shift", shape=[arms - 1], initializer="zeros")
        self(tf.zeros([1, columns]))

    def call(self, x: Tensor, seed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[B, d] -> raw head outputs [B, A, units] and propensity logits [B, A] (dragonnet; zeros elsewhere)."""
        if self.config.structure == "s":
            return self._with_arm_as_input(x, seed), tf.zeros([tf.shape(x)[0], self.arms])
        hidden = [trunk(x, seed) for trunk in self.trunks]
        own = [hidden[min(arm, len(hidden) - 1)] for arm in range(self.arms)]
        seeds = [None if seed is None else seed + tf.constant([1 + arm, 0]) for arm in range(self.arms)]
        raw = [head(*values) for head, *values in zip(self.heads, own, seeds, strict=True)]
        if self.config.structure == "euen":
            raw = [raw[0], *(raw[0] + effect for effect in raw[1:])]
        logits = self.propensity(hidden[0]) if self.config.structure == "dragonnet" else tf.zeros([tf.shape(x)[0], self.arms])
        return tf.stack(raw, axis=1), logits

    def _with_arm_as_input(self, x: Tensor, seed: Tensor | None) -> Tensor:
        """Every row once under every arm."""
        given = tf.tile(tf.eye(self.arms)[None, :, 1:], [tf.shape(x)[0], 1, 1])
        wide = tf.concat([tf.tile(x[:, None, :], [1, self.arms, 1]), given], axis=-1)
        flat = tf.reshape(wide, [-1, x.shape[1] + self.arms - 1])
        return tf.reshape(self.heads[0](self.trunks[0](flat, seed), seed), [-1, self.arms, self.config.units])

    def start(self, seed: int) -> None:
        """First weights from the seed alone: normal with variance 1 / inputs; zero for biases, shift and the effect of euen."""
        for number, weights in enumerate(self.trainable_variables):
            if weights.shape.rank == 2:
                drawn = tf.random.stateless_normal(weights.shape, [seed, number])
                weights.assign(drawn / tf.sqrt(float(weights.shape[0])))
            else:
                weights.assign(tf.zeros_like(weights))
        if self.config.structure == "euen":
            for head in self.heads[1:]:
                head.last[0].kernel.assign(tf.zeros_like(head.last[0].kernel))

    def factual(self, raw: Tensor, arm: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Weighted mean loss of the heads of the arms given: square error, cross entropy or ZILN likelihood."""
        return tf.reduce_mean(weight * row_loss(self.config.outcome, tf.gather(raw, arm, batch_dims=1), y))

    def loss(self, x: Tensor, arm: Tensor, y: Tensor, weight: Tensor, seed: Tensor | None = None) -> Tensor:
        """Everything that training minimises on one batch."""
        config = self.config
        raw, logits = self(x, seed)
        total = self.factual(raw, arm, y, weight)
        if config.structure == "dragonnet":
            total += config.propensity_weight * tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(arm, logits))
        if config.is_targeted:
            total += config.targeted_weight * self._targeted(raw, logits, arm, y)
        for factor, blocks in ((config.l2_trunk, self.trunks), (config.l2_head, self.heads)):
            total += factor * tf.add_n([block.penalty() for block in blocks]) if factor else 0.0
        return total

    def _targeted(self, raw: Tensor, logits: Tensor, arm: Tensor, y: Tensor) -> Tensor:
        """Square error after a shift along the influence function of each arm's mean effect (Shi et al. 2019, equation 3.2).

        With arms k = 1..K the shift is sum_k eps_k (1[arm = k] / p_k - 1[arm = 0] / p_0), which is theirs for K = 1.
        """
        propensity = LEAST_PROPENSITY + (1 - self.arms * LEAST_PROPENSITY) * tf.nn.softmax(logits)
        inverse = tf.one_hot(arm, self.arms) / propensity
        moved = tf.linalg.matvec(inverse[:, 1:] - inverse[:, :1], self.shift)
        given = tf.gather(row_means(self.config.outcome, raw), arm, batch_dims=1)
        return tf.reduce_mean(tf.square(y - given - moved))


def _spread(raw: Tensor) -> Tensor:
    return tf.clip_by_value(tf.nn.softplus(raw), LEAST_SPREAD, MOST_SPREAD)


def row_loss(outcome: str, raw: Tensor, y: Tensor) -> Tensor:
    """[B, units], [B] -> [B]. ZILN: cross entropy of y > 0 plus the lognormal density of positive y (Wang, Liu and Miao 2019)."""
    if outcome == "continuous":
        return tf.square(y - raw[:, 0])
    if outcome == "binary":
        return tf.nn.sigmoid_cross_entropy_with_logits(y, raw[:, 0])
    positive, spread = tf.cast(y > 0, tf.float32), _spread(raw[:, 2])
    logarithm = tf.math.log(tf.where(y > 0, y, 1.0))
    density = 0.5 * tf.square((logarithm - raw[:, 1]) / spread) + tf.math.log(spread) + _HALF_LOG_2PI
    return tf.nn.sigmoid_cross_entropy_with_logits(positive, raw[:, 0]) + positive * density


def row_means(outcome: str, raw: Tensor) -> Tensor:
    """[..., units] -> [...] mean outcome. ZILN: p exp(location + spread^2 / 2), location within +-12 so that it stays finite."""
    if outcome == "continuous":
        return raw[..., 0]
    if outcome == "binary":
        return tf.sigmoid(raw[..., 0])
    return tf.sigmoid(raw[..., 0]) * tf.exp(tf.clip_by_value(raw[..., 1], -12.0, 12.0) + tf.square(_spread(raw[..., 2])) / 2)
