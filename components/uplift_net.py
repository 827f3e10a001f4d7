"""NetSpec -> UpliftNet, the Keras model of all members: `compute_loss` to train it and `score` to serve it."""

from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs

from components import uplift_losses as losses
from components.uplift_layers import Member, usual_margin
from components.uplift_model import LOSSES, NetSpec

Tensor = Any
LEAST_SPREAD = 0.01


class UpliftNet(tfrs.Model):  # type: ignore[misc]
    """Members that differ by their first weights; scores are their mean."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(name="uplift_net")
        self.profit, self.sales = spec.card.objective == "profit", spec.sales
        self.normalisation = tf.keras.layers.Normalization(axis=-1, dtype="float32")
        self.logged = tf.constant(spec.logged)
        self.members = [Member(spec, name=f"member_{i}") for i in range(spec.config.members)]
        self.meters = {name: tf.keras.metrics.Mean(name=name) for name in (*LOSSES, "stopping")}

    def logarithms(self, numeric: Tensor) -> Tensor:
        """[B, N] raw numerics -> skewed ones as log1p."""
        return tf.where(self.logged > 0, tf.math.log1p(tf.maximum(numeric, 0.0)), numeric)

    def heads(self, numeric: Tensor, attributes: Tensor) -> list[dict[str, Tensor]]:
        """Heads of every member."""
        normal = self.normal(numeric)
        return [member(numeric, normal, attributes) for member in self.members]

    def normal(self, numeric: Tensor) -> Tensor:
        """[B, N] normalised numerics. A deviation below LEAST_SPREAD is a constant with rounding errors: not blown up to order one."""
        spread = tf.maximum(tf.sqrt(self.normalisation.variance), LEAST_SPREAD)
        return tf.clip_by_value((self.logarithms(numeric) - self.normalisation.mean) / spread, -5.0, 5.0)

    def score(self, numeric: Tensor, attributes: Tensor) -> dict[str, Tensor]:
        """[B, N], [B, A] -> `value` and `cost` [B, P]: cents for profit, a difference of probabilities for a binary objective."""
        heads = self.heads(numeric, attributes)
        unit = 100.0 if self.profit else 1.0
        return {"value": unit * _mean([self.value(h) for h in heads]), "cost": 100.0 * _mean([_cost(h) for h in heads])}

    def value(self, heads: dict[str, Tensor]) -> Tensor:
        """[B, P] effect of one member on the objective: money in the main unit, or a difference of probabilities."""
        if self.profit:
            return self.margin_effect(heads) - _cost(heads)
        return tf.sigmoid(heads["logit"][:, None] + heads["lift"]) - tf.sigmoid(heads["logit"])[:, None]

    def margin_effect(self, heads: dict[str, Tensor]) -> Tensor:
        """[B, P] effect on margin: the head says it in standard deviations of this shopper's margin."""
        return losses.ziln_moments(heads)[1][:, None] * heads["tau"]

    def start_at(self, labels: Tensor) -> None:
        """Set the first answers of the baseline heads to the means of the train labels [n, 3], so that training starts near."""
        share = tf.reduce_mean(tf.stack([labels[:, 0], tf.cast(labels[:, 1] > 0, tf.float32)], 1), axis=0)
        logs = tf.math.log(tf.boolean_mask(labels[:, 1], labels[:, 1] > 0) / 100.0)
        location = tf.reduce_mean(logs) if tf.size(logs) else tf.zeros([])
        logits = tf.math.log(tf.clip_by_value(share, 1e-3, 0.999)) - tf.math.log(1 - tf.clip_by_value(share, 1e-3, 0.999))
        for member in self.members:
            member.baseline.bias.assign(tf.stack([logits[0], logits[1], location, 0.0]))

    def compute_loss(self, inputs: dict[str, Tensor], training: bool = False) -> Tensor:
        """Sum of all members' losses on one batch; `inputs` as components.train_input yields them."""
        parts = [self.member_losses(h, inputs) for h in self.heads(inputs["numeric"], inputs["attributes"])]
        total = tf.add_n([part[name] for part in parts for name in LOSSES])
        for name, meter in self.meters.items():
            meter.update_state(_mean([part[name] for part in parts]), tf.shape(inputs["arm"])[0])
        return total

    def member_losses(self, heads: dict[str, Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The four losses of one member, and what decides when to stop."""
        arm, labels = inputs["arm"], inputs["labels"]
        binary, margin, cost = tf.unstack(labels * tf.constant([1.0, 0.01, 0.01]), axis=-1)
        contact = losses.observed(heads["contact"] + tf.zeros_like(heads["tau"]), arm)
        treated = tf.cast(arm > 0, tf.float32)
        mean, spread = (tf.stop_gradient(v) for v in losses.ziln_moments(heads))
        found = {
            "conversion": losses.binary_loss(heads["logit"] + losses.observed(heads["lift"], arm), binary),
            "margin": losses.ziln_loss(heads, margin),
            "effect": losses.residual_loss(heads["tau"], (margin - mean) / spread, arm, inputs["propensities"]),
            "cost": losses.rate_loss(losses.observed(heads["redeemed"], arm), tf.maximum(cost - contact, 0.0), treated),
        }
        return {**found, "stopping": self.effect_gain(heads, inputs, margin - cost if self.profit else binary)}

    def effect_gain(self, heads: dict[str, Tensor], inputs: dict[str, Tensor], outcome: Tensor) -> Tensor:
        """What the predicted effect adds to the squared error of the objective's residual; below 0 when it explains something.

        Comparable over epochs and models: by E[1(arm = a) - p_a] = 0 an error of the baseline does not move its mean, and its weights
        depend on the shopper's spend only, not on the model.
        """
        baseline = losses.ziln_moments(heads)[0] if self.profit else tf.sigmoid(heads["logit"])
        scale = 5.0 + usual_margin(inputs["numeric"], self.sales) if self.profit else tf.ones_like(outcome)
        explained = losses.explained(self.value(heads), inputs["arm"], inputs["propensities"]) / scale
        return tf.reduce_mean(explained * (explained - 2.0 * (outcome - baseline) / scale))


def _mean(values: list[Tensor]) -> Tensor:
    return tf.add_n(values) / float(len(values))


def _cost(heads: dict[str, Tensor]) -> Tensor:
    return heads["contact"] + heads["redeemed"]
