"""Hillstrom's trial, women's e-mail against none, visit -> Qini in the published conventions, over splits, and which models differ.

Every split trains on 70 % and measures on 30 % of the customers, drawn within each arm. On each split all models are measured on the
same half samples; over splits their difference is tested by the corrected resampled t-test (Nadeau and Bengio, 2003), which counts
that the splits share customers.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from components.sources.hillstrom import SEGMENTS, read
from promolift.uplift.bootstrap import Estimate, HalfSamples, half_samples
from promolift.uplift.clusters import Floats, Integers
from promolift.uplift.conventions import DEFINITIONS, all_conventions
from promolift.uplift.segments import holm
from science.hillstrom_models import MODELS, Customers, Learner

TEST_SHARE = 0.3
PER_ROWS = 8_539
"""Raw areas grow with the rows they are measured on; all are stated for the test rows of the published table of raw areas."""
RAW = ("qini/radcliffe", "qini/raw-local", "qini/causalml-raw", "auuc/causalml-raw")
COMPARED = "qini/sklift"
SPLITS, RESAMPLES = 25, 200


@dataclass(frozen=True)
class Published:
    """A figure of the same trial, arms and outcome, from one of SOURCES; `spread` is the interval as printed there."""

    source: str
    id: str
    model: str
    value: float
    spread: tuple[float, float] | None


SOURCES = {
    "Chan": "github.com/rogerzchan/uplift-modeling-criteo at 300e8770, artifacts/experiments/results.csv: one 80/20 split, 8,539 test "
    "rows, 95 % intervals from 200 percentile bootstraps of them",
    "uplift-bench": "github.com/yablochnikovds/uplift-bench at a20ea60f, results/benchmark_summary.md: 70/15/15, mean of 3 seeds, "
    "CatBoost, 95 % intervals from 1,000 BCa bootstraps of some 6,400 test rows",
    "Betlei": "Betlei, Diemert and Amini (2020), arXiv 2012.09897, as quoted by others: joint relative AUUC (auuc/causalml-raw over the "
    "rows), mean of 100 splits with two standard deviations",
}
PUBLISHED = (
    Published("Chan", "qini/raw-local", "S-learner, XGBoost (their best of 30)", 30.49, (8.9, 51.4)),
    Published("Chan", "qini/raw-local", "T-learner, logistic regression", 27.38, (13.1, 47.0)),
    Published("Chan", "qini/raw-local", "T-learner, LightGBM", 20.66, None),
    Published("Chan", "qini/raw-local", "X-learner, LightGBM", 18.50, None),
    Published("Chan", "qini/raw-local", "response model, LightGBM", 13.52, None),
    Published("Chan", "qini/raw-local", "response model, logistic regression", 5.95, (-9.5, 25.3)),
    Published("uplift-bench", "qini/sklift", "causal forest (their best of 7)", 0.0666, (0.0292, 0.1038)),
    Published("uplift-bench", "qini/sklift", "T-learner", 0.0619, (0.0211, 0.1035)),
    Published("uplift-bench", "qini/sklift", "DR-learner", 0.0612, (0.0201, 0.1007)),
    Published("uplift-bench", "qini/sklift", "X-learner", 0.0591, (0.0154, 0.0975)),
    Published("uplift-bench", "qini/sklift", "class transformation", 0.0268, (-0.0156, 0.0660)),
    Published("Betlei", "auuc/causalml-raw", "AUUC-max", 0.03065 * PER_ROWS, (0.02453 * PER_ROWS, 0.03677 * PER_ROWS)),
)


def measure(
    *, path: str = "", splits: int = SPLITS, resamples: int = RESAMPLES, seed: int = 1,
    models: Mapping[str, Learner] = MODELS,
) -> dict[str, Any]:  # fmt: skip
    """All models over `splits` splits (seeds `seed`, `seed` + 1, ...), beside the published figures.

    `path`: the CSV(.gz) file, or fetched by checksum when "". Raises InputError or UnavailableError as the source does.
    """
    customers = load(path)
    found = []
    for number in range(splits):
        start = time.perf_counter()
        found.append(dict(_split(customers, models, seed + number, resamples)))
        print(f"hillstrom: split {number + 1} of {splits}, {time.perf_counter() - start:.1f} s", file=sys.stderr)
    train, test = (len(rows) for rows in split(customers.treated, seed))
    table = {name: {key: _over_splits([one[name][key] for one in found]) for key in DEFINITIONS} for name in models}
    return {
        "rows": customers.rows, "train_rows": train, "test_rows": test, "splits": splits, "seeds": [seed + i for i in range(splits)],
        "resamples": resamples, "per_rows": PER_ROWS, "models": table, "compared": COMPARED,
        "differences": _differences([{name: one[name][COMPARED] for name in models} for one in found], test / train),
        "published": [asdict(figure) for figure in PUBLISHED], "sources": SOURCES,
    }  # fmt: skip


def load(path: str) -> Customers:
    """Customers with the women's e-mail or none; features: recency, history, mens, womens, newbie, and a column for each text value."""
    table, numbers, arms = read(path)
    columns = [numbers[name] for name in ("recency", "history", "mens", "womens", "newbie")]
    for name in ("history_segment", "zip_code", "channel"):
        if name in table.column_names:
            texts = np.array(table[name].to_pylist())
            columns += [(texts == value).astype(np.float64) for value in np.unique(texts)]
    kept = np.flatnonzero(arms != SEGMENTS.index("Mens E-Mail"))
    features = np.column_stack(columns).astype(np.float32)
    return Customers(features[kept], (arms[kept] > 0).astype(np.int64), numbers["visit"][kept])


