"""Decisions -> cross-fitted outcome models (LightGBM) -> doubly robust pseudo-outcomes of value and cost.

One pooled model with the arm as a feature per outcome and fold; logged propensities keep the estimates unbiased however poor it is.
"""

from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np

from components.examples_input import Vocabularies
from components.trial_input import Decisions, Mask, folds
from promolift.errors import InputError
from promolift.uplift.clusters import Floats, Integers
from promolift.uplift.effects import Measured
from promolift.uplift.scores import aipw

FOLDS, ROUNDS = 2, 80
PARAMETERS: dict[str, Any] = {
    "objective": "regression", "learning_rate": 0.08, "num_leaves": 15, "min_data_in_leaf": 100, "lambda_l2": 10.0, "max_bin": 127,
    "feature_fraction": 0.7, "num_threads": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1,
}  # fmt: skip


@dataclass(frozen=True)
class PseudoOutcomes:
    """Pseudo-outcomes [n, K+1] of all decisions (NaN where `wanted` was false), and each outcome model's R2 out of fold.

    `mean` [n, K+1]: the outcome model's own value of each arm, before the correction by the logged propensities.
    """

    value: Floats
    cost: Floats
    mean: Floats
    explained: dict[str, float]

    def of(self, decisions: Decisions, rows: Mask) -> Measured:
        """What the gate compares, on some rows. Raises InputError when there are none."""
        if not rows.any():
            raise InputError("No decision of the split could have been given every arm; the experiment cannot be evaluated.")
        return Measured(decisions.trial.take(rows), self.value[rows], self.cost[rows], decisions.card.arms)


def pseudo_outcomes(decisions: Decisions, vocabulary: Vocabularies, usable: Mask, wanted: Mask, seed: int) -> PseudoOutcomes:
    """Fit on `usable` rows [n], predict `wanted` rows [n] (a part of them) out of fold, and correct by the logged propensities."""
    rows = np.column_stack([decisions.numeric(), decisions.attributes(vocabulary)]).astype(np.float32)
    fold = folds(decisions, FOLDS, seed)
    trial = decisions.trial.take(wanted)
    gammas, means, explained = [], [], {}
    for name, outcome in (("value", decisions.value), ("cost", decisions.cost)):
        mu = _cross_fit(rows, decisions, outcome, (fold, usable, wanted), seed)
        gammas.append(_spread(aipw(outcome[wanted], trial, mu), wanted))
        means.append(_spread(mu, wanted))
        explained[name] = _r_squared(outcome[wanted], mu[np.arange(len(mu)), trial.arm])
    return PseudoOutcomes(gammas[0], gammas[1], means[0], explained)


def _cross_fit(rows: Any, decisions: Decisions, outcome: Floats, parts: tuple[Integers, Mask, Mask], seed: int) -> Floats:
    fold, usable, wanted = parts
    arms = decisions.trial.propensities.shape[1]
    mu = np.full((len(rows), arms), np.nan)
    for held in range(FOLDS):
        seen, asked = usable & (fold != held), wanted & (fold == held)
        if not asked.any():
            continue
        booster = _fit(rows[seen], decisions.trial.arm[seen], outcome[seen], seed)
        mu[asked] = np.column_stack([booster.predict(_with_arm(rows[asked], np.full(int(asked.sum()), a))) for a in range(arms)])
    return mu[wanted]


def _fit(rows: Any, arm: Integers, outcome: Floats, seed: int) -> Any:
    if not len(rows):
        raise InputError("An outcome model has no row to learn from; too few shoppers with usable propensities.")
    given = _with_arm(rows, arm)
    data = lightgbm.Dataset(given, outcome, categorical_feature=[given.shape[1] - 1])
    return lightgbm.train({**PARAMETERS, "seed": seed}, data, num_boost_round=ROUNDS)


def _with_arm(rows: Any, arm: Integers) -> Any:
    return np.column_stack([rows, arm.astype(np.float32)])


def _spread(gamma: Floats, wanted: Mask) -> Floats:
    table = np.full((len(wanted), gamma.shape[1]), np.nan)
    table[wanted] = gamma
    return table


def _r_squared(outcome: Floats, predicted: Floats) -> float:
    total = float(np.sum((outcome - outcome.mean()) ** 2))
    return 1.0 - float(np.sum((outcome - predicted) ** 2)) / total if total else 0.0
