"""Simulated worlds -> how often 95 % intervals of policy value, QINI, AUTOC and differences hold the truth.

The intervals resample shoppers, so the truth that they are for is that of the population of shoppers ("population"). Beside it stands
the mean of the true effects of the very rows ("rows"), which the same interval covers more often, as it need not err in who was drawn.
Policies are judged at a price fixed in advance and at one found on the same rows, as the gate does; the latter is held against the
value of the policy found ("found policy") and of the one that spends the budget in the population ("policy at the budget").
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from promolift.uplift.bootstrap import Estimate, HalfSamples, half_samples
from promolift.uplift.clusters import Floats
from promolift.uplift.distributions import normal_quantile
from promolift.uplift.effects import CHAMPION, price_at
from promolift.uplift.off_policy import Method, chosen, difference
from promolift.uplift.ranking import rank, rate
from promolift.uplift.value import Prediction, assign, best_promo, contribution, mean_given
from science.monte_carlo import Share, over_cores
from science.world_models import BUDGET, QUALITY, Model, Truth, find_truth, noise, predict, true_price
from science.worlds import ARMS, Design, Population, World, draw_population, draw_world

RESAMPLES = 200
TRUTH_SEED, FIRST_WORLD = 78, 50_000
SHOPPERS = 1600
GOOD, BOTH = "model", "difference"
MODELS = {GOOD: Model(0.9), CHAMPION: Model(QUALITY[CHAMPION])}
WITHIN = (0.93, 0.97)
Z = normal_quantile(0.975)


class Row(NamedTuple):
    """One interval of one world: what it is for, its middle and standard error, and the truth."""

    quantity: str
    truth_is: str
    value: float
    error: float
    truth: float


@dataclass(frozen=True)
class Fixed:
    """What is known of one model in the population: the price that spends the budget, value by price, QINI and AUTOC."""

    price: float
    prices: Floats
    values: Floats
    ranks: dict[str, float]

    def value_at(self, price: float) -> float:
        """True value per decision of the policy at `price`, between two measured prices by interpolation."""
        return float(np.interp(price, self.prices, self.values))


def fix(population: Population, prediction: Prediction) -> Fixed:
    """Measure one model's policies and ranking by the true effects of a large population."""
    price = true_price(population, prediction)
    prices = price * np.append(np.linspace(0, 3, 61), np.geomspace(3.2, 30, 12))
    values = np.array([mean_given(population.effect, assign(prediction, p)) for p in prices])
    samples = half_samples(population.codes, population.shoppers, 2, 1)
    return Fixed(price, prices, values, {name: e.value for name, e in _ranks(prediction, population.effect, samples).items()})


def _ranks(prediction: Prediction, effect: Floats, samples: HalfSamples) -> dict[str, Estimate]:
    promo, score = best_promo(prediction)
    return rate(rank(score), effect[np.arange(len(effect)), promo - 1], samples)


def predictions(population: Population, truth: Truth, seed: int) -> dict[str, Prediction]:
    """Both models' predictions, with noises of their own."""
    noises = {name: noise(seed, key, population) for key, name in enumerate(MODELS)}
    return {name: predict(population, truth, model, noises[name], noises[CHAMPION]) for name, model in MODELS.items()}


def fixed_models(truth: Truth, shoppers: int = 80_000) -> dict[str, Fixed]:
    """Both models in one large population."""
    population = draw_population(np.random.default_rng(TRUTH_SEED + 1), shoppers)
    return {name: fix(population, p) for name, p in predictions(population, truth, TRUTH_SEED).items()}


def intervals(world: World, made: dict[str, Prediction], known: dict[str, Fixed], seed: int) -> Iterator[Row]:
    """Every interval that one world gives, with its truths."""
    samples = half_samples(world.trial.codes, world.trial.shoppers, RESAMPLES, seed)
    yield from _values(world, made, known, samples)
    yield from _rankings(world, made, known, samples)
    yield from _off_policy(world, made[GOOD], known[GOOD])
    alone = half_samples(np.arange(world.trial.rows), world.trial.rows, RESAMPLES, seed)
    arm = assign(made[GOOD], known[GOOD].price)
    naive = alone.mean(contribution(world.measured.value, arm))
    yield Row("value/aipw as if each row were a shopper, price fixed", "population", naive.value, naive.error, _at(known[GOOD]))


def _at(known: Fixed) -> float:
    return known.value_at(known.price)


