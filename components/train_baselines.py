"""gold/examples -> models/<name> of LightGBM's T-learner, the response model, and any other learner that is asked for by name.

All see the rows, the split and the labels of the network; only the validation split stops them.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from components import effect_candidates
from components.boosting import cost_boosters
from components.causal_forest import causal_forest
from components.examples_input import Examples, batches, open_examples, vocabularies
from components.export_model import SEEDS, Candidate, export, write_seed
from components.harm_knots import read_all
from components.learner_names import names_of
from components.learners import dr_learner, response, t_learner, x_learner
from promolift.errors import InputError

TRAINERS: dict[str, Callable[..., Candidate]] = {
    "lightgbm": t_learner,
    "response": response,
    "x_learner": x_learner,
    "dr_learner": dr_learner,
    "causal_forest": causal_forest,
    **effect_candidates.TRAINERS,
}
"""Name of a candidate -> what trains it: (examples, splits, cost boosters by promo, seed) -> Candidate of that name."""


def train(
    lake: str, out: str, seed: int, *, learners: str = "", seeds: int = 1, trials: int = 0, seconds: int = 600, mlflow_uri: str = ""
) -> dict[str, Any]:  # fmt: skip
    """Train and export what every run has and the `learners` (names, comma between). Returns seconds, rows and what each wrote.

    `seeds` above 1: also with the next seeds, scores only. `trials` above 0: first search the parameters, as components.search does.
    The folder of a learner that is not asked for is removed: `models/` holds one run's candidates.
    Raises InputError on an unknown name, a number that cannot be used, and examples that cannot.
    """
    start = time.perf_counter()
    names = names_of(learners)
    check_seeds(seeds)
    examples = open_examples(lake)
    vocabulary = vocabularies(examples)
    splits = {split: read_all(batches(examples, vocabulary, split)) for split in ("train", "validation")}
    _check_arms(examples, splits["train"])
    changed = _searched(lake, out, names, seed, (trials, seconds, mlflow_uri)) if trials else {}
    _forget(Path(out), names)
    summary: dict[str, Any] = {"rows": len(splits["train"]["arm"]), "device": "CPU", "parameters": changed}
    for number in range(seed, seed + seeds):
        cost = cost_boosters(examples, splits, number)
        for name in names:
            candidate = TRAINERS[name](examples, splits, cost, number, **({"changed": changed[name]} if name in changed else {}))
            if number == seed:
                summary[name] = export(candidate, examples, vocabulary, Path(out))
            else:
                write_seed(candidate, examples, vocabulary, Path(out))
            print(f"{name}: seed {number} done after {time.perf_counter() - start:.1f} s", flush=True)
    return {**summary, "seconds": round(time.perf_counter() - start, 2)}


def check_seeds(seeds: int) -> None:
    """Raises InputError when it is no number of times to train."""
    if seeds < 1:
        raise InputError(f"seeds is {seeds} but must be 1 or more: how many times each candidate is trained.")


def _check_arms(examples: Examples, rows: dict[str, Any]) -> None:
    for arm, name in enumerate(examples.card.arms):
        if not np.any(rows["arm"] == arm):
            raise InputError(f"No training row was given arm '{name}' in '{examples.path}'; its effect cannot be learnt.")


def _searched(lake: str, out: str, names: tuple[str, ...], seed: int, budget: tuple[int, int, str]) -> dict[str, dict[str, Any]]:
    from components.search import Budget, search  # noqa: PLC0415 (Optuna takes seconds; only where asked for)
    from components.search_spaces import SPACES  # noqa: PLC0415

    folder = Path(out).parent / "search"
    return {name: search(lake, folder, name, seed, Budget(*budget))["best"]["parameters"] for name in names if name in SPACES}


def _forget(out: Path, names: tuple[str, ...]) -> None:
    """Removes what an earlier training left of the learners: other candidates would be judged, other seeds counted."""
    for name in TRAINERS:
        shutil.rmtree(out / SEEDS / name, ignore_errors=True)
        if name not in names:
            shutil.rmtree(out / name, ignore_errors=True)