def split(treated: Integers, seed: int) -> tuple[Integers, Integers]:
    """Row numbers of the training and of the test part: 30 % of each arm is test."""
    generator = np.random.default_rng(seed)
    train, test = [], []
    for arm in (0, 1):
        rows = generator.permutation(np.flatnonzero(treated == arm))
        cut = round(TEST_SHARE * len(rows))
        test.append(rows[:cut])
        train.append(rows[cut:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(test))


def _split(customers: Customers, models: Mapping[str, Learner], seed: int, resamples: int) -> Iterator[tuple[str, dict[str, Estimate]]]:
    """Each model's numbers on one split, all on the same half samples."""
    train, test = (customers.take(rows) for rows in split(customers.treated, seed))
    samples = half_samples(np.arange(test.rows), test.rows, resamples, seed)
    for name, learn in models.items():
        yield name, numbers_of(test, learn(train, test, seed), samples)


def numbers_of(test: Customers, score: Floats, samples: HalfSamples) -> dict[str, Estimate]:
    """Every convention of `score` [n] with its half-sample draws; raw areas per PER_ROWS rows."""
    value = _scaled(test.visited, test.treated, score)
    draws = [_scaled(test.visited[rows], test.treated[rows], score[rows]) for rows in samples.rows()]
    return {key: Estimate(value[key], np.array([draw[key] for draw in draws])) for key in DEFINITIONS}


def _scaled(outcome: Floats, treated: Integers, score: Floats) -> dict[str, float]:
    found = all_conventions(outcome, treated, score)
    return {key: value * PER_ROWS / len(outcome) if key in RAW else value for key, value in found.items()}


def _over_splits(estimates: Sequence[Estimate]) -> dict[str, Any]:
    """Mean over splits, their standard deviation, the mean bootstrap error of one split, and each split with its 95 % interval."""
    values = np.array([estimate.value for estimate in estimates])
    return {
        "mean": float(values.mean()), "split_sd": _spread(values), "split_error": float(np.mean([e.error for e in estimates])),
        "first_interval": list(estimates[0].interval()),
        "each": [[estimate.value, *estimate.interval()] for estimate in estimates],
    }  # fmt: skip


def _spread(values: Floats) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def _differences(found: Sequence[Mapping[str, Estimate]], test_over_train: float) -> list[dict[str, Any]]:
    """Every pair of models: mean difference, corrected interval, Holm-adjusted p, and in how many splits the split alone tells."""
    rows = []
    for one, other in combinations(found[0], 2):
        paired = [estimates[one].minus(estimates[other]) for estimates in found]
        intervals = [estimate.interval() for estimate in paired]
        apart = sum(low > 0 or high < 0 for low, high in intervals)
        values = np.array([estimate.value for estimate in paired])
        rows.append({"of": one, "less": other, **corrected(values, test_over_train), "splits_apart": apart})
    for row, p in zip(rows, holm(np.array([row["p"] for row in rows])), strict=True):
        row["holm_p"] = float(p)
    return rows


def corrected(differences: Floats, test_over_train: float, confidence: float = 0.95) -> dict[str, Any]:
    """Mean of `differences` [J] over random splits, its error, two-sided interval and p-value of "no difference".

    The variance of the mean is (1/J + test rows / train rows) times that of one split, as the J splits share their rows; t with J - 1
    degrees of freedom (Nadeau and Bengio, 2003). With fewer than two splits nothing is known: NaN, and a p-value of 1.
    """
    mean, count = float(differences.mean()), len(differences)
    error = float(np.sqrt(1 / count + test_over_train)) * _spread(differences)
    if count < 2:
        return {"difference": mean, "error": error, "interval": [error, error], "p": 1.0}
    if error == 0:
        return {"difference": mean, "error": 0.0, "interval": [mean, mean], "p": float(mean == 0)}
    reach = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, count - 1))
    return {"difference": mean, "error": error, "interval": [mean - reach, mean + reach], "p": p}
