"""Values of rows with their shoppers -> standard errors, p-values and power, where a half-sample bootstrap is too large or too slow.

Poisson weights for rows that no one machine holds, influence functions for a live view: both agree with `bootstrap.half_samples`.
"""

import math
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from promolift.errors import InputError
from promolift.uplift.bootstrap import Estimate
from promolift.uplift.clusters import Floats, Integers, cluster_sums, encode
from promolift.uplift.distributions import normal_quantile
from promolift.uplift.ranking import Ranking, harmonic, linear, tie_means

Words = NDArray[np.uint64]
MIN_SHOPPERS = 20
"""Fewer shoppers than this leave Poisson resamples empty, and no spread to speak of."""
SLICE = 20
"""Bits of an exact partial sum: integers below 2^20 times 2^32 weighted rows stay below 2^53, where float64 is exact."""
MOST_ROWS = 2.0**32
LARGEST = 2.0**900
CHUNK = 256


def poisson_weights(labels: NDArray[np.generic], seed: int, resamples: int) -> Floats:
    """Poisson(1) weight [n, resamples] of each shopper label [n], from nothing but (seed, resample, the label's text).

    So every machine gives a shopper the same weights. Labels are text or integers; 7 and "7" are the same shopper. Hanley and
    MacGibbon (2006), Chamandy et al. (2012). Raises InputError for labels of another kind.
    """
    hashes, codes = _hashes(labels)
    return _weights(hashes, _keys(seed, resamples))[codes]


class PoissonMeans:
    """Mean of each column over rows, and over Poisson(1) resamples of shoppers, from batches in any order on any machines.

    Sums are exact (integers in slices of 20 bits) and rounded once, so any split of the rows gives the same bytes. The spread of the
    draws is the standard error. State: (resamples + 1) x (columns + 1) numbers for each 20 bits of the values' range.
    """

    def __init__(self, columns: int, resamples: int, seed: int) -> None:
        if columns < 1 or resamples < 2:
            raise InputError(f"A Poisson bootstrap needs 1 column and 2 resamples or more; got {columns} and {resamples}.")
        self._shape = columns, resamples, seed
        self._sums: dict[int, Floats] = {}
        self._few: Words = np.empty(0, dtype=np.uint64)  # the smallest hashes: counts shoppers exactly up to MIN_SHOPPERS

    def update(self, values: Floats, shoppers: NDArray[np.generic]) -> None:
        """Add rows: `values` [n, columns] (or [n] for one column), shopper labels [n]. Raises InputError, adding nothing, on bad ones."""
        table = self._table(values, shoppers)
        hashes, codes = _hashes(shoppers)
        slices = _slices(np.column_stack([table, np.ones(len(table))]))
        per_shopper = np.column_stack([np.empty((len(hashes), 0)), *(cluster_sums(part, codes, len(hashes)) for part in slices.values())])
        _, resamples, seed = self._shape
        keys, total = _keys(seed, resamples), np.zeros((resamples + 1, per_shopper.shape[1]))
        for start in range(0, len(hashes), CHUNK):
            some = slice(start, start + CHUNK)
            total[0] += per_shopper[some].sum(axis=0)
            total[1:] += _weights(hashes[some], keys).T @ per_shopper[some]
        self._add(dict(zip(slices, np.split(total, max(1, len(slices)), axis=1), strict=False)), hashes)

    def merge(self, other: "PoissonMeans") -> "PoissonMeans":
        """The rows of both; neither is changed. Raises InputError unless columns, resamples and seed are the same."""
        if self._shape != other._shape:
            raise InputError(f"Poisson means merge only with equal (columns, resamples, seed); got {self._shape} and {other._shape}.")
        both = PoissonMeans(*self._shape)
        both._add(self._sums, self._few)
        both._add(other._sums, other._few)
        return both

    def estimate(self) -> list[Estimate]:
        """Mean of each column with its draws, in which every column sees the same resamples. Raises InputError below 20 shoppers."""
        if len(self._few) < MIN_SHOPPERS:
            raise InputError(f"A Poisson bootstrap needs {MIN_SHOPPERS} shoppers or more; got {len(self._few)}.")
        entries = zip(*(np.ldexp(part, SLICE * at).ravel().tolist() for at, part in self._sums.items()), strict=True)
        sums = np.array([math.fsum(entry) for entry in entries]).reshape(self._shape[1] + 1, -1)
        means = sums[:, :-1] / sums[:, -1:]
        return [Estimate(float(column[0]), column[1:].copy()) for column in means.T]

    def _add(self, sums: dict[int, Floats], hashes: Words) -> None:
        counts = [part[:, -1].max() for part in (sums.get(0), self._sums.get(0)) if part is not None]
        if sum(counts) > MOST_ROWS:
            raise InputError(
                f"Sums of over {MOST_ROWS:.0f} weighted rows are not exact; got {sum(counts):.0f}, use more than one PoissonMeans."
            )
        for at, part in sums.items():
            self._sums[at] = self._sums[at] + part if at in self._sums else part
        self._few = np.unique(np.concatenate([self._few, hashes]))[:MIN_SHOPPERS]

    def _table(self, values: Floats, shoppers: NDArray[np.generic]) -> Floats:
        table = np.asarray(values, dtype=np.float64)
        table = table[:, None] if table.ndim == 1 else table
        if table.shape != (len(shoppers), self._shape[0]):
            raise InputError(f"Values of {len(shoppers)} rows and {self._shape[0]} columns were expected; got shape {table.shape}.")
        usable = np.abs(table) < LARGEST
        if not usable.all():
            row, column = np.argwhere(~usable)[0]
            raise InputError(f"Value of row {row}, column {column} is {table[row, column]}; drop or repair rows that are not finite.")
        return table


