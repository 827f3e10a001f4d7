"""The tests that a look can be made with, by name. All of them take a window for as many independent rows as it is worth (fitting.py).

A test of a column has its counts, and the number n m / (n + m) of independent rows that stands for the window. A test of all features at
once has rows: as many of both sides as that number allows, each shopper once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from scipy.spatial.distance import cdist

Floats = NDArray[np.float64]
PERMUTATIONS, JOINT_PERMUTATIONS, FEW = 1_000, 19_999, 10
"""Of a column; of all features, whose p-value is the share itself. Where fewer than FEW are as far apart, the tail is a gamma's."""
_SERIES = 24
"""Terms of the series of Anderson and Darling; the first already decides where it is used."""


@dataclass(frozen=True)
class Pair:
    """Columns of one kind. `training`, `window` [F, K]: counts; `worth` [F]: n m / (n + m) of the independent rows that they stand for.

    `distance` [F]: Cramér and von Mises' of a number, chi-square by degree of freedom of a text, in units of 1 / worth: 1 by chance.
    `freedom` [F]: degrees of freedom of a text.
    """

    training: Floats
    window: Floats
    worth: Floats
    distance: Floats
    freedom: Floats

    def columns(self, some: slice) -> "Pair":
        """Some of the columns."""
        return Pair(*(part[some] for part in (self.training, self.window, self.worth, self.distance, self.freedom)))

    @property
    def shares(self) -> tuple[Floats, Floats]:
        """Training and window [F, K] as shares of their column; zeros where there is no row."""
        one, other = (part / np.maximum(part.sum(axis=1, keepdims=True), 1e-9) for part in (self.training, self.window))
        return one, other


ColumnTest = Callable[[Pair], Floats]
"""p-values [F] of columns."""
JointTest = Callable[[Floats, Floats, int], float]
"""p-value of rows [n, N] of training and [n, N] of a window; the number is a seed."""


@dataclass(frozen=True)
class ChosenTests:
    """What a look is made with; `joint` is None where only columns are compared."""

    numbers: ColumnTest
    texts: ColumnTest
    joint: JointTest | None = None


def cramer_von_mises(pair: Pair) -> Floats:
    """Of numbers; 6 T is the distance."""
    return cvm_tail(pair.distance / 6)


def kolmogorov_smirnov(pair: Pair) -> Floats:
    """Of numbers, by the limit of the greatest gap between distributions."""
    one, other = pair.shares
    gap = np.abs(np.cumsum(other - one, axis=1)).max(axis=1)
    return np.asarray(special.kolmogorov(np.sqrt(pair.worth) * gap))


def wasserstein(pair: Pair) -> Floats:
    """Of numbers, by ranks of training: the area between distributions, by permutation of as many rows as the window is worth."""
    draw = np.random.default_rng(1)
    return np.array([_permuted_area(*column, draw) for column in zip(pair.training, pair.window, pair.worth, strict=True)])


def _permuted_area(training: Floats, window: Floats, worth: float, draw: np.random.Generator) -> float:
    if not training.any() or not window.any():
        return 1.0
    rows = max(round(2 * worth), 2)
    one, other = equal_steps(training, rows), equal_steps(window, rows)
    pooled = one + other
    permuted = draw.multivariate_hypergeometric(pooled, rows, size=PERMUTATIONS, method="marginals")

    def area(counts: NDArray[np.integer]) -> Floats:
        return np.asarray(np.abs(np.cumsum(2 * counts - pooled, axis=-1)).sum(axis=-1) / rows, dtype=np.float64)

    return permutation_p(float(area(other)), area(permuted))


def equal_steps(counts: Floats, rows: int) -> NDArray[np.int64]:
    """Counts [K] of `rows` rows that are distributed like counts [K], not all 0: their quantiles at equal steps."""
    cumulated = np.cumsum(counts) / counts.sum()
    return np.asarray(np.diff(np.floor(cumulated * rows + 0.5), prepend=0), dtype=np.int64)