def _values(world: World, made: dict[str, Prediction], known: dict[str, Fixed], samples: HalfSamples) -> Iterator[Row]:
    """Value of the model's policy and its paired difference from the champion's, at prices fixed and found."""
    gamma, effect = world.measured.value, world.population.effect
    found = {name: price_at(world.measured, p, BUDGET) for name, p in made.items()}
    budget = {name: _at(k) for name, k in known.items()}
    for how, at in (("price fixed", {n: k.price for n, k in known.items()}), ("price found", found)):
        arms = {name: assign(p, at[name]) for name, p in made.items()}
        pair = samples.means(np.column_stack([contribution(gamma, arm) for arm in arms.values()]))
        held = {"population" if how == "price fixed" else "found policy": {n: k.value_at(at[n]) for n, k in known.items()}}
        held["rows"] = {name: mean_given(effect, arm) for name, arm in arms.items()}
        if how == "price found":
            held["policy at the budget"] = budget
        for of, true in held.items():
            yield _row(f"value/aipw, {how}", of, pair[0], true[GOOD])
            yield _row(f"value/aipw {BOTH}, {how}", of, pair[0].minus(pair[1]), true[GOOD] - true[CHAMPION])


def _row(quantity: str, of: str, estimate: Estimate, truth: float) -> Row:
    return Row(quantity, of, estimate.value, estimate.error, truth)


def _rankings(world: World, made: dict[str, Prediction], known: dict[str, Fixed], samples: HalfSamples) -> Iterator[Row]:
    gamma = world.measured.value[:, 1:] - world.measured.value[:, :1]
    few = HalfSamples(samples.chosen[:2], samples.codes)
    measured = {name: _ranks(p, gamma, samples) for name, p in made.items()}
    rows = {name: {k: e.value for k, e in _ranks(p, world.population.effect, few).items()} for name, p in made.items()}
    for metric in ("qini", "autoc"):
        one, other = (measured[name][metric] for name in (GOOD, CHAMPION))
        for of, true in (("population", {n: k.ranks for n, k in known.items()}), ("rows", rows)):
            yield _row(f"rate/{metric}", of, one, true[GOOD][metric])
            yield _row(f"rate/{metric} {BOTH}", of, one.minus(other), true[GOOD][metric] - true[CHAMPION][metric])


def _off_policy(world: World, prediction: Prediction, known: Fixed) -> Iterator[Row]:
    """The same policy against giving nothing by other estimators, with influence-function errors clustered by shopper."""
    arm = assign(prediction, known.price)
    targets = chosen(arm, len(ARMS)), chosen(np.zeros_like(arm), len(ARMS))
    methods: tuple[Method, ...] = ("snips", "dr")
    for method in methods:
        metric = difference(method, world.profit, world.trial, targets, world.model).metric
        yield Row(f"value/{method}, price fixed", "population", metric.value, metric.error, _at(known))


def run(worlds: int, design: Design, truth: Truth, known: dict[str, Fixed]) -> list[dict[str, Any]]:
    """Coverage of each interval over `worlds` worlds."""
    rows = defaultdict(list)
    for found in over_cores(partial(_of_world, design, truth, known), range(worlds), f"coverage, {design}"):
        for row in found:
            rows[row.quantity, row.truth_is].append(row[2:])
    return [_summary(quantity, of, np.array(found)) for (quantity, of), found in rows.items()]


def _of_world(design: Design, truth: Truth, known: dict[str, Fixed], number: int) -> list[Row]:
    seed = FIRST_WORLD + number
    world = draw_world(seed, SHOPPERS, design)
    return list(intervals(world, predictions(world.population, truth, seed), known, seed))


def _summary(quantity: str, of: str, found: Floats) -> dict[str, Any]:
    """`found` [worlds, 3]: value, error, truth. `bias` is in standard deviations; `error_ratio` the mean error over that deviation."""
    value, error, truth = found.T
    held = np.abs(value - truth) <= Z * error
    spread = float((value - truth).std(ddof=1))
    share = Share(int(held.sum()), len(held))
    low, high = share.interval
    return {
        "quantity": quantity, "truth_is": of, **share.record(), "within": bool(WITHIN[0] <= held.mean() <= WITHIN[1]),
        "too_low": int(np.sum(value + Z * error < truth)), "too_high": int(np.sum(value - Z * error > truth)),
        "bias": round(float((value - truth).mean()) / spread, 3), "error_ratio": round(float(error.mean()) / spread, 3),
        "mean_truth": round(float(truth.mean()), 3), "mean_error": round(float(error.mean()), 3),
        "could_be_95": bool(low <= 0.95 <= high),
    }  # fmt: skip


def measure(worlds: int = 1_000, designs: Sequence[Design] = ("skewed", "by shopper")) -> dict[str, Any]:
    """Coverage of every interval in `worlds` worlds of each design of logged propensities."""
    truth = find_truth(TRUTH_SEED)
    known = fixed_models(truth)
    tables = {design: run(worlds, design, truth, known) for design in designs}
    return {"worlds": worlds, "shoppers": SHOPPERS, "resamples": RESAMPLES, "budget_cents": BUDGET, "designs": tables}
