"""Predicted value and cost of each promo -> the exact budget path over all shoppers, and its measured gain against measured spend.

The linear multiple-choice knapsack (Sinha and Zoltners, 1979; as a path over budgets Sverdrup, Wu, Athey and Wager, 2025): per decision
the upper concave hull of the points (cost, gain) of no_promo at (0, 0) and K promos; then all hull steps of all decisions by falling
slope. A slope is a shadow price, value per cent. Costs and gains of either sign are legal: the path starts with everyone at the cheapest
arm (the dearer the cent, the more a saving is worth), every step costs more and gains more, and it ends with everyone at the highest gain.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from promolift.errors import InputError
from promolift.uplift.bootstrap import Estimate, HalfSamples
from promolift.uplift.clusters import Floats, Integers
from promolift.uplift.value import Prediction, contribution

BLOCK_CELLS = 4_000_000  # of rows times arms in work at once: some 200 MB of temporaries, whatever n is


_Round = tuple[Integers, Integers, Integers, Floats, Floats, Floats]  # the first six fields of Steps, one step a row at most


@dataclass(frozen=True)
class Steps:
    """The path of falling shadow price: step j moves decision `row` from arm `before` to arm `after`, all [m] in path order.

    `cost` (cents) and `gain` (value) are what the step adds, both > 0; `slope` = gain / cost never rises along the path.
    `start` [n]: the arm of each decision before the first step; `base_cost` and `base_gain`: what these sum to (either sign).
    """

    row: Integers
    before: Integers
    after: Integers
    cost: Floats
    gain: Floats
    slope: Floats
    start: Integers
    base_cost: float
    base_gain: float

    @property
    def spend(self) -> Floats:
        """Predicted cents per decision after 0, 1, ..., m steps, [m+1]; never falls."""
        return np.cumsum(np.append(self.base_cost, self.cost)) / len(self.start)

    @property
    def total(self) -> Floats:
        """Predicted value per decision after 0, 1, ..., m steps, [m+1]; concave in `spend`."""
        return np.cumsum(np.append(self.base_gain, self.gain)) / len(self.start)

    def arms(self, count: int) -> Integers:
        """Arm [n] of each decision after the first `count` steps."""
        arm = self.start.copy()
        arm[self.row[:count]] = self.after[:count]  # of repeated rows numpy keeps the last, which is the latest step
        return arm


@dataclass(frozen=True)
class BudgetPolicy:
    """The optimum of the linear programme at a budget: `arm` [n], but decision `row` gets `after` with probability `fraction`.

    `row` is -1 and `fraction` 0 where the budget buys every step. `price`: value of the next cent.
    """

    arm: Integers
    row: int
    after: int
    fraction: float
    price: float

    def probabilities(self, arms: int) -> Floats:
        """The policy as probabilities [n, arms] of each arm, the form that off-policy estimates take."""
        table = np.zeros((len(self.arm), arms))
        table[np.arange(len(self.arm)), self.arm] = 1.0
        if self.row >= 0:
            table[self.row, self.arm[self.row]] = 1.0 - self.fraction
            table[self.row, self.after] = self.fraction
        return table


@dataclass(frozen=True)
class Curve:
    """Measured `gain` against measured `spend` per decision at G points of a path, both [1 + resamples, G]; row 0 is the full sample.

    `budgets` [m] in cents per decision, `gains` [m] there, and `errors` [m] their standard errors clustered by shopper.
    """

    spend: Floats
    gain: Floats
    budgets: Floats
    gains: tuple[Estimate, ...]
    errors: Floats
    samples: HalfSamples

    def at(self, budget: float) -> Estimate:
        """Gain per decision where the measured spend first reaches `budget`, or at the path's end where it never does.

        Between two points the policy is their mixture, so gain and spend are linear. Raises InputError when the path starts dearer.
        """
        if not budget >= self.spend[0, 0]:
            raise InputError(f"A budget of {budget} cents per decision is not at least {self.spend[0, 0]:.6g}, the path's least.")
        values = _interpolate(self.spend, self.gain, budget)
        return Estimate(float(values[0]), values[1:])


def hull_steps(prediction: Prediction) -> Steps:
    """The path of `prediction` [n, K]. Equal slopes keep the order of rows; steps of one row are always in order.

    Raises InputError when value and cost have different shapes, no row or no promo, or are not finite.
    """
    _check(prediction.value, prediction.cost)
    starts, parts, base_cost, base_gain = [], list[_Round](), 0.0, 0.0
    for first, cost, gain in _blocks(prediction):
        start = _cheapest(cost, gain)
        starts.append(start)
        base_cost += float(np.take_along_axis(cost, start[:, None], axis=1).sum())
        base_gain += float(np.take_along_axis(gain, start[:, None], axis=1).sum())
        parts.extend(_climb(cost, gain, start, first))
    keys = [np.concatenate([part[0] for part in parts]), -np.concatenate([part[5] for part in parts])]
    order = np.lexsort(keys)  # stable, so that the rounds of a row stay in order
    row, before, after = (np.concatenate([part[i] for part in parts])[order] for i in range(3))
    more, extra, slope = (np.concatenate([part[i] for part in parts])[order] for i in range(3, 6))
    return Steps(row, before, after, more, extra, slope, np.concatenate(starts), base_cost, base_gain)


def policy_at(steps: Steps, budget: float) -> BudgetPolicy:
    """The best policy that is predicted to spend `budget` cents per decision, or all that pays; at most one decision is fractional.

    Raises InputError when even the cheapest arms cost more.
    """
    if not budget >= (spend := steps.spend)[0]:
        raise InputError(f"No policy keeps a budget of {budget} cents per decision: even the cheapest arms cost {spend[0]:.6g}.")
    count = int(np.searchsorted(spend, budget, side="right")) - 1
    if count == len(steps.row):
        return BudgetPolicy(steps.arms(count), -1, -1, 0.0, 0.0)
    fraction = float((budget - spend[count]) / (spend[count + 1] - spend[count]))
    return BudgetPolicy(steps.arms(count), int(steps.row[count]), int(steps.after[count]), fraction, float(steps.slope[count]))


def policy_at_price(steps: Steps, price: float) -> Integers:
    """Arm [n] at `price` = lambda >= 0: every step whose slope is above it. Equals `value.assign` but where two arms tie."""
    return steps.arms(int(np.searchsorted(-steps.slope, -price, side="left")))


def spend_gain(
    steps: Steps, gamma_value: Floats, gamma_cost: Floats, samples: HalfSamples, *,
    budgets: Sequence[float] | Floats | None = None, points: int = 32,
) -> Curve:  # fmt: skip
    """What the path really gains and spends, from pseudo-outcomes [n, K+1] (`scores.aipw`) of value and of cost (cents).

    The path is measured at `points` steps of predicted spend, never inside a group of equal slopes, so that equal slopes share their
    mean and row order does not matter. `budgets` None: 20 spends from the path's least to its greatest. The clustered error is that of
    gain less lambda times spend (delta method: the point of the path where the budget is spent is itself estimated). Raises
    InputError on tables of another shape or not finite, and on a budget that the start of the path exceeds.
    """
    for name, gamma in (("value", gamma_value), ("cost", gamma_cost)):
        _check_gamma(name, gamma, steps, len(samples.codes))
    totals = np.vstack([_shopper_totals(steps, gamma, samples, _knots(steps, points)) for gamma in (gamma_value, gamma_cost)])
    shoppers = samples.chosen.shape[1]
    rows = np.bincount(samples.codes, minlength=shoppers).astype(np.float64)
    full, halves = replace(samples, codes=np.arange(shoppers)).sums(np.vstack([totals, rows]).T)
    sums = np.vstack([full, halves])
    gain, spend = np.split(sums[:, :-1] / sums[:, -1:], 2, axis=1)
    grid = np.linspace(spend[0, 0], spend[0].max(), 20) if budgets is None else np.asarray(budgets, dtype=np.float64)
    bare = Curve(spend, gain, grid, (), np.empty(0), samples)
    errors = np.array([_clustered_error(bare, totals, rows, budget) for budget in grid])
    return replace(bare, gains=tuple(bare.at(budget) for budget in grid), errors=errors)


def integrated_difference(one: Curve, other: Curve, budget: float, points: int = 101) -> Estimate:
    """Area between two measured curves up to `budget` (value per decision times cents per decision), paired on the same half samples.

    The area starts at the spend that both paths can keep (0 unless promos save cost); divided by the width it is the mean
    difference. Raises InputError when the curves come from different half samples or the budget lies below that start.
    """
    if not np.array_equal(one.samples.chosen, other.samples.chosen):
        raise InputError("Two curves can be compared only on the same half samples; measure both with the same `samples`.")
    low = max(one.spend[0, 0], other.spend[0, 0])
    if not budget > low:
        raise InputError(f"The budget is {budget} cents per decision; the area starts at {low:.6g}, so give a larger one.")
    grid = np.linspace(low, budget, points)
    gaps = [_interpolate(one.spend, one.gain, b) - _interpolate(other.spend, other.gain, b) for b in grid]
    area = np.asarray(np.trapezoid(np.array(gaps), grid, axis=0), dtype=np.float64)
    return Estimate(float(area[0]), area[1:])


def _blocks(prediction: Prediction) -> Iterator[tuple[int, Floats, Floats]]:
    """First row, cost [b, K+1] and gain [b, K+1] of blocks of rows, no_promo in column 0."""
    n, promos = prediction.cost.shape
    size = max(1, BLOCK_CELLS // (promos + 1))
    for first in range(0, n, size):
        cost, gain = (np.pad(table[first : first + size], ((0, 0), (1, 0))) for table in (prediction.cost, prediction.value))
        yield first, cost, gain


def _cheapest(cost: Floats, gain: Floats) -> Integers:
    """The arm [b] of least cost; of several the one of highest gain, of those the first."""
    least = cost == cost.min(axis=1, keepdims=True)
    return np.asarray(np.argmax(np.where(least, gain, -np.inf), axis=1), dtype=np.int64)


def _climb(cost: Floats, gain: Floats, start: Integers, first: int) -> list[_Round]:
    """Hull steps of the block at row `first`, round by round: each row goes to the arm of steepest slope, the farthest of equals."""
    row, at = np.arange(len(start)), start
    ceiling = np.full(len(start), np.inf)
    steps = []
    while True:
        more, extra = cost[row] - cost[row, at][:, None], gain[row] - gain[row, at][:, None]
        slope = np.full(more.shape, -np.inf)
        with np.errstate(over="ignore"):
            np.divide(extra, more, out=slope, where=(more > 0) & (extra > 0))
        steepest = slope.max(axis=1)
        after = np.argmax(np.where(slope == steepest[:, None], extra, -np.inf), axis=1)
        ceiling = np.minimum(ceiling, steepest)  # rounding must not put a row's steps out of order
        moved = np.flatnonzero(steepest > -np.inf)
        to = after[moved]
        steps.append((row[moved] + first, at[moved], to, more[moved, to], extra[moved, to], ceiling[moved]))
        if not len(moved):
            return steps
        row, at, ceiling = row[moved], to, ceiling[moved]


def _knots(steps: Steps, points: int) -> Integers:
    """Numbers of steps at which the path is measured: 0, the end, and ends of groups of equal slope at even predicted spends between."""
    ends = np.flatnonzero(np.append(steps.slope[1:] != steps.slope[:-1], True)[: len(steps.slope)]) + 1
    if len(ends) > points:
        spend = steps.spend[ends]
        chosen = np.searchsorted(spend, np.linspace(steps.spend[0], spend[-1], points + 1)[1:])
        ends = ends[np.unique(np.minimum(np.append(chosen, len(ends) - 1), len(ends) - 1))]
    return np.append(0, ends).astype(np.int64)


def _shopper_totals(steps: Steps, gamma: Floats, samples: HalfSamples, knots: Integers) -> Floats:
    """What each shopper's decisions add against no_promo at each knot of the path, [G, shoppers]."""
    shoppers = samples.chosen.shape[1]
    totals = np.empty((len(knots), shoppers))
    totals[0] = np.bincount(samples.codes, contribution(gamma, steps.start), shoppers)
    for k, (low, high) in enumerate(pairwise(knots), start=1):
        row = steps.row[low:high]
        change = gamma[row, steps.after[low:high]] - gamma[row, steps.before[low:high]]
        totals[k] = totals[k - 1] + np.bincount(samples.codes[row], change, shoppers)
    return totals


