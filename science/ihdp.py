"""Replications of IHDP -> sqrt-PEHE and error of the ATE of each configuration.

Protocol of Shalit, Johansson and Sontag (ICML 2017) but that 9 % of the rows validate, not 27 %: a tenth is test ("out"), the rest "in";
means and standard errors are over replications. Training stops by the factual validation loss. The true effects of the first TRIED
replications were looked at while settings were chosen; the figures are of later ones.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.effect_config import EffectConfig
from components.effect_input import Floats, Rows
from components.effect_training import Trainer
from promolift.errors import InputError
from science.ihdp_replications import COUNT, draw
from science.monte_carlo import over_cores

SPLIT_FILE = "ihdp_seed_x_t_split.npz"
OFFICIAL = "test_idx_1_100"
OUTCOMES = ("yf", "ycf", "mu0", "mu1")
Errors = Mapping[str, float]
"""sqrt-PEHE and error of the ATE, in and out of sample, of one replication."""
SEEDS = (1, 2)
REPLICATIONS = 120
"""Of 1,000, so that all steps fit into half an hour (docs/science.md has their seconds); the published figures are of all."""
TRIED = 210
"""The first replications, which had a part in the settings: none of them is measured where the file has others."""
RATES = EffectConfig(
    learning_rate=3e-3, decay=0.995, epochs=600, patience=100, validation_share=0.1, averaged=0.9, l2_trunk=0.003, l2_head=0.003
)  # fmt: skip
CONFIGURATIONS: Mapping[str, EffectConfig] = {
    "tarnet": replace(RATES, structure="tarnet", head=(100, 100, 100)),
    "dragonnet": replace(RATES, structure="dragonnet", head=(100, 100, 100), propensity_weight=0.1, targeted_weight=0.1),
}
"""Trunk, activation and batch as published (CFR code; Shi et al. 2019). Rate, decay, l2 and, for dragonnet, heads and weights have the
least validation loss of those tried; averaging, of weights and of two networks, and how many rows validate were judged by true effects.
"""
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

    `x_cont`, `x_bin`, `t` and the official test rows of the first 100: all 1,000 are drawn again (ihdp_replications). Or
    `r1`, `r2`, ... [n, 30] (t, yf, ycf, mu0, mu1, x1..x25) with the official test rows in SPLIT_FILE beside it; that of fredjo and cfrnet
    (x [n, d, R], the rest [n, R]) in two files `*.train.npz` (give this) and `*.test.npz`; or one file with x and t [n, ...] the same for
    all replications, the rest [n, R]. Where no test rows are given a tenth is drawn from the replication's number.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: give an IHDP file (.npz).")
    with np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    if {"x_cont", "x_bin", "t", OFFICIAL} <= found.keys():
        yield from _drawn(found)
    elif "r1" in found:
        yield from _tables(found, path.parent / SPLIT_FILE)
    elif {"x", "t", *OUTCOMES} <= found.keys():
        yield from _stacked(found, path)
    else:
        raise InputError(
            f"{path} has the arrays {sorted(found)} but needs x, t, {', '.join(OUTCOMES)}; or r1, r2, ...; or x_cont, x_bin, {OFFICIAL}."
        )


def _drawn(found: Mapping[str, npt.NDArray[Any]]) -> Iterator[Replication]:
    x, arm = np.hstack([found["x_cont"], found["x_bin"]]).astype(np.float64), found["t"].astype(np.int64)
    for number in range(1, COUNT + 1):
        mu0, mu1, y0, y1 = draw(x, arm, number)
        yield Replication(number, x, arm, np.where(arm == 1, y1, y0), mu0, mu1, _mask(len(x), _test_rows(found, number, len(x))))


def _test_rows(found: Mapping[str, npt.NDArray[Any]], number: int, rows: int) -> npt.NDArray[Any]:
    """The official ones where the file has them; else a tenth, drawn from the replication's number."""
    official = found.get(OFFICIAL, np.zeros((0, 0), np.int64))
    return official[:, number - 1] if number <= official.shape[1] else np.random.default_rng(number).permutation(rows)[: rows // 10]


def _tables(found: Mapping[str, npt.NDArray[Any]], split: Path) -> Iterator[Replication]:
    if not split.exists():
        raise InputError(f"{split} does not exist but holds the official test rows: put it beside the replications.")
    with np.load(split, allow_pickle=False) as file:
        rows = file[OFFICIAL]
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
    for column in range(found["yf"].shape[1]):
        parts = [_columns(found, column)] + ([_columns(other, column)] if other else [])
        x, t, yf, mu0, mu1 = (np.concatenate(values) for values in zip(*parts, strict=True))
        rows = np.arange(len(found["x"]), len(x)) if other else _test_rows(found, column + 1, len(x))
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


@cache
def _trainer(config: EffectConfig, columns: int) -> Trainer:
    """One a process: its graph is built once."""
    return Trainer(config, columns, 2)


def judged(config: EffectConfig, seeds: Sequence[int], replication: Replication) -> dict[str, float]:
    """Errors in and out of sample of the mean of the networks' effects: a network a seed, each with its own start and validation rows.

    `alone_in`, `alone_out`: sqrt-PEHE of one network, the mean over the seeds; `spread_in`, `spread_out`: its standard deviation, NaN
    for one seed. `validation` (squared outcome units) and `epochs`: means over the seeds.
    """
    trainer, seen = _trainer(config, replication.x.shape[1]), ~replication.test
    models = [trainer.fit(replication.x[seen], replication.arm[seen], replication.outcome[seen], seed) for seed in seeds]
    effects = np.array([model.effects(replication.x)[:, 0] for model in models])
    losses = [min(model.history) * model.scaling.unit**2 for model in models]
    found = {"validation": float(np.mean(losses)), "epochs": float(np.mean([len(model.history) for model in models]))}
    for place, rows in (("in", seen), ("out", replication.test)):
        true = replication.effect[rows]
        found[f"pehe_{place}"], found[f"ate_{place}"] = errors(effects.mean(axis=0)[rows], true)
        alone = [errors(effect[rows], true)[0] for effect in effects]
        found[f"alone_{place}"] = float(np.mean(alone))
        found[f"spread_{place}"] = float(np.std(alone, ddof=1)) if len(alone) > 1 else math.nan
    return found


def measure(
    path: Path, seeds: Sequence[int] = SEEDS, configurations: Mapping[str, EffectConfig] = CONFIGURATIONS, limit: int = REPLICATIONS
) -> dict[str, Any]:
    """Every configuration on the `limit` replications after the tried ones: mean, standard error and median of each error.

    `seeds`: of the networks whose mean is the effect.

    `reference`: the same errors of a linear model per arm, on the same replications and (`all`) on every one of the file, so that the
    scale of these replications is seen; by it each model's `all` is estimated (`over_all`). `published`: figures over 1,000 replications.
    Raises InputError as `replications` does.
    """
    every = [(r, _linear(r)) for r in replications(path)]
    chosen = ([pair for pair in every if pair[0].number > TRIED] or every)[:limit]
    data, same, linear = [r for r, _ in chosen], [row for _, row in chosen], [row for _, row in every]
    if not data or not seeds:
        raise InputError(f"{len(data)} replications and {len(seeds)} seeds were chosen but at least one of each is needed.")
    found: dict[str, Any] = {"numbers": [data[0].number, data[-1].number], "replications": len(data), "of": len(every), "tried": TRIED}
    found |= {"seeds": list(seeds), "published": PUBLISHED, "models": {}}
    found["reference"] = {"linear_per_arm": {**summary(same), "all": summary(linear)}}
    for name, config in configurations.items():
        start = time.perf_counter()
        rows = list(over_cores(partial(judged, config, tuple(seeds)), data, f"IHDP, {name}", "replications"))
        seconds = round(time.perf_counter() - start, 1)
        found["models"][name] = {**summary(rows), "all": over_all(rows, same, linear), "each": rows, "seconds": seconds}
    return found


def over_all(rows: Sequence[Errors], same: Sequence[Errors], every: Sequence[Errors]) -> dict[str, dict[str, float]]:
    """Mean and standard error over all replications of errors measured on some of them (`rows`), by the linear regression estimator.

    `same` and `every`: the linear model's errors on those and on all replications (Cochran, Sampling Techniques, 1977, 7.3).
    """
    found = {}
    for name in every[0]:
        ours, theirs, whole = (np.array([row[name] for row in part]) for part in (rows, same, every))
        centred = theirs - theirs.mean()
        slope = float(centred @ ours / (centred @ centred)) if centred.any() else 0.0
        left = ours - ours.mean() - slope * centred
        error = math.sqrt(float(left @ left) / (len(left) - 2) / len(left)) if len(left) > 2 else math.nan
        found[name] = {"mean": float(ours.mean() + slope * (whole.mean() - theirs.mean())), "se": error}
    return found


def _linear(replication: Replication) -> dict[str, float]:
    """Least squares in each arm (OLS/LR2 of Shalit et al.); there is one such model only, so it is `alone`."""
    seen, x = ~replication.test, np.column_stack([np.ones(len(replication.x)), replication.x])
    means = []
    for arm in (0, 1):
        rows = seen & (replication.arm == arm)
        means.append(x @ np.linalg.lstsq(x[rows], replication.outcome[rows], rcond=None)[0])
    row: dict[str, float] = {}
    for place, rows in (("in", seen), ("out", replication.test)):
        row[f"pehe_{place}"], row[f"ate_{place}"] = errors((means[1] - means[0])[rows], replication.effect[rows])
        row[f"alone_{place}"] = row[f"pehe_{place}"]
    return row


def summary(rows: Sequence[Errors]) -> dict[str, dict[str, float]]:
    """Mean, standard error and median over replications of every number."""
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    error = {name: float(v.std(ddof=1) / np.sqrt(len(v))) if len(v) > 1 else float("nan") for name, v in table.items()}
    return {name: {"mean": float(v.mean()), "se": error[name], "median": float(np.median(v))} for name, v in table.items()}
