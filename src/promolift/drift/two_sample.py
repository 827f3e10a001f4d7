"""Two-sample tests: are these rows from the distribution of those? Statistic, p-value, and the size of the difference.

Every statistic here but MMD's grows in proportion to the number of rows when the distributions differ, so one design effect (Kish 1965)
divides it: `deff` says how many of our rows are worth one independent row. deff 1 is the textbook's test.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Floats = NDArray[np.floating]
TestName = Literal["cramer_von_mises", "kolmogorov_smirnov", "chi_square", "mmd"]
_SERIES = 24
_SMALLEST = 1e-300


@dataclass(frozen=True)
class Tested:
    """`statistic` as the test's literature has it, before it is divided by the design effect; `p_value` after."""

    test: TestName
    statistic: float
    p_value: float


def cramer_von_mises(reference: Floats, rows: Floats, deff: float = 1.0) -> Tested:
    """Anderson's two-sample criterion T (1962) with midranks for ties, standardised to its limit's moments as scipy does.

    Samples [m], [n] without NaN, none empty.
    """
    m, n = len(reference), len(rows)
    ranks = stats.rankdata(np.concatenate([reference, rows]))
    own, others = np.sort(ranks[:m]), np.sort(ranks[m:])
    u = m * np.sum((own - np.arange(1, m + 1)) ** 2) + n * np.sum((others - np.arange(1, n + 1)) ** 2)
    total, product = m + n, m * n
    statistic = float(u / (product * total) - (4 * product - 1) / (6 * total))
    mean = (1 + 1 / total) / 6
    variance = (total + 1) * (4 * product * total - 3 * (m**2 + n**2) - 2 * product) / (45 * total**2 * 4 * product)
    standard = 1 / 6 + (statistic / deff - mean) / np.sqrt(45 * variance)
    return Tested("cramer_von_mises", statistic, cvm_tail(standard))


def cvm_tail(statistic: float) -> float:
    """P(omega-squared > statistic) in the limit: one less the series of Anderson and Darling (1952) in Bessel functions K_1/4.

    Where that difference would be rounding error, the leading term of its tail: omega-squared is the sum of squared normals over j² pi²,
    and far out the first of them decides: sqrt(2) P(Z² > pi² statistic).
    """
    if statistic <= 0.003:
        return 1.0
    if statistic > 2.0:
        first = np.prod([1 / np.sqrt(1 - 1 / j**2) for j in range(2, 4_000)])
        return max(_SMALLEST, float(first * stats.chi2.sf(np.pi**2 * statistic, 1)))
    j = np.arange(_SERIES)
    y = (4 * j + 1) ** 2 / (16 * statistic)
    terms = special.gamma(j + 0.5) / (np.pi**1.5 * special.gamma(j + 1)) * np.sqrt(4 * j + 1) * np.exp(-2 * y) * special.kve(0.25, y)
    return float(min(1.0, max(0.0, 1 - terms.sum() / np.sqrt(statistic))))


def kolmogorov_smirnov(reference: Floats, rows: Floats, deff: float = 1.0) -> Tested:
    """Largest distance of the two distribution functions; p by Kolmogorov's limit with Stephens' (1970) correction for few rows."""
    m, n = len(reference), len(rows)
    own, others = np.sort(reference), np.sort(rows)
    at = np.concatenate([own, others])
    gaps = np.searchsorted(own, at, side="right") / m - np.searchsorted(others, at, side="right") / n
    distance = float(np.max(np.abs(gaps)))
    root = np.sqrt(m * n / (m + n) / deff)
    return Tested("kolmogorov_smirnov", distance, max(_SMALLEST, float(special.kolmogorov((root + 0.12 + 0.11 / root) * distance))))


def chi_square(reference: NDArray[np.integer], rows: NDArray[np.integer], deff: float = 1.0) -> Tested:
    """Pearson's test of homogeneity on counts by category [k], [k]; one that neither has is left out (deff: Rao and Scott 1981)."""
    table = np.array([reference, rows], dtype=np.float64)[:, (reference + rows) > 0]
    if table.shape[1] < 2 or not table.sum(axis=1).all():
        return Tested("chi_square", 0.0, 1.0)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    return Tested("chi_square", statistic, max(_SMALLEST, float(stats.chi2.sf(statistic / deff, table.shape[1] - 1))))


def mmd(reference: Floats, rows: Floats, seed: int, permutations: int = 200) -> Tested:
    """Squared maximum mean discrepancy [m, F], [n, F], Gaussian kernel with the median distance (Gretton et al. 2012), p by permutation.

    Unbiased estimate; p is (1 + permutations at least as far) / (1 + permutations), so its smallest value says how many were made.
    """
    m, joined = len(reference), np.concatenate([reference, rows]).astype(np.float32)  # thousands of rows: a product is what it costs
    distances = _squared_distances(joined)
    kernel = np.exp(-distances / (2 * max(float(np.median(distances[distances > 0])) if (distances > 0).any() else 1.0, 1e-12)))
    np.fill_diagonal(kernel, 0.0)
    draw = np.random.default_rng(seed)
    signs = np.zeros((permutations + 1, len(joined)), np.float32)
    signs[0, :m] = 1.0
    for row in signs[1:]:
        row[draw.permutation(len(joined))[:m]] = 1.0
    found = _discrepancies(kernel, signs, m)
    return Tested("mmd", float(found[0]), float((1 + np.sum(found[1:] >= found[0])) / (1 + permutations)))


def _squared_distances(rows: Floats) -> Floats:
    squares = np.einsum("ij,ij->i", rows, rows)
    return np.asarray(np.maximum(squares[:, None] + squares[None, :] - 2 * rows @ rows.T, 0.0))


def _discrepancies(kernel: Floats, own: Floats, m: int) -> Floats:
    """Of each division [k, m + n] into the first sample (1) and the second (0): all of them by two products with the kernel."""
    n = kernel.shape[0] - m
    inside = np.einsum("ki,ki->k", own @ kernel, own)
    sums = own @ kernel.sum(axis=1)
    across = sums - inside
    outside = kernel.sum() - inside - 2 * across
    return np.asarray(inside / (m * (m - 1)) + outside / (n * (n - 1)) - 2 * across / (m * n))


def wasserstein(reference: Floats, rows: Floats) -> float:
    """First Wasserstein distance, in the unit of the values: how far mass has to be moved on average."""
    return float(stats.wasserstein_distance(reference, rows))