def _crossing(spend: Floats, budget: float) -> tuple[Integers, Floats]:
    """Knot and weight of the next knot where each curve [r, G] first reaches `budget`: the ends where it starts above or stays below."""
    top = np.maximum.accumulate(spend, axis=1)
    after = (top < budget).sum(axis=1)
    before = np.clip(after - 1, 0, None)
    curve, last = np.arange(len(spend)), spend.shape[1] - 1
    low, high = spend[curve, before], spend[curve, np.minimum(after, last)]
    weight = np.divide(budget - low, high - low, out=np.zeros(len(spend)), where=(after > 0) & (after <= last))
    return np.where(after > last, last, before), weight


def _interpolate(spend: Floats, gain: Floats, budget: float) -> Floats:
    """Gain [r] of each curve [r, G] at `budget`."""
    knot, weight = _crossing(spend, budget)
    curve, following = np.arange(len(spend)), np.minimum(knot + 1, spend.shape[1] - 1)
    return np.asarray((1 - weight) * gain[curve, knot] + weight * gain[curve, following], dtype=np.float64)


def _clustered_error(curve: Curve, totals: Floats, rows: Floats, budget: float) -> float:
    """Standard error of the gain at `budget` from shopper totals [2G, shoppers] of value and then of cost."""
    knots = len(totals) // 2
    (knot,), (weight,) = _crossing(curve.spend[:1], budget)
    following = min(knot + 1, knots - 1)
    influence, cost = ((1 - weight) * part[knot] + weight * part[following] for part in (totals[:knots], totals[knots:]))
    if knot < knots - 1:  # beyond the path's end the budget does not bind, and spend does not matter
        reach = max(1, knots // 8)
        low, high = max(0, knot - reach), min(knots - 1, following + reach)
        rise, run = curve.gain[0, high] - curve.gain[0, low], curve.spend[0, high] - curve.spend[0, low]
        influence = influence - (rise / run if run > 0 else 0.0) * cost
    clusters, n = int((rows > 0).sum()), rows.sum()
    centred = influence - rows * influence.sum() / n
    return float(np.sqrt(np.sum(centred**2) * clusters / (clusters - 1)) / n)


def _check(value: Floats, cost: Floats) -> None:
    if value.shape != cost.shape or value.ndim != 2 or not value.size:
        raise InputError(f"A budget path needs value and cost of the same shape [rows, promos], not empty: {value.shape} and {cost.shape}.")
    _finite("predicted value", value)
    _finite("predicted cost", cost)


def _check_gamma(name: str, gamma: Floats, steps: Steps, rows: int) -> None:
    n, arms = len(steps.start), int(max(steps.start.max(), steps.after.max(initial=0))) + 1
    if gamma.ndim != 2 or not len(gamma) == n == rows or gamma.shape[1] < arms:
        raise InputError(f"The {name} pseudo-outcomes have shape {gamma.shape}; needed: {n} path rows, {rows} sampled rows, {arms} arms.")
    _finite(f"pseudo-outcome of {name}", gamma)


def _finite(name: str, table: Floats) -> None:
    wrong = np.argwhere(~np.isfinite(table))
    if len(wrong):
        (r, c), count = wrong[0], len(wrong)
        raise InputError(f"The {name} in row {r}, column {c} is {table[r, c]}; {count} values are not finite. Drop such rows.")
