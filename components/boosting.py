"""Rows of the train and validation splits -> LightGBM boosters, one a target; only the validation split stops them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from components.examples_input import Examples
from components.harm_knots import objective_outcome

Rows = dict[str, NDArray[Any]]
Splits = dict[str, Rows]
Column = Callable[[Rows], NDArray[Any]]
Parameters = Mapping[str, Any]
ROUNDS, PATIENCE = 200, 20
# one thread: two that wait for each other took five times as long on a machine with other work
PARAMETERS: dict[str, Any] = {
    "learning_rate": 0.05, "num_leaves": 12, "max_depth": 4, "min_data_in_leaf": 200, "lambda_l2": 20.0, "feature_fraction": 0.6,
    "bagging_fraction": 0.8, "bagging_freq": 1, "max_bin": 127, "num_threads": 1, "deterministic": True, "force_row_wise": True,
    "use_missing": False, "verbosity": -1,
}  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """What one booster learns: `target` from the `features` of the `chosen` rows (a mask)."""

    chosen: Column
    target: Column
    objective: str = "regression"
    features: Column = lambda rows: rows["features"]


def fit(splits: Splits, wanted: Fit, seed: int, changed: Parameters = PARAMETERS) -> Any:
    """One booster on the chosen train rows, cut at its best round on the chosen validation rows (on all, where none was chosen).

    `changed`: values instead of those in PARAMETERS.
    """
    data = []
    for rows in (splits["train"], splits["validation"]):
        mask = wanted.chosen(rows) if wanted.chosen(rows).any() else np.ones(len(rows["arm"]), bool)
        data.append(lightgbm.Dataset(wanted.features(rows)[mask], wanted.target(rows)[mask], free_raw_data=False))
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    parameters = {**PARAMETERS, **changed, "objective": wanted.objective, "seed": seed}
    booster = lightgbm.train(parameters, data[0], ROUNDS, valid_sets=[data[1]], callbacks=[stop])
    return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))


def predict(boosters: Sequence[Any], rows: NDArray[Any]) -> NDArray[np.float64]:
    """[n, F] -> [n, boosters], each in the unit of its target."""
    return np.stack([np.asarray(b.predict(rows, num_threads=1), dtype=np.float64) for b in boosters], axis=1)


def of_arm(arm: int) -> Column:
    """Chooses the rows that were given one arm."""
    return lambda rows: rows["arm"] == arm


def outcome_of(examples: Examples) -> Column:
    """What the policy maximises, [n]: margin less cost in cents, or the visit."""
    return lambda rows: objective_outcome(examples, rows["labels"])


def cost_of(rows: Rows) -> NDArray[np.float64]:
    """Promo cost in cents, [n]."""
    return rows["labels"][:, 2].astype(np.float64)


def cost_boosters(examples: Examples, splits: Splits, seed: int) -> list[Any]:
    """Each promo's cost in cents by a booster of the rows that were given it."""
    return [fit(splits, Fit(of_arm(arm), cost_of), seed) for arm in range(1, len(examples.card.arms))]


def kind_of(examples: Examples) -> str:
    """LightGBM's objective for the outcome."""
    return "regression" if examples.card.objective == "profit" else "binary"


def with_arm(rows: NDArray[Any], arm: NDArray[Any]) -> NDArray[np.float32]:
    """[n, F] and [n] -> [n, F + 1] with the arm's number last."""
    return np.concatenate([rows, arm.astype(np.float32)[:, None]], axis=1)
