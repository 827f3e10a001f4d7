"""THE feature list: name, type, default and definition of every shopper feature; Spark, Feast, TensorFlow and serving read it.

`RETAIL` is made from events. A source that is a table of decisions brings its own, `features_of` its card.

A windowed feature at a moment m looks at events with m - window <= event_time < m and arrived_at < m: nothing at or after the moment, and
nothing that had not reached us by then, since the online store could not have known it either (point in time).
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

from promolift.contracts.promos import CATEGORIES, SourceCard

Measure = Literal["baskets", "sales_cents", "discount_cents", "promos", "redemptions"]
SECONDS_A_DAY = 86_400


@dataclass(frozen=True)
class Windowed:
    """Sum of `measure` over a window, or its share of the sum of `per`.

    `baskets`, `sales_cents`, `discount_cents` come from silver purchases (`category` limits the lines; a basket counts once),
    `promos` counts assignments of a promo (not of no_promo), `redemptions` counts redemptions. A share with a zero denominator
    is `default`.
    """

    name: str
    measure: Measure
    window_days: int
    category: str | None = None
    per: Measure | None = None
    default: float = 0.0


@dataclass(frozen=True)
class Recency:
    """Days (fractional) since the shopper's last basket (with a line in `category`) in the window; `default` if there was none."""

    name: str
    window_days: int
    category: str | None = None
    default: float = 364.0


@dataclass(frozen=True)
class Given:
    """A number that the source delivers with the decision; a `skewed` one is at least 0 and enters the network as log1p."""

    name: str
    skewed: bool = False
    default: float = 0.0


Numeric = Windowed | Recency | Given


@dataclass(frozen=True)
class Attribute:
    """A text field of the shopper: slowly changing, as in the silver `shoppers` table, or given with the decision."""

    name: str
    default: str = "unknown"


def _windowed() -> tuple[Windowed, ...]:
    totals = [Windowed(f"{m}_{w}d", m, w) for w in (28, 84, 364) for m in ("baskets", "sales_cents")]
    return (
        Windowed("baskets_7d", "baskets", 7),
        *totals,
        Windowed("discount_share_84d", "discount_cents", 84, per="sales_cents"),
        Windowed("discount_share_364d", "discount_cents", 364, per="sales_cents"),
        *(Windowed(f"share_{c.name}_84d", "sales_cents", 84, category=c.name, per="sales_cents") for c in CATEGORIES),
        *(Windowed(f"basket_share_{c.name}_84d", "baskets", 84, category=c.name, per="baskets") for c in CATEGORIES),
        Windowed("promos_28d", "promos", 28),
        Windowed("redemptions_84d", "redemptions", 84),
    )


WINDOWED: tuple[Windowed, ...] = _windowed()
RECENCIES: tuple[Recency, ...] = (
    Recency("recency_days", 364),
    *(Recency(f"recency_{c.name}_days", 364, category=c.name) for c in CATEGORIES),
)
ATTRIBUTES: tuple[Attribute, ...] = tuple(
    Attribute(name) for name in ("age_band", "income_band", "household_size", "area", "channel", "is_new")
)
NUMERIC: tuple[Numeric, ...] = (*WINDOWED, *RECENCIES)
SEGMENT_FEATURES = ("sales_cents_84d", "discount_share_84d", "recency_days")
SEGMENT_ATTRIBUTES = ("area", "channel", "is_new")
"""Whose quarters, and whose values, are the predeclared segments of shoppers."""


@dataclass(frozen=True)
class FeatureSet:
    """The features of one source, in order."""

    numeric: tuple[Numeric, ...]
    attributes: tuple[Attribute, ...]

    @property
    def numeric_names(self) -> tuple[str, ...]:
        """Names of the numeric features."""
        return tuple(f.name for f in self.numeric)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the text features."""
        return tuple(f.name for f in self.attributes)

    @property
    def names(self) -> tuple[str, ...]:
        """All names: numeric ones, then attributes."""
        return (*self.numeric_names, *self.attribute_names)

    @property
    def hash(self) -> str:
        """Hash of every definition, not only the names: a model is served only with the features it was trained on."""
        text = "\n".join(repr(f) for f in (*self.numeric, *self.attributes))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def skewed(self) -> tuple[bool, ...]:
        """Of each numeric feature whether it enters networks as log1p: counts, cents, days and amounts, not shares and plain numbers."""
        return tuple(f.skewed if isinstance(f, Given) else not (isinstance(f, Windowed) and f.per) for f in self.numeric)

    def defaults(self) -> dict[str, float | str]:
        """Value of every feature for a shopper never seen."""
        return {f.name: f.default for f in (*self.numeric, *self.attributes)}


RETAIL = FeatureSet(NUMERIC, ATTRIBUTES)
NUMERIC_NAMES, ATTRIBUTE_NAMES, FEATURE_NAMES = RETAIL.numeric_names, RETAIL.attribute_names, RETAIL.names


def features_of(card: SourceCard) -> FeatureSet:
    """The features of a source. A table without any text, or any number, gets a constant in its place: a model reads both kinds."""
    if not card.covariates:
        return RETAIL
    numeric = tuple(Given(c.name, c.kind == "amount", c.missing) for c in card.covariates if c.kind != "text")
    attributes = tuple(Attribute(c.name) for c in card.covariates if c.kind == "text")
    return FeatureSet(numeric or (Given("no_number"),), attributes or (Attribute("no_text"),))
