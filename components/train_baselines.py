"""gold/examples -> models/lightgbm (T-learner: one model an arm) and models/response (ranks by outcome, not by uplift).

Both see the rows, the split and the labels of the network; only the validation split stops them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from components.examples_input import Batch, Examples, batches, open_examples, vocabularies
from components.export_model import Candidate, Scores, export
from components.harm_knots import features, objective_outcome, read_all
from components.tree_export import forest_of, link, positive, walk, wide_row, with_arms
from promolift.errors import InputError

Rows = dict[str, NDArray[Any]]
Splits = dict[str, Rows]
Column = Callable[[Rows], NDArray[Any]]
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


def train(lake: str, out: str, seed: int) -> dict[str, Any]:
    """Train and export both. Returns seconds, rows and what each wrote. Raises InputError on examples that cannot be used."""
    start = time.perf_counter()
    examples = open_examples(Path(lake))
    vocabulary = vocabularies(examples)
    splits = {split: read_all(batches(examples, vocabulary, split)) for split in ("train", "validation")}
    _check_arms(examples, splits["train"])
    cost = [fit(splits, Fit(of_arm(arm), _cost), seed) for arm in range(1, len(examples.card.arms))]
    summary: dict[str, Any] = {"rows": len(splits["train"]["arm"]), "device": "CPU"}
    for build in (t_learner, response):
        candidate = build(examples, splits, cost, seed)
        summary[candidate.name] = export(candidate, examples, vocabulary, Path(out))
        print(f"{candidate.name}: exported after {time.perf_counter() - start:.1f} s", flush=True)
    return {**summary, "seconds": round(time.perf_counter() - start, 2)}


def _check_arms(examples: Examples, rows: Rows) -> None:
    for arm, name in enumerate(examples.card.arms):
        if not np.any(rows["arm"] == arm):
            raise InputError(f"No training row was given arm '{name}' in '{examples.path}'; its effect cannot be learnt.")


def of_arm(arm: int) -> Column:
    """Chooses the rows that were given one arm."""
    return lambda rows: rows["arm"] == arm


def _cost(rows: Rows) -> NDArray[Any]:
    return rows["labels"][:, 2].astype(np.float64)


def fit(splits: Splits, wanted: Fit, seed: int) -> Any:
    """One booster on the chosen train rows, cut at its best round on the chosen validation rows (on all, where none was chosen)."""
    data = []
    for rows in (splits["train"], splits["validation"]):
        mask = wanted.chosen(rows) if wanted.chosen(rows).any() else np.ones(len(rows["arm"]), bool)
        data.append(lightgbm.Dataset(wanted.features(rows)[mask], wanted.target(rows)[mask], free_raw_data=False))
    stop = lightgbm.early_stopping(PATIENCE, verbose=False)
    parameters = {**PARAMETERS, "objective": wanted.objective, "seed": seed}
    booster = lightgbm.train(parameters, data[0], ROUNDS, valid_sets=[data[1]], callbacks=[stop])
    return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))


def _kind(examples: Examples) -> str:
    return "regression" if examples.card.objective == "profit" else "binary"


def _predict(boosters: Sequence[Any], rows: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.stack([np.asarray(b.predict(rows, num_threads=1), dtype=np.float64) for b in boosters], axis=1)


def t_learner(examples: Examples, splits: Splits, cost: list[Any], seed: int) -> Candidate:
    """Outcome of each arm by its own booster; value is the difference to no_promo's."""
    kind, arms = _kind(examples), range(len(examples.card.arms))
    outcome = [fit(splits, Fit(of_arm(a), lambda rows: objective_outcome(examples, rows["labels"]), kind), seed) for a in arms]
    forest = forest_of([*outcome, *cost])

    def score(batch: Batch) -> Scores:
        found = features(batch)
        mean = _predict(outcome, found)
        return mean[:, 1:] - mean[:, :1], np.maximum(_predict(cost, found), 0)

    def serve(numeric: Any, attributes: Any) -> dict[str, Any]:
        sums = walk(forest, wide_row(numeric, attributes))
        mean = link(sums[:, : len(arms)], kind)
        return {"value": mean[:, 1:] - mean[:, :1], "cost": positive(sums[:, len(arms) :])}

    return Candidate("lightgbm", serve, score, None, seed)


def response(examples: Examples, splits: Splits, cost: list[Any], seed: int) -> Candidate:
    """One booster of the outcome of treated shoppers with the arm as a feature; value is that outcome, nothing subtracted."""
    kind, arms = _kind(examples), np.arange(1, len(examples.card.arms))
    wanted = Fit(
        lambda rows: rows["arm"] > 0, lambda rows: objective_outcome(examples, rows["labels"]), kind,
        lambda rows: _joined(rows["features"], rows["arm"]),
    )  # fmt: skip
    outcome = fit(splits, wanted, seed)
    outcome_forest, cost_forest = forest_of([outcome]), forest_of(cost)

    def score(batch: Batch) -> Scores:
        found = features(batch)
        value = [_predict([outcome], _joined(found, np.full(len(found), arm))) for arm in arms]
        return np.concatenate(value, axis=1), np.maximum(_predict(cost, found), 0)

    def serve(numeric: Any, attributes: Any) -> dict[str, Any]:
        row = wide_row(numeric, attributes)
        value = link(walk(outcome_forest, with_arms(row, arms)), kind)
        return {"value": value[None, :, 0], "cost": positive(walk(cost_forest, row))}

    return Candidate("response", serve, score, None, seed)


def _joined(rows: NDArray[np.float32], arm: NDArray[Any]) -> NDArray[np.float32]:
    return np.concatenate([rows, arm.astype(np.float32)[:, None]], axis=1)
