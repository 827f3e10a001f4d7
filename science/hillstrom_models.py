"""Customers of Hillstrom's trial -> the score of each model for the test rows, from models fitted on the training rows only.

LightGBM runs with the settings and the early stopping of `components/boosting.py`: what the product trains is what is measured.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.boosting import Column, Fit, Splits, fit, of_arm
from promolift.uplift.clusters import Floats, Integers

VALIDATION = 0.2
"""Share of the training rows that stop a booster."""


@dataclass(frozen=True)
class Customers:
    """Women's e-mail against none: `features` [n, d] float32, `treated` [n] 0 or 1, `visited` [n] 0 or 1."""

    features: NDArray[np.float32]
    treated: Integers
    visited: Floats

    @property
    def rows(self) -> int:
        """Number of customers."""
        return len(self.treated)

    def take(self, rows: Integers) -> "Customers":
        """Some of the customers."""
        return Customers(self.features[rows], self.treated[rows], self.visited[rows])


Learner = Callable[[Customers, Customers, int], Floats]
"""Training customers, test customers and a seed -> a score [test rows], higher first."""


def _booster_mean(train: Customers, asked: Customers, chosen: Column, seed: int) -> Floats:
    """Probability of a visit [asked rows] by one booster, fitted on the `chosen` training rows."""
    held = np.random.default_rng(seed).random(train.rows) < VALIDATION
    splits: Splits = {
        name: {"features": part.features, "arm": part.treated, "visited": part.visited}
        for name, part in (("train", train.take(np.flatnonzero(~held))), ("validation", train.take(np.flatnonzero(held))))
    }
    booster = fit(splits, Fit(chosen, lambda rows: rows["visited"], "binary"), seed)
    return np.asarray(booster.predict(asked.features, num_threads=1), dtype=np.float64)


def t_learner(train: Customers, asked: Customers, seed: int) -> Floats:
    """One booster an arm; the difference of their predictions (Kuenzel et al., 2019, section 1)."""
    return _booster_mean(train, asked, of_arm(1), seed) - _booster_mean(train, asked, of_arm(0), seed)


def response(train: Customers, asked: Customers, seed: int) -> Floats:
    """Probability of a visit of customers who got the e-mail: ranks by outcome, not by uplift."""
    return _booster_mean(train, asked, of_arm(1), seed)


def linear(train: Customers, asked: Customers, seed: int) -> Floats:
    """Least squares of the visit in each arm; the difference of the two. Nothing is drawn, so `seed` is not used."""
    given, wanted = (np.column_stack([np.ones(part.rows), part.features.astype(np.float64)]) for part in (train, asked))
    means = [
        wanted @ np.linalg.lstsq(given[train.treated == arm], train.visited[train.treated == arm], rcond=None)[0] for arm in (0, 1)
    ]  # fmt: skip
    return np.asarray(means[1] - means[0], dtype=np.float64)


MODELS: Mapping[str, Learner] = {"linear, one an arm": linear, "LightGBM T-learner": t_learner, "LightGBM response": response}
"""What is compared, by the name that it has in every table."""
