"""NetSpec -> Keras layers and the model mu0(x) + tau(x, promo) on user and promo towers.

The treatment enters as the promo's terms and category, so that a new promo gets an effect. Import through uplift_model.load_layers.
Money inside is in the currency's main unit (cents / 100), so that weights are of order one.
"""

from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs

from components.uplift_model import NetSpec
from promolift.contracts.promos import CATEGORY_NAMES

Tensor = Any
_WEEKS = 12.0


class UserTower(tf.keras.layers.Layer):  # type: ignore[misc]
    """Normalised numerics and embedded attributes -> cross layer -> MLP. [B, N], [B, A] -> [B, D]."""

    def __init__(self, spec: NetSpec, **options: Any) -> None:
        super().__init__(autocast=False, **options)  # money and days keep float32; the dense layers cast for themselves
        # one table for all attributes, each with its own range of rows
        self.starts = [sum(spec.sizes[:i]) for i in range(len(spec.sizes))]
        self.embedding = tf.keras.layers.Embedding(sum(spec.sizes), spec.config.embedding)
        self.width = len(spec.sizes) * spec.config.embedding
        self.cross = tfrs.layers.feature_interaction.Cross(projection_dim=spec.config.low_rank)
        self.mlp = tfrs.layers.blocks.MLP(list(spec.config.user_units), activation="relu", final_activation="relu")

    def call(self, normal: Tensor, attributes: Tensor) -> Tensor:
        """[B, N] normalised numerics, [B, A] indices -> [B, D]."""
        described = tf.reshape(self.embedding(attributes + tf.constant(self.starts)), [-1, self.width])
        joined = tf.concat([tf.cast(normal, self.compute_dtype), described], axis=-1)
        return self.mlp(self.cross(joined, joined))


class PromoTower(tf.keras.layers.Layer):  # type: ignore[misc]
    """The promo's terms, its category's embedding and the shopper's history in that category -> [B, P, D]."""

    def __init__(self, spec: NetSpec, **options: Any) -> None:
        super().__init__(autocast=False, **options)  # money and days keep float32; the dense layers cast for themselves
        self.terms, self.categories, self.sales = spec.terms, spec.categories, spec.sales
        self.own = spec.own_columns if spec.sales is not None else []
        self.embedding = tf.keras.layers.Embedding(max(len(CATEGORY_NAMES), len(spec.terms)), spec.config.embedding)
        self.mlp = tfrs.layers.blocks.MLP(list(spec.config.promo_units), activation="relu", final_activation="relu")

    def call(self, user: Tensor, numeric: Tensor) -> tuple[Tensor, Tensor]:
        """[B, D] user, [B, N] raw numerics -> ([B, P, D'] hidden, [B, P] discount of a typical week)."""
        history, discount = self.history(numeric)
        promo = tf.concat([tf.constant(_scaled(self.terms)), tf.cast(self.embedding(tf.constant(self.categories)), tf.float32)], -1)
        rows, promos = tf.shape(user)[0], len(self.categories)
        parts = [tf.tile(user[:, None, :], [1, promos, 1]), tf.tile(promo[None], [rows, 1, 1]), history]
        return self.mlp(tf.concat([tf.cast(part, self.compute_dtype) for part in parts], axis=-1)), discount

    def history(self, numeric: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N] raw numerics -> [B, P, 5] own-category features and [B, P] discount that a typical week would give.

        Without purchases there are no such features ([B, P, 0]), and the discount is the most that the promo costs.
        """
        if self.sales is None:
            most = tf.tile(tf.constant([[terms[1] for terms in self.terms]]), [tf.shape(numeric)[0], 1])
            return tf.zeros_like(most)[:, :, None][:, :, :0], most
        share, baskets, recency = tf.unstack(tf.gather(numeric, tf.constant(self.own), axis=1), axis=-1)
        weekly = share * tf.maximum(numeric[:, self.sales, None], 0.0) / (100.0 * _WEEKS)
        discount = tf.minimum(tf.constant([t[0] for t in self.terms]) * weekly, tf.constant([t[1] for t in self.terms]))
        logs = [tf.math.log1p(tf.maximum(v, 0.0)) for v in (recency, weekly, discount)]
        return tf.stack([share * 4.0, baskets * 2.0, logs[0] / 3.0, logs[1], logs[2]], axis=-1), discount


def usual_margin(numeric: Tensor, sales: int | None) -> Tensor:
    """[B] rough margin of a typical week, in the currency's main unit: a quarter of the mean weekly sales, 0 where there are none."""
    return tf.zeros_like(numeric[:, 0]) if sales is None else 0.25 * tf.maximum(numeric[:, sales], 0.0) / (100.0 * _WEEKS)


def _scaled(terms: list[list[float]]) -> list[list[float]]:
    return [[4 * depth, cap / 5, least / 10, contact * 10] for depth, cap, least, contact in terms]


class Member(tf.keras.layers.Layer):  # type: ignore[misc]
    """One pair of towers with its heads."""

    def __init__(self, spec: NetSpec, **options: Any) -> None:
        super().__init__(autocast=False, **options)  # money and days keep float32; the dense layers cast for themselves
        self.user, self.promo = UserTower(spec, name="user"), PromoTower(spec, name="promo")
        self.contact = [terms[3] for terms in spec.terms]
        self.baseline = tf.keras.layers.Dense(4, name="baseline", dtype="float32")
        self.effect = tf.keras.layers.Dense(3, name="effect", dtype="float32", kernel_initializer=tf.keras.initializers.Zeros())

    def call(self, numeric: Tensor, normal: Tensor, attributes: Tensor) -> dict[str, Tensor]:
        """Heads of the shopper [B]: logit, paid (ZILN logit), location, spread; of every promo [B, P]: lift, tau, cost."""
        user = self.user(normal, attributes)
        hidden, discount = self.promo(user, numeric)
        logit, paid, location, spread = tf.unstack(self.baseline(user), axis=-1)
        lift, tau, cost = tf.unstack(self.effect(hidden), axis=-1)
        redeemed = (discount + 0.02) * tf.exp(tf.clip_by_value(cost - 2.0, -8.0, 3.0))
        return {"logit": logit, "paid": paid, "location": location, "spread": 0.2 + 1.3 * tf.sigmoid(spread),
                "lift": lift, "tau": tau, "redeemed": redeemed, "contact": tf.constant(self.contact)}  # fmt: skip