@dataclass(frozen=True)
class Influence:
    """An estimate with its influence by shopper: `shares` [C], what each shopper's rows add to its error (they sum to 0).

    Two estimates on the same rows are paired by subtracting shares, as draws are. With one shopper the error is NaN.
    """

    value: float
    shares: Floats

    @property
    def error(self) -> float:
        """Cluster-robust standard error."""
        clusters, size = len(self.shares), float(np.abs(self.shares).max(initial=0.0))
        if clusters < 2:
            return float("nan")
        if size == 0.0:
            return 0.0
        return size * math.sqrt(float(np.sum((self.shares / size) ** 2)) * clusters / (clusters - 1))

    def bound(self, level: float) -> float:
        """Normal bound at `level`: 0.05 is the one-sided 95 % lower bound, 0.95 the upper one."""
        return self.value + normal_quantile(level) * self.error

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Two-sided interval."""
        return self.bound((1 - confidence) / 2), self.bound((1 + confidence) / 2)

    def minus(self, other: "Influence") -> "Influence":
        """The paired difference. Raises InputError unless both are of the same shoppers."""
        if len(self.shares) != len(other.shares):
            raise InputError(f"A paired difference needs the same shoppers; these have {len(self.shares)} and {len(other.shares)}.")
        return Influence(self.value - other.value, self.shares - other.shares)


def mean_influence(values: Floats, codes: Integers, count: int) -> Influence:
    """Mean of `values` [n] per row, with shoppers `codes` [n] in 0..`count`-1. Raises InputError on no rows or values not finite."""
    _check("mean_influence", values, codes)
    mean = float(values.mean())
    return Influence(mean, _shares(values - mean, codes, count))


def rate_influence(ranking: Ranking, effect: Floats, codes: Integers, count: int) -> dict[str, Influence]:
    """`qini` and `autoc` of `effect` [n] under the ranking, equal to `ranking.rate`, with their influence.

    Both are sum_g m_g/p_g (W(b_g) - W(a_g)): group g of equal scores has share p_g = b_g - a_g and effect sum m_g, and W' = w is
    1/2 - q or -log q - 1. Its derivative in the distribution of the rows is, for row i of group g and t_g = m_g/p_g,

        (effect_i - t_g) mean of w in g + sum_{h < last} w(b_h) (t_h - t_{h+1}) (1{g <= h} - b_h).

    The second term is the error of the estimated ranks. It holds the correction for the estimated mean, w (effect - mean effect), and
    for unequal effects also what a shift of everybody's rank does; leaving that out is right only if no effect depends on the score.
    """
    _check("rate_influence", effect, codes)
    ordered, n = effect[ranking.order], len(effect)
    starts = np.flatnonzero(np.diff(ranking.group, prepend=-1))
    sizes = np.diff(np.append(starts, n))
    means, ends = np.add.reduceat(ordered, starts) / sizes, np.cumsum(sizes)[:-1] / n
    found = {}
    for name, weights, edge in (("qini", linear(n), 0.5 - ends), ("autoc", harmonic(n), -np.log(ends) - 1.0)):
        flat = tie_means(weights, ranking.group)
        steps = -edge * np.diff(means)
        after = np.append(np.cumsum(steps[::-1])[::-1], 0.0)
        influence = flat * (ordered - means[ranking.group]) + after[ranking.group] - steps @ ends
        found[name] = Influence(float(flat @ ordered) / n, _shares(influence - influence.mean(), codes[ranking.order], count))
    return found


@dataclass(frozen=True)
class Power:
    """`rows` needed to prove the asked gain, and the relative `gain` that these rows can prove; None where the data cannot say."""

    rows: int | None
    gain: float | None


def power(error: float, base: float, rows: int, *, gain: float = 0.10, alpha: float = 0.05, chance: float = 0.80) -> Power:
    """How large a relative gain over `base` is proven at one-sided `alpha` with probability `chance` (normal approximation).

    `error`: standard error of the paired difference on `rows` rows, unit of `base`; it shrinks with the root of the rows.
    """
    reach = (normal_quantile(1 - alpha) + normal_quantile(chance)) * error
    if base == 0 or not math.isfinite(reach) or not math.isfinite(base):
        return Power(None, None)
    needed = rows * (reach / (gain * abs(base))) ** 2
    return Power(math.ceil(needed) if math.isfinite(needed) else None, reach / abs(base))


@dataclass(frozen=True)
class PValues:
    """`two_sided`: of "no difference"; `greater`: of "not more than zero", small when the difference is shown to be positive."""

    two_sided: float
    greater: float


def p_values(difference: Estimate) -> PValues:
    """P-values of a paired difference from its draws, recentred at the estimate so that they obey "no difference".

    Efron and Tibshirani (1993, chapter 16), with one added to both counts: never 0, at least 1/(resamples + 1). Raises InputError on
    draws that are not finite.
    """
    if not np.all(np.isfinite(difference.draws)) or not math.isfinite(difference.value):
        bad = int(np.count_nonzero(~np.isfinite(difference.draws)))
        raise InputError(f"A p-value needs finite draws; {bad} of {len(difference.draws)} are not, and the estimate is {difference.value}.")
    null, total = difference.draws - difference.value, len(difference.draws) + 1
    two_sided = np.count_nonzero(np.abs(null) >= abs(difference.value))
    return PValues((1 + int(two_sided)) / total, (1 + int(np.count_nonzero(null >= difference.value))) / total)


@dataclass(frozen=True)
class Leverage:
    """`share` of the mean's variance that comes from one cluster, 0 to 1, and the `row` of it that lies farthest from the mean."""

    share: float
    row: int


