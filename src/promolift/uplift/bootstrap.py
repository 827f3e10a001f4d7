"""Shoppers of a trial -> paired half samples, and estimates that carry their draws so that any two of them can be compared.

Half of the shoppers without replacement: the spread of the draws is the standard error with no rescaling, since
(sigma^2 / (n/2)) (1 - 1/2) = sigma^2 / n (as in grf). Every model is measured on the same half samples.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promolift.errors import InputError
from promolift.uplift.clusters import Floats, Integers, cluster_sums
from promolift.uplift.distributions import normal_quantile

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A number on the full sample and on each half sample, [resamples]."""

    value: float
    draws: Floats

    @property
    def error(self) -> float:
        """Standard error: the spread of the draws."""
        return float(self.draws.std(ddof=1))

    def bound(self, level: float) -> float:
        """Normal bound at `level`: 0.05 is the one-sided 95 % lower bound, 0.95 the upper one."""
        return self.value + normal_quantile(level) * self.error

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Two-sided interval."""
        return self.bound((1 - confidence) / 2), self.bound((1 + confidence) / 2)

    def minus(self, other: "Estimate") -> "Estimate":
        """The paired difference, resample by resample."""
        return Estimate(self.value - other.value, self.draws - other.draws)

    def times(self, factor: float) -> "Estimate":
        """The same number in another unit."""
        return Estimate(self.value * factor, self.draws * factor)


@dataclass(frozen=True)
class HalfSamples:
    """Which shoppers are in each half sample: `chosen` [resamples, shoppers]; `codes` [n] is the shopper of each row."""

    chosen: Mask
    codes: Integers

    def rows(self) -> Iterator[Mask]:
        """The row mask [n] of each half sample in turn."""
        for shoppers in self.chosen:
            yield shoppers[self.codes]

    def sums(self, values: Floats) -> tuple[Floats, Floats]:
        """Sum of `values` [n, m] over all rows [m] and over each half sample [resamples, m], by matrix product of shopper sums."""
        totals = cluster_sums(values, self.codes, self.chosen.shape[1])
        return totals.sum(axis=0), self.chosen.astype(np.float64) @ totals

    def means(self, values: Floats) -> list[Estimate]:
        """Mean of each column of `values` [n, m] per row, with the draws that belong together."""
        full, halves = self.sums(np.column_stack([values, np.ones(len(values))]))
        draws = halves[:, :-1] / halves[:, -1:]
        return [Estimate(float(v), d) for v, d in zip(full[:-1] / full[-1], draws.T, strict=True)]

    def mean(self, values: Floats) -> Estimate:
        """Mean of `values` [n] per row."""
        return self.means(values[:, None])[0]

    def take(self, rows: Mask) -> "HalfSamples":
        """The same half samples seen by some rows only, so that results stay paired."""
        return HalfSamples(self.chosen, self.codes[rows])


def half_samples(codes: Integers, shoppers: int, resamples: int, seed: int) -> HalfSamples:
    """Draw `resamples` halves of `shoppers` shoppers; the same seed draws the same halves.

    Raises InputError with fewer than 4 shoppers or 2 resamples.
    """
    if shoppers < 4 or resamples < 2:
        raise InputError(f"A half-sample bootstrap needs 4 shoppers and 2 resamples or more; got {shoppers} and {resamples}.")
    generator = np.random.default_rng(seed)
    chosen = np.zeros((resamples, shoppers), dtype=bool)
    for row in chosen:
        row[generator.permutation(shoppers)[: shoppers // 2]] = True
    return HalfSamples(chosen, codes)
