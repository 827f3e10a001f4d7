"""Source card, vocabularies and training batches -> the compiled Keras model of components.uplift_layers.

This file is light; TensorFlow is loaded by `load_layers`, which chooses Keras 2 first because tensorflow-recommenders needs it.
"""

import os
from dataclasses import dataclass
from types import ModuleType

from promolift.contracts.features import features_of
from promolift.contracts.promos import CATEGORY_NAMES, Promo, SourceCard

LOSSES = ("conversion", "margin", "effect", "cost")


@dataclass(frozen=True)
class NetConfig:
    """Sizes and rates, chosen on the validation split of complete_journey.

    `members` towers are averaged. `embedding`: size of a category's and an attribute's vector. `low_rank`: rank of the cross layer.
    """

    members: int = 3
    user_units: tuple[int, ...] = (16,)
    promo_units: tuple[int, ...] = (64, 32)
    embedding: int = 4
    low_rank: int = 16
    learning_rate: float = 6e-3
    weight_decay: float = 1e-2
    batch_rows: int = 1_024
    shuffle_rows: int = 16_384
    epochs: int = 16
    patience: int = 5


@dataclass(frozen=True)
class NetSpec:
    """What the network is built from. `sizes`: vocabulary sizes in the order of the attributes."""

    card: SourceCard
    sizes: tuple[int, ...]
    config: NetConfig

    @property
    def logged(self) -> list[float]:
        """[N] 1 for what enters as log1p, 0 for the rest."""
        return [float(skewed) for skewed in features_of(self.card).skewed]

    @property
    def sales(self) -> int | None:
        """Numeric column of the sales of the last twelve weeks (cents); None where the source has no purchases."""
        return None if self.card.covariates else features_of(self.card).numeric_names.index("sales_cents_84d")

    @property
    def own_columns(self) -> list[list[int]]:
        """[P, 3] numeric columns of each promo's own category: share of sales, share of baskets, days since."""
        names = features_of(self.card).numeric_names
        return [[names.index(name) for name in _own(p)] for p in self.card.promos]

    @property
    def terms(self) -> list[list[float]]:
        """[P, 4] depth, cap, least spend and contact of each promo (money in the currency's main unit)."""
        return [[p.depth, p.cap_cents / 100, p.min_spend_cents / 100, p.contact_cents / 100] for p in self.card.promos]

    @property
    def categories(self) -> list[int]:
        """[P] index of each promo's category in CATEGORY_NAMES; its own number where arms have no categories."""
        if self.card.covariates:
            return list(range(len(self.card.promos)))
        return [CATEGORY_NAMES.index(p.category) for p in self.card.promos]


def _own(promo: Promo) -> tuple[str, str, str]:
    name = promo.category
    return f"share_{name}_84d", f"basket_share_{name}_84d", f"recency_{name}_days"


def load_layers() -> ModuleType:
    """components.uplift_layers with Keras 2. Raises ImportError when tf.keras was already touched with Keras 3."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from components import uplift_layers  # noqa: PLC0415 (the variable above must be set before the import)

    return uplift_layers
