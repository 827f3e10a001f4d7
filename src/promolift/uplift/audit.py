"""A trial -> whether it may be judged at all: logged propensities complete, arm counts and weights in agreement with them.

Counts alone are not enough. A file that logs only the probability of the arm given can hold any constant there and still agree with its
arm counts, since the expected counts are then made of the arms given; the weights 1 / p of such a column do not average 1.
"""

from dataclasses import dataclass

import numpy as np

from promolift.uplift.clusters import Floats, mean_error
from promolift.uplift.distributions import chi_square_tail, normal_tail
from promolift.uplift.scores import Trial, faults


@dataclass(frozen=True)
class Audit:
    """`sound`: share of decisions with usable propensities, `fault` a sentence about the first that has none.

    `counts` and `expected`: decisions per arm as given and as the propensities say, over sound rows; `p_value` of their
    chi-square test (None when the propensities leave nothing to chance). `odd_arm`: the arm whose weights 1{given} / propensity, over
    the sound rows where it was possible, are the least likely to have mean 1, `odd_mean` their mean and `odd_p` the p-value, taken times
    the number of arms; None when no arm's weights vary (Horvitz and Thompson, 1952: E[1{arm = a} / p_a] = 1).
    """

    rows: int
    sound: float
    fault: str
    counts: tuple[int, ...]
    expected: tuple[float, ...]
    p_value: float | None
    odd_arm: int | None = None
    odd_mean: float | None = None
    odd_p: float | None = None


def audit(trial: Trial) -> Audit:
    """Check the propensities of every decision and test for sample-ratio mismatch."""
    bad, sentence = faults(trial)
    p, arm = trial.propensities[~bad], trial.arm[~bad]
    counts = np.bincount(arm, minlength=p.shape[1])
    p_value = mismatch(counts - p.sum(axis=0), np.diag(p.sum(axis=0)) - p.T @ p)
    expected = tuple(p.sum(axis=0).tolist())
    return Audit(trial.rows, 1.0 - float(bad.mean()), sentence, tuple(counts.tolist()), expected, p_value, *_odd(trial.take(~bad)))


def _odd(sound: Trial) -> tuple[int, float, float] | tuple[()]:
    """Arm, mean weight and p-value (two-sided, errors clustered by shopper) of the arm that fits its propensities worst."""
    found = []
    for arm in range(sound.propensities.shape[1]):
        possible = sound.take(sound.propensities[:, arm] > 0)
        weight = np.where(possible.arm == arm, 1.0 / possible.propensities[:, arm], 0.0)
        error = mean_error(weight, possible.codes, possible.shoppers) if possible.rows else 0.0
        if error > 0:
            found.append((2.0 * normal_tail(abs(float(weight.mean()) - 1.0) / error), arm, float(weight.mean())))
    if not found:
        return ()
    p, arm, mean = min(found)
    return arm, mean, min(1.0, p * sound.propensities.shape[1])


def mismatch(gap: Floats, covariance: Floats) -> float | None:
    """P-value of arms given less expected [K] in the exact covariance [K, K], diag(sum p) - sum p p', of such counts.

    Pearson's test when every row has the same propensities; None when they leave nothing to chance.
    """
    degrees = int(np.linalg.matrix_rank(covariance, hermitian=True))
    if degrees == 0:
        return None
    return chi_square_tail(float(gap @ np.linalg.pinv(covariance, hermitian=True) @ gap), degrees)
