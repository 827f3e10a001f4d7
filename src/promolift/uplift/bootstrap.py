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
CELLS = 4_000_000
"""Cells of the resamples-by-shoppers matrix that are held as numbers at once: 32 MB."""
PERMUTED = 2**16
"""Up to so many shoppers a half is the head of a permutation, which keeps the draws of earlier reports; above, that is too slow."""


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
class Bits:
    """A matrix of truth values [rows, columns], one bit a cell: 1,000 halves of a million shoppers take 125 MB, not 1 GB."""

    packed: NDArray[np.uint8]
    columns: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.packed), self.columns

    def __len__(self) -> int:
        return len(self.packed)

    def __iter__(self) -> Iterator[Mask]:
        return (np.unpackbits(row, count=self.columns).view(np.bool_) for row in self.packed)

    def __getitem__(self, rows: slice) -> "Bits":
        return Bits(self.packed[rows], self.columns)

    def __array__(self, dtype: np.dtype[np.generic] | None = None, copy: bool | None = None) -> NDArray[np.generic]:
        if copy is False:
            raise ValueError("The cells of Bits lie in single bits; an array of them is always a copy.")
        whole = np.unpackbits(self.packed, axis=1, count=self.columns).view(np.bool_)
        return whole if dtype is None else whole.astype(dtype)

    def sum(self, axis: int) -> Integers:
        """Cells that are true in each row (axis 1) or column (axis 0)."""
        return np.asarray(np.asarray(self).sum(axis=axis), dtype=np.int64)


@dataclass(frozen=True)
class HalfSamples:
    """Which shoppers are in each half sample: `chosen` [resamples, shoppers]; `codes` [n] is the shopper of each row."""

    chosen: Bits
    codes: Integers

    def rows(self) -> Iterator[Mask]:
        """The row mask [n] of each half sample in turn.

        Eight at once: one byte for each shopper holds its bit in eight half samples, so rows look their shopper up an eighth as often.
        """
        for start in range(0, len(self.chosen), 8):
            block = self.chosen[start : start + 8]
            together = np.zeros(self.chosen.columns, dtype=np.uint8)
            for bit, shoppers in enumerate(block):
                together |= shoppers.view(np.uint8) << bit
            looked_up = together.take(self.codes)
            for bit in range(len(block)):
                yield (looked_up & (1 << bit)) != 0

    def sums(self, values: Floats) -> tuple[Floats, Floats]:
        """Sum of `values` [n, m] over all rows [m] and over each half sample [resamples, m], by matrix product of shopper sums."""
        resamples, shoppers = self.chosen.shape
        totals = cluster_sums(values, self.codes, shoppers)
        step = max(1, CELLS // shoppers)
        parts = [np.asarray(self.chosen[i : i + step], dtype=np.float64) @ totals for i in range(0, resamples, step)]
        return totals.sum(axis=0), np.concatenate(parts)

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
    packed = np.empty((resamples, -(-shoppers // 8)), dtype=np.uint8)
    for row in packed:
        row[:] = np.packbits(_half(generator, shoppers))
    return HalfSamples(Bits(packed, shoppers), codes)


def _half(generator: np.random.Generator, shoppers: int) -> Mask:
    """A uniformly drawn half. Of many: a coin for each shopper, then shoppers drawn evenly are turned until the number is right.

    Neither step looks at who a shopper is, so all halves are equally likely; a permutation of a million takes 20 times as long.
    """
    if shoppers <= PERMUTED:
        chosen = np.zeros(shoppers, dtype=np.bool_)
        chosen[generator.permutation(shoppers)[: shoppers // 2]] = True
        return chosen
    coins = generator.integers(0, 256, -(-shoppers // 8), dtype=np.uint8)
    chosen = np.unpackbits(coins, count=shoppers).view(np.bool_)
    while surplus := int(np.count_nonzero(chosen)) - shoppers // 2:
        places = np.unique(generator.integers(0, shoppers, abs(surplus)))
        turned = places[chosen[places] == (surplus > 0)]
        chosen[turned] = surplus < 0
    return chosen