def leverage(values: Floats, clusters: NDArray[np.generic]) -> Leverage:
    """How much of the variance of the mean of `values` [n] is the single largest cluster's (labels [n]); near 1: one row decides.

    1 with one cluster, 0 when nothing varies. Raises InputError on no rows or values that are not finite.
    """
    _check("leverage", values, clusters)
    codes, count = encode(clusters)
    apart = values / max(float(np.abs(values).max()), np.finfo(np.float64).tiny)
    apart = apart - apart.mean()
    squares = cluster_sums(apart, codes, count) ** 2
    rows = np.flatnonzero(codes == int(np.argmax(squares)))
    row = int(rows[np.argmax(np.abs(apart[rows]))])
    total = float(squares.sum())
    return Leverage(1.0 if count < 2 else float(squares.max()) / total if total > 0 else 0.0, row)


def _shares(influence: Floats, codes: Integers, count: int) -> Floats:
    present = np.bincount(codes, minlength=count) > 0
    return np.asarray(cluster_sums(influence, codes, count)[present] / len(influence), dtype=np.float64)


def _check(caller: str, values: Floats, clusters: NDArray[np.generic]) -> None:
    if not len(values) or len(values) != len(clusters):
        raise InputError(f"{caller} needs as many clusters as values, at least one: got {len(values)} and {len(clusters)}.")
    if not np.all(np.isfinite(values)):
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InputError(f"{caller}: value of row {row} is {values[row]}; drop or repair rows that are not finite.")


def _hashes(labels: NDArray[np.generic]) -> tuple[Words, Integers]:
    """64-bit BLAKE2b of the text of each distinct label, and the number [n] of each row's label among them."""
    plain = np.asarray(labels)
    bad = [x for x in plain.tolist() if not isinstance(x, str | int)] if plain.dtype.kind not in "iuU" else []
    if bad:
        raise InputError(f"Shopper labels must be text or integers, the same on every machine; {bad[0]!r} is {type(bad[0]).__name__}.")
    unique, codes = np.unique(plain if plain.dtype.kind in "iuU" else plain.astype(np.str_), return_inverse=True)
    digests = b"".join(blake2b(str(label).encode(), digest_size=8).digest() for label in unique.tolist())
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64), codes.reshape(-1).astype(np.int64)


@cache
def _keys(seed: int, resamples: int) -> Words:
    digests = b"".join(blake2b(f"{seed}:{resample}".encode(), digest_size=8).digest() for resample in range(resamples))
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _weights(hashes: Words, keys: Words) -> Floats:
    """Inverse Poisson(1) distribution of hash and key mixed by the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    word = hashes[:, None] ^ keys
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        word = (word ^ (word >> np.uint64(shift))) * np.uint64(factor)
    return np.searchsorted(_thresholds(), word ^ (word >> np.uint64(31)), side="right").astype(np.float64)


@cache
def _thresholds() -> Words:
    """P(weight <= k) times 2^64 for k = 0..19; in decimal, since exp may differ in its last bit from machine to machine."""
    with localcontext() as context:
        context.prec = 40
        terms = [Decimal(-1).exp() / math.factorial(k) for k in range(20)]
        return np.array([int(sum(terms[: k + 1]) * 2**64) for k in range(20)], dtype=np.uint64)


def _slices(table: Floats) -> dict[int, Floats]:
    """Parts of `table` that sum to it exactly: part j holds integers below 2^20 in units of 2^(20 j). Below 2^-900 counts as 0."""
    rest = np.where(np.abs(table) < 1 / LARGEST, 0.0, table)
    at, parts = (math.frexp(float(np.abs(rest).max(initial=0.0)))[1] - 1) // SLICE, {}
    while rest.any():
        part = np.trunc(np.ldexp(rest, -SLICE * at))
        if part.any():
            parts[at] = part
        rest, at = rest - np.ldexp(part, SLICE * at), at - 1
    return parts
