"""A population and a quality -> predictions of a model of that quality, and what its policy is truly worth at a budget.

A model of quality q sees the effect with noise so that their correlation is q, and shrinks what it sees by |q|, which makes one
predicted cent worth one true cent. q = 1 is the oracle, q = -1 puts the wrong shoppers first; below 0.3 in size the shrinking
stops, so that q = 0 is noise around each promo's mean effect and still ranks. Noise belongs to shoppers (70 %) and to decisions.
"""

from dataclasses import dataclass, field

import numpy as np

from promolift.uplift.clusters import Floats
from promolift.uplift.effects import BEST_SINGLE, CHAMPION, SHUFFLED
from promolift.uplift.value import Prediction, affordable_share, assign, mean_given
from science.worlds import ARMS, LIFT, Population, draw_population

BUDGET = 20.0
"""Cents per decision: less than the smallest promo costs when everybody gets it."""
QUALITY = {CHAMPION: 0.8, "lightgbm": 0.7}
LEAST_SHRINK = 0.3
GRID = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
CALIBRATION_SHOPPERS = 120_000
FALSE_POSITIONS = 40
NEAR_BUDGET = 1e-5


@dataclass(frozen=True)
class Model:
    """A way to predict. `shared`: correlation of its noise with the champion's; `scale` multiplies values, `cost` predicted costs."""

    quality: float
    shared: float = 0.0
    scale: float = 1.0
    cost: float = 1.0


@dataclass(frozen=True)
class Truth:
    """What is fixed before any experiment: mean and spread [K] of the effects, what policies earn (cents per decision), best promo."""

    mean: Floats
    spread: Floats
    single: str
    earns: dict[str, float]
    by_quality: dict[float, dict[float, float]] = field(default_factory=dict)
    shuffled: dict[float, float] = field(default_factory=dict)

    def quality_for(self, value: float, shared: float = 0.0) -> float:
        """The quality whose policy earns `value`, by interpolation between the qualities measured; the ends bound it."""
        known = self.by_quality[shared]
        return float(np.interp(value, list(known.values()), list(known)))


def noise(seed: int, key: int, population: Population) -> Floats:
    """Standard normal noise [n, K] of the model number `key` in the world `seed`."""
    generator = np.random.default_rng([seed, key])
    own = generator.normal(size=(population.shoppers, len(ARMS) - 1))[population.codes]
    return np.asarray(np.sqrt(0.7) * own + np.sqrt(0.3) * generator.normal(size=own.shape), dtype=np.float64)


def predict(population: Population, truth: Truth, model: Model, own: Floats, champions: Floats) -> Prediction:
    """What `model` says of every decision; `own` and `champions` [n, K]: its noise and the champion's."""
    error = model.shared * champions + np.sqrt(1 - model.shared**2) * own
    q = model.quality
    seen = q * (population.effect - truth.mean) + np.sqrt(1 - q * q) * truth.spread * error
    value = model.scale * (truth.mean + max(abs(q), LEAST_SHRINK) * seen)
    return Prediction(value, model.cost * population.extra_cost)


def response(population: Population) -> Prediction:
    """Ranks by what shoppers spend anyway, more for the larger promo, instead of by what a promo changes."""
    return Prediction(population.outcome[:, :1] * LIFT[1:], population.extra_cost)


def true_price(population: Population, prediction: Prediction, budget: float = BUDGET) -> float:
    """The price at which the policy spends the budget by true cost: false position with Illinois' halving, for large populations."""

    def over(price: float) -> float:
        return mean_given(population.extra_cost, assign(prediction, price)) - budget

    low, high = 0.0, 1.0
    above, below = over(low), over(high)
    if above <= 0:
        return low
    while below > 0:
        low, above, high = high, below, 4.0 * high
        below = over(high)
    last = 0.0
    for _ in range(FALSE_POSITIONS):
        price = (low * below - high * above) / (below - above)
        gap = over(price)
        if abs(gap) <= NEAR_BUDGET * budget:
            return price
        if gap > 0:
            low, above, below = price, gap, below / 2 if last > 0 else below
        else:
            high, below, above = price, gap, above / 2 if last < 0 else above
        last = gap
    return high


def worth(population: Population, prediction: Prediction, budget: float = BUDGET) -> float:
    """True profit per decision of the policy that spends the budget by true cost."""
    return mean_given(population.effect, assign(prediction, true_price(population, prediction, budget)))


def find_truth(seed: int, shared: tuple[float, ...] = (0.0,), shoppers: int = CALIBRATION_SHOPPERS) -> Truth:
    """Measure a large population once: what each quality earns, for each correlation in `shared` with the champion's noise."""
    population = draw_population(np.random.default_rng(seed), shoppers)
    effect = population.effect
    bare = Truth(effect.mean(axis=0), effect.std(axis=0), "", {})
    own, champions = noise(seed, 1, population), noise(seed, 0, population)

    def earned(model: Model) -> float:
        return worth(population, predict(population, bare, model, own, champions))

    singles = {a: s * e for a, s, e in zip(ARMS[1:], _shares(population), bare.mean, strict=True)}
    best = max(singles, key=lambda arm: singles[arm])
    earns = {CHAMPION: worth(population, predict(population, bare, Model(QUALITY[CHAMPION]), champions, champions))}
    earns |= {"lightgbm": earned(Model(QUALITY["lightgbm"])), "response": worth(population, response(population))}
    earns[BEST_SINGLE] = float(singles[best])
    by = {s: {q: earned(Model(q, s)) for q in GRID if s == 0 or 0.4 <= q <= 0.9} for s in shared}
    shuffled = {q: _shuffled(population, predict(population, bare, Model(q), own, champions)) for q in GRID if q <= 0.6}
    return Truth(bare.mean, bare.spread, best, earns, by, shuffled)


def _shares(population: Population) -> list[float]:
    return [affordable_share(cost, BUDGET) for cost in population.extra_cost.mean(axis=0)]


def _shuffled(population: Population, prediction: Prediction) -> float:
    """True profit of the mix of arms of the model's policy, dealt at random."""
    arm = assign(prediction, true_price(population, prediction))
    share = np.bincount(arm, minlength=len(ARMS)) / len(arm)
    return float(share[1:] @ population.effect.mean(axis=0))


def worse_than(truth: Truth, other: str, margin: float, shared: float = 0.0) -> Model:
    """The model that truly earns (1 - `margin`) of what the policy `other` earns; for SHUFFLED, of its own mix dealt at random."""
    if other != SHUFFLED:
        return Model(truth.quality_for((1 - margin) * truth.earns[other], shared), shared)
    gap = [truth.by_quality[0.0][q] - (1 - margin) * mixed for q, mixed in truth.shuffled.items()]
    return Model(float(np.interp(0.0, gap, list(truth.shuffled))))
