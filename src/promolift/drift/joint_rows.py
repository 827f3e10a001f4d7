"""Rows of training and of a window for a test of all features at once: as many of each as the window is worth, a shopper once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from promolift.drift.fitting import weekday_of
from promolift.drift.reference import Reference
from promolift.drift.sketch import Day, binned, normal_scores, visits_of
from promolift.drift.two_samples import Floats, JointTest

FEWEST, MOST = 4, 500
"""Rows of each side: a variance needs some, and a test of all pairs of rows takes their square."""


def joint_p_value(  # noqa: PLR0917 (a window, and its test)
    reference: Reference, days: Sequence[Day], day: int, place: int, worth: float, test: JointTest
) -> float:
    """P-value of the window WINDOWS[place] that ends with `day`, whose `days` have rows, as `worth` = n m / (n + m) rows."""
    draw, rows = np.random.default_rng(day), int(np.clip(round(2 * worth), FEWEST, MOST))
    shoppers, bins = np.concatenate([own.shoppers for own in days]), np.concatenate([own.bins for own in days])
    return test(_of_training(reference, place, day, rows, draw), _drawn(reference, bins, 1 / visits_of(shoppers), rows, draw), day)


def _of_training(reference: Reference, place: int, day: int, rows: int, draw: np.random.Generator) -> Floats:
    """As windows of training have them: a day's are of the same weekday."""
    weights = 1 / reference.visits[place]
    alike = weekday_of(reference.sample["day"]) == weekday_of(day)
    if place == 0 and reference.matched and alike.sum() >= FEWEST:
        weights = weights * alike
    return _drawn(reference, binned(reference, reference.sample), weights, rows, draw)


def _drawn(reference: Reference, bins: NDArray[np.intp], weights: Floats, rows: int, draw: np.random.Generator) -> Floats:
    """Normal scores [n, N] of the features of rows drawn by weight."""
    chosen = draw.choice(len(bins), min(rows, int((weights > 0).sum())), replace=False, p=weights / weights.sum())
    own = bins[chosen, : len(reference.columns.features)]
    return np.where(own < 0, reference.joint.centre, normal_scores(own))
