"""Shopper state before a moment -> probabilities of an extra trip, of a skipped week and of a redemption, per promo.

The documented response function of the simulated experiment; nobody fitted it to data. S is the logistic function, n the promos
received in the last 28 days; all windows end just before the moment, c is the promo's category:

    affinity  S((basket_share_c - 1.3 * USUAL_SHARE_c) / 0.015)    likes the category more than most, 84 days
    lapse     S((recency_c - 2) / 0.7) * S((80 - recency_c) / 10)  has not bought it for days, but is not gone either
    deals     S((discount_share - 0.14) / 0.015)                   buys what the shelf discounts, 84 days
    p_extra   MOST_EXTRA * affinity * lapse * deals * (1 - exp(-depth / 0.06)) * exp(-FATIGUE * n)
    p_skip    MOST_SKIPPED * S((0.13 - discount_share) / 0.01) * S((baskets a week - 0.8) / 0.15) * (1 - exp(-(n + 1) / 2))
    p_redeem  0.25 + 0.65 * deals                                  given spend in the category that would have happened anyway

Fatigue makes the fourth promo of a month persuade less and annoy more. The four kinds of shopper, per promo:
persuadable (p_extra counts most), sleeping dog (p_skip does), sure thing (neither, yet buys the category anyway: cost only), lost cause.
The effects are larger than a real retailer would see: it is what makes them learnable against the noise of real baskets in 50,000 rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promolift.contracts.promos import CATEGORY_NAMES, Promo

Floats = NDArray[np.float64]
KINDS = ("persuadable", "sure_thing", "lost_cause", "sleeping_dog")
MOST_EXTRA = 0.98
MOST_SKIPPED = 0.80
FATIGUE = 0.04
USUAL_SHARE = {"grocery": 0.77, "household": 0.43, "produce": 0.34, "meat": 0.20, "packaged_meat": 0.22, "deli": 0.13}
"""Share of baskets that hold the category, over all shoppers of Complete Journey."""


@dataclass(frozen=True)
class State:
    """What is known of H shoppers just before a moment: [H], or [H, C] by category; the contract's features of the same names."""

    baskets_a_week: Floats
    discount_share: Floats
    basket_share: Floats
    recency_days: Floats
    promos_28d: Floats


@dataclass(frozen=True)
class Response:
    """Probabilities [H, P] of each promo's effects: an extra trip, no trip in the whole window, a redemption on usual spend."""

    extra: Floats
    skip: Floats
    redeem: Floats


def _s(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -30, 30)))


def respond(state: State, promos: tuple[Promo, ...]) -> Response:
    """The response function of the module's head; extra + skip never exceeds 1."""
    category = [CATEGORY_NAMES.index(p.category) for p in promos]
    depth = np.array([p.depth for p in promos])
    usual = np.array([USUAL_SHARE.get(p.category, 0.2) for p in promos])
    recency, n = state.recency_days[:, category], state.promos_28d[:, None]
    affinity = _s((state.basket_share[:, category] - 1.3 * usual) / 0.015)
    lapse = _s((recency - 2) / 0.7) * _s((80 - recency) / 10)
    deals = _s((state.discount_share[:, None] - 0.14) / 0.015)
    extra = MOST_EXTRA * affinity * lapse * deals * (1 - np.exp(-depth / 0.06)) * np.exp(-FATIGUE * n)
    proud = _s((0.13 - state.discount_share) / 0.01) * _s((state.baskets_a_week - 0.8) / 0.15)
    skip = np.repeat(MOST_SKIPPED * proud[:, None] * (1 - np.exp(-(n + 1) / 2)), len(promos), axis=1)
    extra *= np.minimum(1, (1 - skip) / np.maximum(extra, 1e-9))
    return Response(extra, skip, np.repeat(0.25 + 0.65 * deals, len(promos), axis=1))


def kinds(response: Response, buys: Floats) -> NDArray[np.int8]:
    """Index into KINDS; `buys` [H, P] is the probability of buying the category in a usual week."""
    calm = np.where(buys >= 0.15, KINDS.index("sure_thing"), KINDS.index("lost_cause"))
    moved = np.where(response.extra >= response.skip, KINDS.index("persuadable"), KINDS.index("sleeping_dog"))
    return np.where(np.maximum(response.extra, response.skip) >= 0.05, moved, calm).astype(np.int8)
