"""Setting and seed -> a randomised promo experiment whose every expected outcome is known.

A shopper buys with a probability that a promo lifts, spends a lognormal amount, and redeems the promo with most purchases; profit is
margin less what was redeemed. Shoppers differ in features that a model sees and in two multipliers that it does not see: of their
probability to buy and of their amount. Both have mean 1, so that expected outcomes given the features are products in closed form.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from promolift.uplift.clusters import Floats, Integers
from promolift.uplift.effects import Measured
from promolift.uplift.scores import Trial, aipw, make_trial
from promolift.uplift.segments import quantile_masks

Design = Literal["uniform", "skewed", "by shopper"]

ARMS = ("no_promo", "small", "medium", "large")
DISCOUNT = np.array([0.0, 100.0, 200.0, 350.0])
"""Cents that a redeemed promo costs."""
LIFT = np.array([0.0, 0.35, 0.48, 0.60])
"""Most that a promo adds to the probability to buy; with the base's most and the largest multiplier it stays below 1."""
MARGIN = 1000.0
"""Mean cents of margin of a purchase, before the promo's cost."""
REDEEMED = 0.9
"""Share of purchases under a promo that redeem it."""
BASE = (0.02, 0.13)
"""Least, and range of, the probability to buy without a promo."""
RARE = 3.0
"""Log-odds against being persuaded: the larger, the fewer shoppers earn their promo."""
TAIL = 0.5
"""Sigma of the log amount of a purchase."""
EAGER = (0.7, 0.6)
"""Least, and range of, a shopper's own multiplier of the probability to buy, whose mean is 1."""
SHOPPER_TAIL = 0.7
"""Sigma of the log of a shopper's own amount multiplier."""
MORE_DECISIONS = 1.5
"""Mean number of a shopper's decisions after the first, before activity counts: 1,600 shoppers make about 4,000."""
DESIGNS: dict[Design, Floats] = {
    "uniform": np.full((3, 4), 0.25),
    "by shopper": np.full((3, 4), 0.25),
    "skewed": np.array([[0.55, 0.15, 0.15, 0.15], [0.25, 0.30, 0.15, 0.30], [0.10, 0.20, 0.40, 0.30]]),
}
"""Logged propensities of the least, the middle and the most active shoppers."""


@dataclass(frozen=True)
class Population:
    """Decisions with what is true of them. `codes` [n] is the shopper, below `shoppers`; `activity` [n] a feature, sorted by nothing.

    `outcome` and `cost` [n, K+1]: expected profit and promo cost (cents) of each arm given the features.
    """

    codes: Integers
    shoppers: int
    activity: Floats
    chance: Floats
    outcome: Floats
    cost: Floats

    @property
    def effect(self) -> Floats:
        """True incremental profit of each promo, [n, K] cents."""
        return self.outcome[:, 1:] - self.outcome[:, :1]

    @property
    def extra_cost(self) -> Floats:
        """True incremental promo cost of each promo, [n, K] cents."""
        return self.cost[:, 1:] - self.cost[:, :1]


@dataclass(frozen=True)
class World:
    """A population, the experiment run on it, and its pseudo-outcomes. `profit` and `paid` [n]: cents as observed."""

    population: Population
    trial: Trial
    profit: Floats
    paid: Floats
    model: Floats
    measured: Measured
    segments: dict[str, NDArray[np.bool_]]


def draw_population(generator: np.random.Generator, shoppers: int, strength: float = 1.0) -> Population:
    """Decisions of `shoppers` shoppers. `strength` scales every effect on profit: at 0 each promo earns exactly what it costs."""
    activity, sensitivity = generator.normal(size=(2, shoppers))
    taste = generator.normal(size=(shoppers, 3))
    counts = 1 + generator.poisson(MORE_DECISIONS * np.exp(0.4 * activity - 0.08))
    codes = np.repeat(np.arange(shoppers), counts)
    moment = generator.normal(size=len(codes))
    base = BASE[0] + BASE[1] / (1 + np.exp(-activity[codes]))
    pull = 2.5 * (0.6 * sensitivity[codes, None] + 0.8 * taste[codes] + 0.3 * moment[:, None]) - RARE
    chance = np.column_stack([base, base[:, None] + _lift(base, pull, strength)])
    return Population(codes, shoppers, activity[codes], chance, chance * (MARGIN - REDEEMED * DISCOUNT), chance * REDEEMED * DISCOUNT)


def _lift(base: Floats, pull: Floats, strength: float) -> Floats:
    """What each promo adds to the probability to buy, [n, K]; profit is linear in it, so mixing with break-even scales the effect."""
    given = REDEEMED * DISCOUNT[1:]
    even = base[:, None] * given / (MARGIN - given)
    return np.asarray(strength * LIFT[1:] / (1 + np.exp(-pull)) + (1 - strength) * even, dtype=np.float64)


def observe(generator: np.random.Generator, population: Population, arm: Integers) -> tuple[Floats, Floats]:
    """Profit and promo cost [n], whole cents, of giving each decision `arm` [n]; a shopper's multipliers are drawn once for all."""
    eager = EAGER[0] + EAGER[1] * generator.beta(2.0, 2.0, size=population.shoppers)
    rich = _lognormal(generator, SHOPPER_TAIL, population.shoppers)
    rows = np.arange(len(arm))
    buys = generator.uniform(size=len(arm)) < population.chance[rows, arm] * eager[population.codes]
    amount = np.rint(MARGIN * rich[population.codes] * _lognormal(generator, TAIL, len(arm)))
    paid = DISCOUNT[arm] * (buys & (generator.uniform(size=len(arm)) < REDEEMED))
    return np.where(buys, amount, 0.0) - paid, paid


def _lognormal(generator: np.random.Generator, sigma: float, size: int) -> Floats:
    return np.asarray(generator.lognormal(-0.5 * sigma**2, sigma, size), dtype=np.float64)


def draw_world(seed: int, shoppers: int = 1600, design: Design = "uniform", strength: float = 1.0) -> World:
    """A world of its own for every seed; the outcome models of its pseudo-outcomes are shrunken functions of the features.

    Design "by shopper" draws one arm for all decisions of a shopper, the others an arm for every decision.
    """
    generator = np.random.default_rng(seed)
    population = draw_population(generator, shoppers, strength)
    part = np.searchsorted([-0.43, 0.43], population.activity)
    table = DESIGNS[design][part]
    chance = generator.uniform(size=shoppers)[population.codes] if design == "by shopper" else generator.uniform(size=len(table))
    arm = (chance[:, None] > np.cumsum(table, axis=1)[:, :-1]).sum(axis=1).astype(np.int64)
    profit, paid = observe(generator, population, arm)
    trial = make_trial(arm, table, population.codes)
    model, cost_model = _shrunken(population.outcome), _shrunken(population.cost)
    measured = Measured(trial, aipw(profit, trial, model), aipw(paid, trial, cost_model), ARMS)
    return World(population, trial, profit, paid, model, measured, quantile_masks("activity", population.activity))


def _shrunken(mean: Floats) -> Floats:
    """An outcome model that is wrong as fitted ones are: 60 % of the truth and 30 % of a constant per arm."""
    return np.asarray(0.6 * mean + 0.3 * mean.mean(axis=0), dtype=np.float64)
