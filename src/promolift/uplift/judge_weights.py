"""Logged propensities and the arms given -> whether the weights of every arm average 1, as they do where the propensities are true.

A file that logs only the probability of the arm given can hold any constant there and still agree with its arm counts, since the
expected counts are then made of the arms given; E[1{arm = a} / p_a] = 1 is what such a column must obey (Horvitz and Thompson, 1952).
"""

import numpy as np

from promolift.contracts.artifacts import Check
from promolift.uplift.clusters import mean_error
from promolift.uplift.distributions import normal_tail
from promolift.uplift.scores import Trial

NAME = "propensity_weights"


def check_weights(trial: Trial, arms: tuple[str, ...], least_p: float) -> Check:
    """Two-sided test per arm with clustered errors, the smallest p-value taken times the number of arms; fails below `least_p`.

    `trial` holds rows whose propensities are all above 0. "cannot tell" where weights do not vary and nothing is left to chance.
    """
    found = []
    for index, name in enumerate(arms):
        weight = np.where(trial.arm == index, 1.0 / trial.propensities[:, index], 0.0)
        error = mean_error(weight, trial.codes, trial.shoppers)
        if error > 0:
            found.append((2.0 * normal_tail(abs(float(weight.mean()) - 1.0) / error), name, float(weight.mean())))
    if not found:
        return Check(NAME, "cannot tell", None, least_p, "The propensities leave nothing to chance: no experiment.")
    p, name, mean = min(found)
    p = min(1.0, p * len(arms))
    fits = p >= least_p
    verb = "fit" if fits else "do not fit"
    detail = (
        f"The propensities {verb} the arms given: weights 1 / propensity of arm '{name}' average {mean:.3g} per row for 1 (p = {p:.3g})."
    )
    return Check(NAME, "passed" if fits else "failed", p, least_p, detail)
