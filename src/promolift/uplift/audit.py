"""A trial -> whether it may be judged at all: logged propensities complete, arm counts in agreement with them."""

from dataclasses import dataclass

import numpy as np

from promolift.uplift.clusters import Floats
from promolift.uplift.distributions import chi_square_tail
from promolift.uplift.scores import Trial, faults


@dataclass(frozen=True)
class Audit:
    """`sound`: share of decisions with usable propensities, `fault` a sentence about the first that has none.

    `counts` and `expected`: decisions per arm as given and as the propensities say, over sound rows; `p_value` of their
    chi-square test (None when the propensities leave nothing to chance).
    """

    rows: int
    sound: float
    fault: str
    counts: tuple[int, ...]
    expected: tuple[float, ...]
    p_value: float | None


def audit(trial: Trial) -> Audit:
    """Check the propensities of every decision and test for sample-ratio mismatch."""
    bad, sentence = faults(trial)
    p, arm = trial.propensities[~bad], trial.arm[~bad]
    counts = np.bincount(arm, minlength=p.shape[1])
    p_value = _mismatch(counts - p.sum(axis=0), p)
    return Audit(trial.rows, 1.0 - float(bad.mean()), sentence, tuple(counts.tolist()), tuple(p.sum(axis=0).tolist()), p_value)


def _mismatch(gap: Floats, p: Floats) -> float | None:
    """P-value of the quadratic form of the gap in its exact covariance; Pearson's test when every row has the same propensities."""
    covariance = np.diag(p.sum(axis=0)) - p.T @ p
    degrees = int(np.linalg.matrix_rank(covariance, hermitian=True)) if len(p) else 0
    if degrees == 0:
        return None
    return chi_square_tail(float(gap @ np.linalg.pinv(covariance, hermitian=True) @ gap), degrees)
