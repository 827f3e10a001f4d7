"""Categories, promos and what a source says of itself; arm 0 is always `no_promo`."""

from dataclasses import dataclass
from typing import Literal

NO_PROMO = "no_promo"
OUTCOME_WINDOW_DAYS = 7
"""An outcome counts when moment <= event_time < moment + this."""
LABEL_GRACE_DAYS = 3
"""A label is written only when this long has passed after the window, so that late events are in."""


@dataclass(frozen=True)
class Category:
    """A conformed product category.

    `departments`: the sources' own names for it. `margin_rate`: gross margin as a share of sales, before promo cost. No source
    has cost prices, so the rates are an assumption (typical grocery and apparel gross margins) and every report says so.
    """

    name: str
    margin_rate: float
    departments: tuple[str, ...]


CATEGORIES: tuple[Category, ...] = (
    Category("grocery", 0.25, ("GROCERY",)),
    Category("household", 0.30, ("DRUG GM", "COSMETICS")),
    Category("produce", 0.35, ("PRODUCE", "SALAD BAR")),
    Category("meat", 0.25, ("MEAT", "SEAFOOD")),
    Category("packaged_meat", 0.28, ("MEAT-PCKGD", "SEAFOOD-PCKGD")),
    Category("deli", 0.40, ("DELI", "CHEF SHOPPE")),
    Category("bakery", 0.45, ("PASTRY",)),
    Category("nutrition", 0.32, ("NUTRITION",)),
    Category("apparel_men", 0.50, ("MENS",)),
    Category("apparel_women", 0.50, ("WOMENS",)),
    Category("other", 0.15, ()),
)
CATEGORY_NAMES: tuple[str, ...] = tuple(c.name for c in CATEGORIES)


def category_of(department: str | None) -> str:
    """Conformed category of a source's department; `other` when no category claims it."""
    return next((c.name for c in CATEGORIES if department in c.departments), "other")


@dataclass(frozen=True)
class Promo:
    """`depth` off the shopper's purchases in `category` during the outcome window, at most `cap_cents`; cost arises on redemption.

    `contact_cents` is paid for showing it, redeemed or not. `min_spend_cents`: least spend in the category for a redemption.
    """

    promo_id: str
    category: str
    depth: float
    cap_cents: int
    min_spend_cents: int = 0
    contact_cents: int = 0

    @property
    def most_cents(self) -> int:
        """The most that one of it can cost."""
        return self.cap_cents + self.contact_cents


@dataclass(frozen=True)
class Covariate:
    """A column that a source delivers with each decision, measured before it.

    An `amount` is a skewed number of at least 0. `missing`: the number that stands for one that is not there.
    """

    name: str
    kind: Literal["number", "amount", "text"]
    missing: float = 0.0


Objective = Literal["profit", "visited"]


@dataclass(frozen=True)
class SourceCard:
    """What a source says of itself; travels as `landing/source.json` and into every report.

    `arms`: `no_promo` first, then the promos in order: propensity vectors are aligned with it. `objective`: what the policy
    maximises, `profit` (cents: margin less promo cost) or `visited` (a visit). `binary_outcome`: the label of the conversion head.
    `budget_cents`: budget per decision at which the gate compares policies. `as_of`: end of the data, ISO 8601 UTC.
    `covariates`: for a source that is a table of decisions rather than events, its features; none: features are made from events.
    `segments`: names of the covariates whose values are the predeclared segments. `estimated_propensities`: none were logged, so
    the arms' shares of the file stand for them.
    """

    name: str
    real: str
    simulated: str
    objective: Objective
    binary_outcome: Literal["converted", "visited"]
    budget_cents: float
    as_of: str
    promos: tuple[Promo, ...]
    has_truth: bool
    covariates: tuple[Covariate, ...] = ()
    segments: tuple[str, ...] = ()
    estimated_propensities: bool = False

    @property
    def arms(self) -> tuple[str, ...]:
        """Arm names, `no_promo` first."""
        return (NO_PROMO, *(p.promo_id for p in self.promos))
