"""Name of a candidate -> what a search may change of it, and how one trial of it is trained and judged."""

import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from components.boosting import PARAMETERS, Parameters, Rows, Splits, cost_boosters
from components.examples_input import Examples, Vocabularies, batches, vocabularies
from components.harm_knots import read_all
from components.learners import dr_learner, t_learner, x_learner
from components.search_criterion import Criterion, criterion
from components.train_uplift import Training, candidate_of, prepare_device
from components.uplift_model import NetConfig, NetSpec

Report = Callable[[float], None]
"""Takes the criterion after each step of a trial; raises to end a trial that is worse than the others were."""
QUARTERS = 4


@dataclass(frozen=True)
class Range:
    """Whole numbers when both ends are; `log`: drawn by ratio."""

    least: float
    most: float
    log: bool = False


BOOSTING = {
    "learning_rate": Range(0.02, 0.2, True), "num_leaves": Range(4, 32), "max_depth": Range(2, 6),
    "min_data_in_leaf": Range(20, 1000, True), "lambda_l2": Range(1.0, 200.0, True),
    "feature_fraction": Range(0.3, 1.0), "bagging_fraction": Range(0.5, 1.0),
}  # fmt: skip
NETWORK = {
    "user_width": Range(8, 64, True), "promo_width": Range(16, 128, True), "embedding": Range(2, 8), "low_rank": Range(4, 32, True),
    "learning_rate": Range(1e-3, 2e-2, True), "weight_decay": Range(1e-4, 1e-1, True), "batch_rows": Range(256, 4096, True),
}  # fmt: skip
BOOSTED = {"lightgbm": t_learner, "x_learner": x_learner, "dr_learner": dr_learner}
SPACES: dict[str, dict[str, Range]] = {"uplift_net": NETWORK, **dict.fromkeys(BOOSTED, BOOSTING)}
NETWORK_START = {
    "user_width": NetConfig().user_units[0], "promo_width": NetConfig().promo_units[0],
    **{name: getattr(NetConfig(), name) for name in NETWORK if not name.endswith("_width")},
}  # fmt: skip
"""The settings used without a search: the first trial, so that a search never ends below them on the validation split."""


def start_of(name: str) -> dict[str, Any]:
    """What the candidate uses without a search."""
    return NETWORK_START if name == "uplift_net" else {key: PARAMETERS[key] for key in BOOSTING}


def net_config(found: Parameters) -> NetConfig:
    """NETWORK's parameters as a configuration; the promo tower's second layer is half as wide as its first."""
    rest = {name: value for name, value in found.items() if not name.endswith("_width")}
    return replace(NetConfig(), user_units=(found["user_width"],), promo_units=(found["promo_width"], found["promo_width"] // 2), **rest)


class Trials:
    """Trains and judges trials of one candidate on one version of the examples."""

    def __init__(self, name: str, examples: Examples, seed: int) -> None:
        self.name, self.examples, self.seed = name, examples, seed
        self.vocabulary: Vocabularies = vocabularies(examples)
        self.splits: Splits = {split: read_all(batches(examples, self.vocabulary, split)) for split in ("train", "validation")}
        self.criterion: Criterion = criterion(examples, self.vocabulary, self.splits, seed)

    def run(self, parameters: Parameters, report: Report) -> float:
        """The criterion of a candidate trained with `parameters`; `report` is called before the end, and may end it by raising."""
        return self._network(parameters, report) if self.name == "uplift_net" else self._boosted(parameters, report)

    def _boosted(self, parameters: Parameters, report: Report) -> float:
        """A quarter, half and all of the train shoppers; rows in a leaf and penalty shrink with the rows, so that steps rank alike."""
        cost: list[Any] = []
        for quarters in (1, 2, QUARTERS):
            share = quarters / QUARTERS
            part = {**self.splits, "train": first_quarters(self.splits["train"], quarters)}
            cost = cost or cost_boosters(self.examples, part, self.seed)  # not judged, so once is enough
            smaller = {
                "min_data_in_leaf": max(1, round(share * parameters["min_data_in_leaf"])),
                "lambda_l2": share * parameters["lambda_l2"],
            }
            learner = BOOSTED[self.name]
            found = self.criterion.of(learner(self.examples, part, cost, self.seed, {**parameters, **smaller}))
            if quarters < QUARTERS:
                report(found)
        return found

    def _network(self, parameters: Parameters, report: Report) -> float:
        """One report an epoch; the best epoch's weights are judged at the end."""
        prepare_device(self.seed)
        spec = NetSpec(self.examples.card, tuple(len(values) for values in self.vocabulary.values()), net_config(parameters))
        with tempfile.TemporaryDirectory() as folder:
            training = Training(self.examples, self.vocabulary, spec, self.seed, Path(folder) / "checkpoints")
            candidate = candidate_of(training.model, self.seed)
            training.run(after_epoch=lambda row: report(self.criterion.of(candidate)))
            return self.criterion.of(candidate)


def first_quarters(rows: Rows, quarters: int) -> Rows:
    """The rows of some quarters of the shoppers, the same ones in every trial; all rows for all quarters."""
    names, codes = np.unique(rows["shopper_id"].astype(str), return_inverse=True)
    quarter = np.array([zlib.crc32(f"quarter:{name}".encode()) % QUARTERS for name in names])[codes]
    return {key: values[quarter < quarters] for key, values in rows.items()}
