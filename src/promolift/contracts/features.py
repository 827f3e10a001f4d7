"""THE feature list: name, type, default and definition of every shopper feature; Spark, Feast, TensorFlow and serving read it.

A windowed feature at a moment m looks at events with m - window <= event_time < m and arrived_at < m: nothing at or after the moment, and
nothing that had not reached us by then, since the online store could not have known it either (point in time).
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

from promolift.contracts.promos import CATEGORIES

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
class Attribute:
    """A slowly changing text field of the shopper, as in the silver `shoppers` table; `default` where the source has none."""

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
NUMERIC: tuple[Windowed | Recency, ...] = (*WINDOWED, *RECENCIES)
NUMERIC_NAMES: tuple[str, ...] = tuple(f.name for f in NUMERIC)
ATTRIBUTE_NAMES: tuple[str, ...] = tuple(f.name for f in ATTRIBUTES)
FEATURE_NAMES: tuple[str, ...] = (*NUMERIC_NAMES, *ATTRIBUTE_NAMES)


def defaults() -> dict[str, float | str]:
    """Value of every feature for a shopper never seen."""
    return {**{f.name: f.default for f in NUMERIC}, **{f.name: f.default for f in ATTRIBUTES}}


def features_hash() -> str:
    """Hash of every definition, not only the names: a model is served only with the features it was trained on."""
    text = "\n".join(repr(f) for f in (*NUMERIC, *ATTRIBUTES))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
