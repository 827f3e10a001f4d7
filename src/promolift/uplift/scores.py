"""Outcomes, arms and logged propensities of a randomised trial -> pseudo-outcomes whose conditional mean is the arm's mean outcome.

Robins, Rotnitzky and Zhao (1994) for several arms: gamma[i, a] = mu[i, a] + 1{arm_i = a} (y_i - mu[i, a]) / p[i, a].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promolift.errors import InputError
from promolift.uplift.clusters import Floats, Integers, encode

SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Trial:
    """Who was given what. `arm` [n] indexes the columns of `propensities` [n, K+1]; column 0 is no_promo.

    `codes` [n]: the row's shopper as a number in 0..`shoppers`-1.
    """

    arm: Integers
    propensities: Floats
    codes: Integers
    shoppers: int

    @property
    def rows(self) -> int:
        """Number of decisions."""
        return len(self.arm)

    @property
    def given(self) -> Floats:
        """Logged probability of the arm given, [n]."""
        return self.propensities[np.arange(self.rows), self.arm]

    def take(self, rows: NDArray[np.bool_]) -> "Trial":
        """The trial of some rows; shoppers are numbered afresh."""
        codes, shoppers = encode(self.codes[rows])
        return Trial(self.arm[rows], self.propensities[rows], codes, shoppers)


@dataclass(frozen=True)
class Overlap:
    """How much the logged propensities can answer: least probability of any arm, and effective sample size of each arm."""

    least: float
    effective: tuple[float, ...]
    counts: tuple[int, ...]


def make_trial(arm: Sequence[int] | Integers, propensities: Floats, shoppers: NDArray[np.generic]) -> Trial:
    """A trial from arm index [n], logged propensities [n, K+1] and shopper labels [n]; checks shapes, not propensities.

    `faults` finds unsound propensities without raising, so that the gate can say so. Raises InputError on empty or unequal inputs.
    """
    given, table = np.asarray(arm, dtype=np.int64), np.asarray(propensities, dtype=np.float64)
    if table.ndim != 2 or not len(given) == len(table) == len(shoppers) or not len(given):
        raise InputError(
            f"A trial needs equally many arms, propensity rows and shoppers: got {len(given)}, {table.shape}, {len(shoppers)}."
        )
    outside = np.flatnonzero((given < 0) | (given >= table.shape[1]))
    if len(outside):
        raise InputError(f"Row {outside[0]} was given arm {given[outside[0]]}, but its propensities name {table.shape[1]} arms.")
    codes, count = encode(np.asarray(shoppers))
    return Trial(given, table, codes, count)


def faults(trial: Trial) -> tuple[NDArray[np.bool_], str]:
    """Rows [n] whose propensities cannot be used, and a sentence about the first one (empty when there is none)."""
    p, given = trial.propensities, trial.given
    unfit = ~np.all(np.isfinite(p), axis=1) | np.any(p < 0, axis=1) | np.any(p > 1, axis=1)
    total = p.sum(axis=1)
    reasons = (
        (unfit, "propensities {row} that are not probabilities"),
        (~unfit & (np.abs(total - 1) > SUM_TOLERANCE), "propensities that sum to {total:.6g} instead of 1"),
        (~unfit & (given <= 0), "propensity 0 for the arm it was given"),
    )
    bad = np.logical_or.reduce([mask | ~np.isfinite(total) for mask, _ in reasons])
    if not bad.any():
        return bad, ""
    row = int(np.flatnonzero(bad)[0])
    text = next(text for mask, text in reasons if mask[row]).format(row=np.round(p[row], 6).tolist(), total=total[row])
    return bad, f"{int(bad.sum())} of {trial.rows} decisions have unusable propensities; row {row} has {text}."


def ipw(outcome: Floats, trial: Trial) -> Floats:
    """Inverse-propensity pseudo-outcomes [n, K+1] of `outcome` [n]. Raises InputError as `aipw` does."""
    return aipw(outcome, trial, np.zeros_like(trial.propensities))


def aipw(outcome: Floats, trial: Trial, mu: Floats) -> Floats:
    """Augmented inverse-propensity pseudo-outcomes [n, K+1]: unbiased with logged propensities, whatever `mu` [n, K+1] is.

    `mu` must be fitted on other shoppers (cross-fitting). Raises InputError when propensities, outcomes or `mu` cannot be used.
    """
    bad, sentence = faults(trial)
    if bad.any():
        raise InputError(sentence + " Log the probability of every arm where the decision is made, and drop rows without it.")
    _finite("outcome", outcome, (trial.rows,))
    _finite("mu", mu, trial.propensities.shape)
    gamma = np.array(mu, dtype=np.float64)
    rows = np.arange(trial.rows)
    gamma[rows, trial.arm] += (outcome - gamma[rows, trial.arm]) / trial.given
    return gamma


def no_overlap(trial: Trial) -> NDArray[np.bool_]:
    """Rows [n] where some arm could not have been given (a holdout, for one): they cannot inform that arm's effect."""
    return np.asarray(np.any(trial.propensities <= 0, axis=1), dtype=np.bool_)


def overlap(trial: Trial) -> Overlap:
    """Least propensity and Kish's effective sample size (sum w)^2 / sum w^2 per arm with w = 1 / propensity."""
    arms = range(trial.propensities.shape[1])
    weights = [1.0 / trial.given[trial.arm == arm] for arm in arms]
    effective = tuple(float(w.sum() ** 2 / np.sum(w**2)) if len(w) else 0.0 for w in weights)
    return Overlap(float(trial.propensities.min()), effective, tuple(len(w) for w in weights))


def _finite(name: str, values: Floats, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise InputError(f"The {name} has shape {values.shape}; the trial needs {shape}.")
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        raise InputError(f"The {name} of row {wrong[0][0]} is {values[tuple(wrong[0])]}; {len(wrong)} values are not finite.")
