"""Rows of the same shopper -> sums per shopper: the unit that was randomised is the unit of every standard error."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def encode(labels: NDArray[np.generic]) -> tuple[Integers, int]:
    """Cluster number of each row [n] in 0..C-1, in the order of the sorted labels, and C."""
    unique, codes = np.unique(labels, return_inverse=True)
    return codes.reshape(-1).astype(np.int64), len(unique)


def cluster_sums(values: Floats, codes: Integers, count: int) -> Floats:
    """Sum of `values` [n] or [n, m] by cluster: [C] or [C, m]."""
    if values.ndim == 1:
        return np.bincount(codes, weights=values, minlength=count).astype(np.float64)
    return np.column_stack([np.bincount(codes, weights=column, minlength=count) for column in values.T])


def mean_error(values: Floats, codes: Integers, count: int) -> float:
    """Cluster-robust standard error of the mean of `values` [n]; NaN with fewer than two clusters."""
    present = np.bincount(codes, minlength=count) > 0
    clusters = int(present.sum())
    if clusters < 2:
        return float("nan")
    sums = cluster_sums(values - values.mean(), codes, count)
    return float(np.sqrt(np.sum(sums**2) * clusters / (clusters - 1)) / len(values))
