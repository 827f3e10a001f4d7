"""Pseudo-outcomes and predictions on one split -> everything the gate compares, all on the same half samples."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promolift.uplift.bootstrap import Estimate, HalfSamples, half_samples
from promolift.uplift.calibration import blp_slope, ece_squared
from promolift.uplift.clusters import Floats, Integers
from promolift.uplift.ranking import rank, rate
from promolift.uplift.scores import Trial
from promolift.uplift.segments import Segment, judge_segments
from promolift.uplift.value import Prediction, affordable_share, assign, best_promo, contribution, price_for, shuffled, single

CHAMPION = "champion"
SHUFFLED = "shuffled same mix"
BEST_SINGLE = "best single promo"


@dataclass(frozen=True)
class Measured:
    """Pseudo-outcomes [n, K+1] of the objective (`value`) and of promo cost (`cost`, cents) on decisions where every arm was possible."""

    trial: Trial
    value: Floats
    cost: Floats
    arms: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """What the validation split settled: the `model`, the best `single` promo, and the value of each model's policy there."""

    model: str
    single: str
    values: dict[str, float]


@dataclass(frozen=True)
class Judged:
    """One model's ranking, policy at the budget (`arm` [n], shadow price `price`, `profit`, `spend`) and calibration.

    The policies compared spend the budget by *measured* cost, so that a model that underrates costs gains nothing by overspending.
    `own_spend`: what the model would really spend if the budget were kept by its own predicted cost, as serving does.
    """

    qini: Estimate
    autoc: Estimate
    profit: Estimate
    spend: Estimate
    own_spend: Estimate
    slope: Estimate
    ece: Estimate
    arm: Integers
    price: float


@dataclass(frozen=True)
class Effects:
    """What the gate judges: `models` by name, and `others`, the profit per decision of the policies that need no model.

    `others` holds each single promo to as many random decisions as the budget affords (by its name), BEST_SINGLE and SHUFFLED
    (of the chosen model's mix).
    """

    chosen: str
    rows: int
    shoppers: int
    budget: float
    models: dict[str, Judged]
    others: dict[str, Estimate]
    segments: tuple[Segment, ...]

    def profit(self, policy: str) -> Estimate:
        """Profit per decision of a model's policy or of another policy. Raises KeyError for an unknown one."""
        return self.models[policy].profit if policy in self.models else self.others[policy]


def price_at(measured: Measured, prediction: Prediction, budget: float) -> float:
    """The price of a cent at which the model's policy spends the budget by measured cost."""
    return price_for(prediction, budget, measured.cost[:, 1:] - measured.cost[:, :1])


def measure_model(measured: Measured, prediction: Prediction, budget: float, samples: HalfSamples) -> Judged:
    """Ranking, policy at the budget and calibration of one model."""
    price = price_at(measured, prediction, budget)
    arm, own = assign(prediction, price), assign(prediction, price_for(prediction, budget))
    promo, score = best_promo(prediction)
    ranks = rate(rank(score), contribution(measured.value, promo), samples)
    parts = [contribution(measured.value, arm), contribution(measured.cost, arm), contribution(measured.cost, own)]
    profit, spend, own_spend = samples.means(np.column_stack(parts))
    effect = measured.value[:, 1:] - measured.value[:, :1]
    slope, ece = blp_slope(prediction.value, effect, samples), ece_squared(prediction.value, effect, samples)
    return Judged(ranks["qini"], ranks["autoc"], profit, spend, own_spend, slope, ece, arm, price)


def single_promos(measured: Measured, budget: float, samples: HalfSamples) -> dict[str, Estimate]:
    """Profit per decision of each promo alone, to as large a random share of decisions as the budget affords."""
    cost = contribution_means(measured.cost)
    shares = [affordable_share(c, budget) for c in cost]
    values = [single(measured.value, arm + 1, share) for arm, share in enumerate(shares)]
    return dict(zip(measured.arms[1:], samples.means(np.column_stack(values)), strict=True))


def contribution_means(gamma: Floats) -> Floats:
    """Mean effect of each promo against no_promo, [K]."""
    return np.asarray((gamma[:, 1:] - gamma[:, :1]).mean(axis=0), dtype=np.float64)


def measure(
    measured: Measured, predictions: dict[str, Prediction], choice: Choice, *, budget: float,
    segments: dict[str, NDArray[np.bool_]], resamples: int, seed: int,
) -> Effects:  # fmt: skip
    """Everything about `predictions` (by model name) that the gate needs, paired.

    `choice` was made on other rows. `segments`: row masks [n] by name. Deterministic for a seed.
    """
    trial = measured.trial
    samples = half_samples(trial.codes, trial.shoppers, resamples, seed)
    models = {name: measure_model(measured, p, budget, samples) for name, p in predictions.items()}
    others = single_promos(measured, budget, samples)
    others[BEST_SINGLE] = others[choice.single]
    arm = models[choice.model].arm
    others[SHUFFLED] = samples.mean(shuffled(measured.value, arm))
    found = judge_segments(contribution(measured.value, arm), segments, samples)
    return Effects(choice.model, trial.rows, trial.shoppers, budget, models, others, found)


def choose(measured: Measured, predictions: dict[str, Prediction], budget: float) -> Choice:
    """The model whose policy at the budget is worth most on these rows (validation), and the best single promo.

    A plain maximum: whether the winner is better than noise is for the gate to say, on rows that did not choose it.
    """
    arms = {name: assign(p, price_at(measured, p, budget)) for name, p in predictions.items()}
    values = {name: float(contribution(measured.value, arm).mean()) for name, arm in arms.items()}
    return Choice(max(values, key=lambda name: values[name]), _best_single(measured, budget), values)


def _best_single(measured: Measured, budget: float) -> str:
    effect, cost = contribution_means(measured.value), contribution_means(measured.cost)
    return measured.arms[1 + int(np.argmax([e * affordable_share(c, budget) for e, c in zip(effect, cost, strict=True)]))]
