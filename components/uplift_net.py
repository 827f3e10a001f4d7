"""NetSpec -> UpliftNet, the Keras model of all members: `compute_loss` to train it and `score` to serve it."""

from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs

from components import uplift_losses as losses
from components.uplift_layers import Member
from components.uplift_model import LOSSES, NetSpec

Tensor = Any


class UpliftNet(tfrs.Model):  # type: ignore[misc]
    """Members that differ by their first weights; scores are their mean."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(name="uplift_net")
        self.profit = spec.card.objective == "profit"
        self.normalisation = tf.keras.layers.Normalization(axis=-1, dtype="float32")
        self.logged = tf.constant(spec.logged)
        self.members = [Member(spec, name=f"member_{i}") for i in range(spec.config.members)]
        self.meters = {name: tf.keras.metrics.Mean(name=name) for name in (*LOSSES, "stopping")}

    def logarithms(self, numeric: Tensor) -> Tensor:
        """[B, N] raw numerics -> skewed ones as log1p."""
        return tf.where(self.logged > 0, tf.math.log1p(tf.maximum(numeric, 0.0)), numeric)

    def heads(self, numeric: Tensor, attributes: Tensor) -> list[dict[str, Tensor]]:
        """Heads of every member."""
        normal = tf.clip_by_value(self.normalisation(self.logarithms(numeric)), -5.0, 5.0)
        return [member(numeric, normal, attributes) for member in self.members]

    def score(self, numeric: Tensor, attributes: Tensor) -> dict[str, Tensor]:
        """[B, N], [B, A] -> `value` and `cost` [B, P]: cents for profit, a difference of probabilities for a binary objective."""
        heads = self.heads(numeric, attributes)
        cost = _mean([100.0 * (h["contact"] + h["redeemed"]) for h in heads])
        if self.profit:
            return {"value": 100.0 * _mean([self.margin_effect(h) for h in heads]) - cost, "cost": cost}
        return {"value": _mean([_lifted(h) - tf.sigmoid(h["logit"])[:, None] for h in heads]), "cost": cost}

    def margin_effect(self, heads: dict[str, Tensor]) -> Tensor:
        """[B, P] effect on margin: the head says it in standard deviations of this shopper's margin."""
        return losses.ziln_moments(heads)[1][:, None] * heads["tau"]

    def compute_loss(self, inputs: dict[str, Tensor], training: bool = False) -> Tensor:
        """Sum of all members' losses on one batch; `inputs` as components.train_input yields them."""
        parts = [self.member_losses(h, inputs) for h in self.heads(inputs["numeric"], inputs["attributes"])]
        total = tf.add_n([part[name] for part in parts for name in LOSSES])
        for name, meter in self.meters.items():
            meter.update_state(_mean([part[name] for part in parts]), tf.shape(inputs["arm"])[0])
        return total

    def member_losses(self, heads: dict[str, Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The four losses of one member."""
        arm, labels = inputs["arm"], inputs["labels"]
        binary, margin, cost = tf.unstack(labels * tf.constant([1.0, 0.01, 0.01]), axis=-1)
        contact = losses.observed(heads["contact"] + tf.zeros_like(heads["tau"]), arm)
        treated = tf.cast(arm > 0, tf.float32)
        mean, spread = (tf.stop_gradient(v) for v in losses.ziln_moments(heads))
        effect = losses.residual_loss(heads["tau"], (margin - mean) / spread, arm, inputs["propensities"])
        found = {
            "conversion": losses.binary_loss(heads["logit"] + losses.observed(heads["lift"], arm), binary),
            "margin": losses.ziln_loss(heads, margin),
            "effect": effect,
            "cost": losses.rate_loss(losses.observed(heads["redeemed"], arm), tf.maximum(cost - contact, 0.0), treated),
        }
        # the effect loss is in units of a spread that training moves; with its logarithm it is a likelihood, comparable over epochs
        likelihood = effect + tf.reduce_mean(tf.math.log(spread)) + found["cost"]
        return {**found, "stopping": likelihood if self.profit else found["conversion"]}


def _mean(values: list[Tensor]) -> Tensor:
    return tf.add_n(values) / float(len(values))


def _lifted(heads: dict[str, Tensor]) -> Tensor:
    return tf.sigmoid(heads["logit"][:, None] + heads["lift"])
