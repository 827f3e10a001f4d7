"""`python -m science.ihdp --data FILE.npz`: replications of IHDP -> sqrt-PEHE and error of the ATE of each configuration.

Protocol of Shalit, Johansson and Sontag (ICML 2017): 63 % train, 27 % validation, 10 % test; "in" is train and validation together, "out"
is test; means and standard errors are over replications. Training stops by the factual validation loss; no true effect takes part in a
choice.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.effect_config import EffectConfig
from components.effect_input import Floats, Rows
from components.effect_training import Trainer
from promolift.errors import InputError

SPLIT_FILE = "ihdp_seed_x_t_split.npz"
OUTCOMES = ("yf", "ycf", "mu0", "mu1")
RATES = EffectConfig(learning_rate=3e-3, decay=0.99, epochs=300, patience=60)
CONFIGURATIONS: Mapping[str, EffectConfig] = {
    "tarnet": replace(RATES, structure="tarnet", head=(100, 100, 100), l2_trunk=0.01, l2_head=0.01),
    "dragonnet": replace(RATES, structure="dragonnet", head=(100, 100), l2_trunk=0.02, l2_head=0.02),
}
"""Widths, activation and batch as published (CFR code; Shi et al. 2019); rate, decay and l2 by the validation loss of replications 1-3."""
PUBLISHED = {
    "TARNet": {"pehe_in": 0.88, "pehe_out": 0.95, "ate_in": 0.26, "ate_out": 0.28},
    "CFR-Wass": {"pehe_in": 0.71, "pehe_out": 0.76, "ate_in": 0.25, "ate_out": 0.27},
    "Dragonnet": {"ate_in": 0.14, "ate_out": 0.21},
    "Dragonnet + targeted": {"ate_in": 0.14, "ate_out": 0.20},
}
"""Means over 1,000 replications: Shalit et al. 2017, table 1, and Shi, Blei and Veitch 2019, table 1 (which has no PEHE)."""


@dataclass(frozen=True)
class Replication:
    """One draw of the outcomes. x [n, d], arm [n] 0 or 1, outcome [n] seen, mu0 and mu1 [n] true means, test [n] rows kept apart."""

    number: int
    x: Floats
    arm: Rows
    outcome: Floats
    mu0: Floats
    mu1: Floats
    test: npt.NDArray[np.bool_]

    @property
    def effect(self) -> Floats:
        """[n] true effect."""
        return self.mu1 - self.mu0


def replications(path: Path) -> Iterator[Replication]:
    """Replications of a file in any of three layouts, one after another. Raises InputError when the file has another layout.

    `r1`, `r2`, ... [n, 30] (t, yf, ycf, mu0, mu1, x1..x25) with the official test rows in SPLIT_FILE beside it; that of fredjo and cfrnet
    (x [n, d, R], the rest [n, R]) in two files `*.train.npz` (give this) and `*.test.npz`; or one file with x and t [n, ...] the same for
    all replications, the rest [n, R]. Where no test rows are given a tenth is drawn from the replication's number.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: give an IHDP file (.npz).")
    with np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    if "r1" in found:
        yield from _tables(found, path.parent / SPLIT_FILE)
    elif {"x", "t", *OUTCOMES} <= found.keys():
        yield from _stacked(found, path)
    else:
        raise InputError(f"{path} has the arrays {sorted(found)} but needs x, t, {', '.join(OUTCOMES)}, or tables r1, r2, ...")


def _tables(found: Mapping[str, npt.NDArray[Any]], split: Path) -> Iterator[Replication]:
    if not split.exists():
        raise InputError(f"{split} does not exist but holds the official test rows: put it beside the replications.")
    with np.load(split, allow_pickle=False) as file:
        rows = file["test_idx_1_100"]
    for number in sorted(int(name[1:]) for name in found):
        table = found[f"r{number}"].astype(np.float64)
        test = _mask(len(table), rows[:, number - 1])
        yield Replication(number, table[:, 5:], table[:, 0].astype(np.int64), table[:, 1], table[:, 3], table[:, 4], test)


