"""Predicted value and cost of each promo -> the arm each decision gets at a budget, and what such a policy is worth.

The rule is the one that serving applies: argmax of value - lambda cost over the promos and no_promo, whose net value is 0.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from promolift.errors import InputError
from promolift.uplift.clusters import Floats, Integers

BISECTIONS = 60
HIGHEST = 1e15


@dataclass(frozen=True)
class Prediction:
    """What one model says of every decision and promo: incremental `value` (objective's unit) and `cost` (cents), both [n, K]."""

    value: Floats
    cost: Floats


def assign(prediction: Prediction, price: float) -> Integers:
    """Arm [n] of each decision (0 is no_promo) at `price` = lambda, value per cent of cost; no_promo where no promo nets more than 0."""
    net = prediction.value - price * prediction.cost
    best = np.argmax(net, axis=1)
    return np.where(net[np.arange(len(net)), best] > 0, best + 1, 0).astype(np.int64)


def best_promo(prediction: Prediction, price: float = 0.0) -> tuple[Integers, Floats]:
    """Arm [n] >= 1 of the promo with the highest net value, and that net value [n]: what a ranking of shoppers ranks by."""
    net = prediction.value - price * prediction.cost
    best = np.argmax(net, axis=1)
    return (best + 1).astype(np.int64), net[np.arange(len(net)), best]


def mean_given(table: Floats, arm: Integers) -> float:
    """Mean of `table` [n, K] over decisions at the promo each is given by `arm` [n]; no_promo counts 0."""
    return float(np.column_stack([np.zeros(len(arm)), table])[np.arange(len(arm)), arm].mean())


def price_for(prediction: Prediction, budget: float, charged: Floats | None = None) -> float:
    """The least lambda >= 0 at which the policy spends at most `budget` cents per decision, by bisection.

    `charged` [n, K]: what promos really cost, measured or known; None: the predicted cost, of which a policy never spends more as
    lambda rises, whatever the signs. Raises InputError when no lambda keeps the budget by predicted cost; by charged cost the
    highest lambda is returned, since costs predicted as 0 cannot be priced out.
    """
    cost = prediction.cost if charged is None else charged
    low, high = 0.0, 1e-9
    if mean_given(cost, assign(prediction, low)) <= budget:
        return low
    while mean_given(cost, assign(prediction, high)) > budget and high < HIGHEST:
        low, high = high, high * 4.0
    if high >= HIGHEST and charged is None:
        raise InputError(f"No policy keeps a budget of {budget} cents per decision: even the cheapest arms cost more.")
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        over = mean_given(cost, assign(prediction, middle)) > budget
        low, high = (middle, high) if over else (low, middle)
    return high


def contribution(gamma: Floats, arm: Integers) -> Floats:
    """What each decision [n] adds against no_promo under the policy `arm` [n]; its mean is the policy's value."""
    return gamma[np.arange(len(arm)), arm] - gamma[:, 0]


def shuffled(gamma: Floats, arm: Integers) -> Floats:
    """The same mix of arms dealt at random, in expectation over all shuffles: what targeting must beat."""
    share = np.bincount(arm, minlength=gamma.shape[1]) / len(arm)
    return np.asarray(gamma @ share - gamma[:, 0], dtype=np.float64)


def single(gamma: Floats, arm: int, share: float = 1.0) -> Floats:
    """One promo to a random `share` of all decisions, in expectation."""
    return share * (gamma[:, arm] - gamma[:, 0])


def affordable_share(mean_cost: float, budget: float) -> float:
    """The largest share of decisions that can be given a promo of `mean_cost` cents within `budget` cents per decision."""
    return 1.0 if mean_cost <= budget else max(0.0, budget / mean_cost)


def prices(prediction: Prediction, points: int = 24) -> Floats:
    """Lambdas [points], descending, that walk from no spend to lambda 0: quantiles of value per cent over costly promos."""
    ratio = prediction.value[prediction.cost > 0] / prediction.cost[prediction.cost > 0]
    ratio = ratio[ratio > 0]
    if not len(ratio):
        return np.zeros(1)
    return np.append(np.quantile(ratio, np.linspace(1, 0, points - 1)), 0.0)


def spend_path(prediction: Prediction, points: int = 24) -> list[Integers]:
    """Arms [n] along the path of descending lambda, without steps that change nobody's arm."""
    path = [assign(prediction, price) for price in prices(prediction, points)]
    return [path[0], *(after for before, after in pairwise(path) if not np.array_equal(before, after))]
