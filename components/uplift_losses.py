"""Heads of one Member and labels -> losses. Imported through uplift_model.load_layers, like the layers."""

from typing import Any

import tensorflow as tf

Tensor = Any
_HALF_LOG_2PI = 0.9189385


def observed(per_promo: Tensor, arm: Tensor) -> Tensor:
    """[B, P] -> [B] value of the promo given, 0 under no_promo (arm 0)."""
    with_none = tf.pad(per_promo, [[0, 0], [1, 0]])
    return tf.gather(with_none, arm, batch_dims=1)


def binary_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of [B] logits against 0/1 labels."""
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))


def ziln_loss(heads: dict[str, Tensor], amount: Tensor) -> Tensor:
    """Zero-inflated lognormal likelihood (Wang, Liu, Miao 2019): whether there is an amount, and its logarithm if there is."""
    positive = tf.cast(amount > 0, tf.float32)
    log_amount = tf.math.log(tf.maximum(amount, 0.01))
    spread = heads["spread"]
    density = 0.5 * tf.square((log_amount - heads["location"]) / spread) + tf.math.log(spread) + _HALF_LOG_2PI
    return binary_loss(heads["paid"], positive) + tf.reduce_mean(positive * density)


def ziln_moments(heads: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [B] of the zero-inflated lognormal."""
    paid, variance = tf.sigmoid(heads["paid"]), tf.square(heads["spread"])
    location = tf.clip_by_value(heads["location"], -6.0, 8.0)
    mean = paid * tf.exp(location + variance / 2)
    # the difference of second moment and squared mean, written without cancellation
    variance_of_amount = paid * tf.exp(2 * location + variance) * (tf.exp(variance) - paid)
    return mean, tf.sqrt(variance_of_amount + 0.25)


def residual_loss(effect: Tensor, residual: Tensor, arm: Tensor, propensities: Tensor) -> Tensor:
    """R-learner loss for several arms: the residual is explained by the deviation of the arm from its logged probability.

    effect [B, P] and residual [B] in the same unit; an error of the baseline does not bias the effect because
    E[1(arm = a) - p_a] = 0 by the design of the experiment (Nie and Wager 2021, section 2).
    """
    return 0.5 * tf.reduce_mean(tf.square(residual - explained(effect, arm, propensities)))


def explained(effect: Tensor, arm: Tensor, propensities: Tensor) -> Tensor:
    """[B] part of the residual that effects [B, P] explain: the given promo's effect less the mean effect under the propensities."""
    given = tf.one_hot(arm - 1, tf.shape(effect)[1])
    return tf.reduce_sum((given - propensities[:, 1:]) * effect, axis=1)


def rate_loss(rate: Tensor, amount: Tensor, weight: Tensor) -> Tensor:
    """Poisson quasi-likelihood of a positive mean; consistent for the mean whatever the distribution of the amount."""
    return tf.reduce_mean(weight * (rate - amount * tf.math.log(rate + 1e-6)))