def _stacked(found: Mapping[str, npt.NDArray[Any]], path: Path) -> Iterator[Replication]:
    other: dict[str, npt.NDArray[Any]] = {}
    apart = path.with_name(path.name.replace(".train.npz", ".test.npz"))
    if apart != path:
        with np.load(apart, allow_pickle=False) as file:
            other = {name: file[name] for name in ("x", "t", *OUTCOMES)}
    official = found.get("test_idx_1_100", np.zeros((0, 0), np.int64))
    for column in range(found["yf"].shape[1]):
        parts = [_columns(found, column)] + ([_columns(other, column)] if other else [])
        x, t, yf, mu0, mu1 = (np.concatenate(values) for values in zip(*parts, strict=True))
        first = len(found["x"])
        drawn = np.random.default_rng(column + 1).permutation(len(x))[: len(x) // 10]
        rows = np.arange(first, len(x)) if other else official[:, column] if column < official.shape[1] else drawn
        yield Replication(column + 1, x, t.astype(np.int64), yf, mu0, mu1, _mask(len(x), rows))


def _columns(arrays: Mapping[str, npt.NDArray[Any]], column: int) -> list[Floats]:
    """x, t, yf, mu0, mu1 of one replication; x and t may be the same for all."""
    x, t = arrays["x"], arrays["t"]
    own = [x[..., column] if x.ndim == 3 else x, t[:, column] if t.ndim == 2 else t]
    return [np.asarray(v, np.float64) for v in (*own, arrays["yf"][:, column], arrays["mu0"][:, column], arrays["mu1"][:, column])]


def _mask(rows: int, chosen: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(rows, bool)
    mask[chosen.astype(np.int64)] = True
    return mask


def errors(predicted: Floats, true: Floats) -> tuple[float, float]:
    """sqrt-PEHE and absolute error of the mean effect, in the outcome's unit. predicted, true [n]."""
    return float(np.sqrt(np.mean((predicted - true) ** 2))), float(abs(predicted.mean() - true.mean()))


def judged(trainer: Trainer, replication: Replication, seeds: Sequence[int]) -> dict[str, float]:
    """Errors in and out of sample and the validation loss (in squared outcome units), each the mean over seeds."""
    seen = ~replication.test
    found: list[dict[str, float]] = []
    for seed in seeds:
        model = trainer.fit(replication.x[seen], replication.arm[seen], replication.outcome[seen], seed)
        effect = model.effects(replication.x)[:, 0]
        row = {"validation": min(model.history) * model.scaling.unit**2, "epochs": float(len(model.history))}
        for place, rows in (("in", seen), ("out", replication.test)):
            row[f"pehe_{place}"], row[f"ate_{place}"] = errors(effect[rows], replication.effect[rows])
        found.append(row)
    return {name: float(np.mean([row[name] for row in found])) for name in found[0]}


def measure(
    path: Path, seeds: Sequence[int] = (1, 2, 3), configurations: Mapping[str, EffectConfig] = CONFIGURATIONS, limit: int = 1_000
) -> dict[str, Any]:
    """Every configuration on the first `limit` replications: mean, standard error and median over replications of each error.

    `reference`: the same errors of the mean difference of the arms and of a linear model per arm, so that the scale of these
    replications is seen. `published`: figures over 1,000 replications. Raises InputError as `replications` does.
    """
    data = [r for r in replications(path) if r.number <= limit]
    if not data or not seeds:
        raise InputError(f"{len(data)} replications and {len(seeds)} seeds were chosen but at least one of each is needed.")
    found: dict[str, Any] = {"replications": len(data), "seeds": list(seeds), "published": PUBLISHED, "models": {}}
    found["reference"] = {"linear_per_arm": summary([_linear(r) for r in data])}
    for name, config in configurations.items():
        start = time.perf_counter()
        trainer = Trainer(config, data[0].x.shape[1], 2)
        rows = [judged(trainer, replication, seeds) for replication in data]
        found["models"][name] = {**summary(rows), "each": rows, "seconds": round(time.perf_counter() - start, 1)}
    return found


def _linear(replication: Replication) -> dict[str, float]:
    """Least squares in each arm (OLS/LR2 of Shalit et al.)."""
    seen, x = ~replication.test, np.column_stack([np.ones(len(replication.x)), replication.x])
    means = []
    for arm in (0, 1):
        rows = seen & (replication.arm == arm)
        means.append(x @ np.linalg.lstsq(x[rows], replication.outcome[rows], rcond=None)[0])
    row: dict[str, float] = {}
    for place, rows in (("in", seen), ("out", replication.test)):
        row[f"pehe_{place}"], row[f"ate_{place}"] = errors((means[1] - means[0])[rows], replication.effect[rows])
    return row


def summary(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean, standard error and median over replications of every number."""
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    error = {name: float(v.std(ddof=1) / np.sqrt(len(v))) if len(v) > 1 else float("nan") for name, v in table.items()}
    return {name: {"mean": float(v.mean()), "se": error[name], "median": float(np.median(v))} for name, v in table.items()}


def main() -> int:
    """Print the result as JSON."""
    parser = argparse.ArgumentParser(prog="python -m science.ihdp", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="npz file of replications")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="seeds of the networks (default: 1 2 3)")
    parser.add_argument("--limit", type=int, default=1_000, help="first replications only (default: all)")
    options = parser.parse_args()
    print(json.dumps(measure(options.data, options.seeds, limit=options.limit), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