def permutation_p(observed: float, permuted: Floats) -> float:
    """P of a value as great, by permutations; where fewer than FEW are, by the gamma distribution (Pearson's type III) of their moments.

    Winkler, Ridgway, Douaud, Nichols and Smith (NeuroImage 2016), section 2.2.4: a thousand permutations then tell p far below 1/1,000.
    """
    exceeding = int((permuted >= observed).sum())
    spread = float(permuted.std())
    if exceeding >= FEW or not spread:
        return (exceeding + 1) / (len(permuted) + 1)
    skew = max(float(stats.skew(permuted)), 1e-3)
    return float(stats.pearson3.sf((observed - permuted.mean()) / spread, skew))


def chi_square(pair: Pair) -> Floats:
    """Of texts, whose rare values are one."""
    return np.asarray(stats.chi2.sf(pair.distance * pair.freedom, pair.freedom))


def maximum_mean_discrepancy(training: Floats, window: Floats, seed: int) -> float:
    """Gretton et al. (JMLR 2012): unbiased MMD² with a Gaussian kernel as wide as the median distance, by permutation of the rows."""
    rows = np.concatenate([training, window])
    apart = cdist(rows, rows, "sqeuclidean")
    kernel = np.exp(-apart / max(float(np.median(apart[np.triu_indices(len(rows), 1)])), 1e-9)).astype(np.float32)
    np.fill_diagonal(kernel, 0.0)
    draw = np.random.default_rng(seed)
    observed = _discrepancies(kernel, (np.arange(len(rows)) >= len(training))[:, None])
    exceeding, left = 0, JOINT_PERMUTATIONS
    while left > 0:
        sides = np.tile(np.arange(len(rows)) >= len(training), (min(left, PERMUTATIONS), 1))
        exceeding += int((_discrepancies(kernel, draw.permuted(sides, axis=1).T) >= observed).sum())
        left -= PERMUTATIONS
        if exceeding >= 10 * FEW:  # no drift, and ever more permutations would say the same
            return (exceeding + 1) / (JOINT_PERMUTATIONS - max(left, 0) + 1)
    return (exceeding + 1) / (JOINT_PERMUTATIONS + 1)


def _discrepancies(kernel: NDArray[np.float32], sides: NDArray[np.bool_]) -> NDArray[np.float32]:
    """MMD² [B] of B ways [N, B] to take rows for the window's. `kernel` [N, N] without its diagonal."""
    window = sides.astype(np.float32)
    along = kernel @ window
    inside = (along * window).sum(axis=0)
    across = along.sum(axis=0) - inside
    outside = kernel.sum() - inside - 2 * across
    m = window.sum(axis=0)
    n = len(window) - m
    return np.asarray(inside / (m * (m - 1)) + outside / (n * (n - 1)) - 2 * across / (n * m))


def cvm_tail(statistics: Floats) -> Floats:
    """P(omega-squared > statistic) [n] of Cramér and von Mises' limit: one less Anderson and Darling's (1952) series in Bessel's K_1/4.

    scipy has it inside `cramervonmises_2samp` only, which takes samples. Where the difference would be rounding error, the leading term of
    the tail: omega-squared is the sum of Z_j² / (j pi)²; far out the first decides, times the root of 2 for all others.
    """
    near = np.clip(statistics, 0.003, 2.0)[:, None]
    j = np.arange(_SERIES)
    y = (4 * j + 1) ** 2 / (16 * near)
    terms = special.gamma(j + 0.5) / (np.pi**1.5 * special.gamma(j + 1)) * np.sqrt(4 * j + 1) * np.exp(-2 * y) * special.kve(0.25, y)
    series = np.clip(1 - terms.sum(axis=1) / np.sqrt(near[:, 0]), 0.0, 1.0)
    far = np.sqrt(2) * stats.chi2.sf(np.pi**2 * statistics, 1)
    return np.asarray(np.where(statistics > 2.0, far, np.where(statistics <= 0.003, 1.0, series)))


CALIBRATED = ChosenTests(cramer_von_mises, chi_square)
"""The default: the measure in which training's own windows were compared."""
