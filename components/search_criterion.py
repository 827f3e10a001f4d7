"""Validation rows with logged propensities -> one number by which trials of a search are compared; the test split is never read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.boosting import Fit, Splits, fit, kind_of, outcome_of, predict
from components.examples_input import Batch, Examples, Vocabularies, batches
from components.export_model import Candidate
from promolift.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Criterion:
    """n validation rows in the table's order: outcome's `residual` [n] and the arms' `deviation` [n, K] from their probabilities."""

    batches: tuple[Batch, ...]
    residual: Floats
    deviation: Floats

    def of(self, candidate: Candidate) -> float:
        """`explained_share` of the candidate's predicted effects."""
        return explained_share(np.concatenate([candidate.score(b)[0] for b in self.batches]), self.residual, self.deviation)


def explained_share(value: Floats, residual: Floats, deviation: Floats) -> float:
    """1 - R-loss of the effects `value` [n, K] / R-loss of no effect, without unit; above 0 when the effects explain something.

    R-loss (Nie and Wager 2021) for several arms: mean of (y - m(x) - sum_a (1(arm = a) - p_a) value_a)^2. With logged propensities
    an error of m adds the same in expectation to every model. Raises InputError when every residual is 0.
    """
    none = float(np.sum(residual**2))
    if none == 0:
        raise InputError("The outcome of every validation row is what its features say: there is nothing for a search to explain.")
    return 1.0 - float(np.sum((residual - np.sum(deviation * value, axis=1)) ** 2)) / none


def criterion(examples: Examples, vocabulary: Vocabularies, splits: Splits, seed: int) -> Criterion:
    """The outcome's mean m(x) is learnt from the train split, whatever the arm."""
    outcome, rows = outcome_of(examples), splits["validation"]
    mean = fit(splits, Fit(lambda each: each["arm"] >= 0, outcome, kind_of(examples)), seed)
    given = np.eye(len(examples.card.arms))[rows["arm"]]
    kept = tuple(batches(examples, vocabulary, "validation"))
    return Criterion(kept, outcome(rows) - predict([mean], rows["features"])[:, 0], (given - rows["propensities"])[:, 1:])
