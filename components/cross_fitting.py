"""Rows of both splits -> mean outcome under every arm and doubly robust scores, predicted for no shopper that a model has seen."""

import zlib

import numpy as np
from numpy.typing import NDArray

from components.boosting import PARAMETERS, Fit, Parameters, Rows, Splits, fit, kind_of, outcome_of, predict, with_arm
from components.examples_input import Examples
from promolift.uplift.scores import aipw, make_trial

FOLDS = 2
VALIDATION = -1
"""Fold of the validation rows: no model learns from them, so that all models may predict them."""


def with_scores(examples: Examples, splits: Splits, seed: int, changed: Parameters = PARAMETERS) -> Splits:
    """The splits with two more columns: `mu` [n, K + 1] (outcome's unit) and `gamma` [n, K + 1], its AIPW correction.

    The outcome model has the arm as a feature, one model a fold. Fold k's train rows are predicted by the model that learnt from the
    others, validation rows by the mean of all. `gamma` uses the logged propensities, so that its mean is right however poor `mu` is
    (Robins, Rotnitzky and Zhao 1994). Raises InputError when outcomes or propensities cannot be used.
    """
    arms = len(examples.card.arms)
    folded = {name: {**rows, "fold": _folds(rows, name, seed)} for name, rows in splits.items()}
    models = [_model(examples, folded, fold, seed, changed) for fold in range(FOLDS)]
    found = {}
    for name, rows in folded.items():
        by_model = np.stack([_means(model, rows["features"], arms) for model in models])
        mu = by_model.mean(axis=0) if name == "validation" else by_model[rows["fold"], np.arange(len(rows["arm"]))]
        trial = make_trial(rows["arm"], rows["propensities"], rows["shopper_id"].astype(str))
        found[name] = {**rows, "mu": mu, "gamma": aipw(outcome_of(examples)(rows), trial, mu)}
    return found


def _folds(rows: Rows, split: str, seed: int) -> NDArray[np.int64]:
    """By hash of the shopper, whichever other rows there are."""
    if split == "validation":
        return np.full(len(rows["arm"]), VALIDATION)
    names, codes = np.unique(rows["shopper_id"].astype(str), return_inverse=True)
    fold = np.array([zlib.crc32(f"cross-fit-{seed}:{name}".encode()) % FOLDS for name in names], dtype=np.int64)
    return fold[codes]


def _model(examples: Examples, splits: Splits, fold: int, seed: int, changed: Parameters) -> object:
    """Learns from all folds but `fold`."""
    wanted = Fit(
        lambda rows: rows["fold"] != fold, outcome_of(examples), kind_of(examples),
        lambda rows: with_arm(rows["features"], rows["arm"]),
    )  # fmt: skip
    return fit(splits, wanted, seed, changed)


def _means(model: object, rows: NDArray[np.float32], arms: int) -> NDArray[np.float64]:
    return np.concatenate([predict([model], with_arm(rows, np.full(len(rows), arm))) for arm in range(arms)], axis=1)
