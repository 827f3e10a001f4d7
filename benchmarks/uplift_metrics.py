"""Two models on a million rows -> seconds of QINI and AUTOC with paired half samples, beside scikit-uplift and causalml.

Ours is the whole of it, in a process of its own so that the peak memory is ours. Of theirs, the scoring of a few half samples is timed
and multiplied by resamples and models; drawing the halves and picking their rows is not counted against them. Ratios are of processor
seconds, so that other work on the machine does not move them (all three use one thread); seconds by the clock stand beside ours.
"""

import multiprocessing
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from promolift.uplift.bootstrap import half_samples
from promolift.uplift.ranking import rank, rate

MODELS, CALLS = 2, 3
EFFECT = 0.1


def _rows(rows: int) -> dict[str, Any]:
    """A trial with half of the rows treated, an effect that the first of two continuous scores knows better, and IPW effects."""
    rng = np.random.default_rng(0)
    lift = EFFECT * rng.uniform(size=rows)
    treated = rng.integers(0, 2, rows)
    outcome = (rng.uniform(size=rows) < 0.1 + treated * lift).astype(np.float64)
    scores = [lift + spread * rng.normal(size=rows) for spread in (0.05, 0.1)]
    return {"outcome": outcome, "treated": treated, "effect": 2.0 * outcome * (2 * treated - 1), "scores": scores}


def _ours(rows: int, shoppers: int, resamples: int) -> dict[str, float]:
    """Processor seconds of drawing, ranking and the paired intervals of both metrics; peak memory of this process in GiB."""
    data = _rows(rows)
    codes = np.arange(rows) if shoppers == rows else np.random.default_rng(1).integers(0, shoppers, rows)
    start, clock = time.process_time(), time.perf_counter()
    samples = half_samples(codes, shoppers, resamples, seed=1)
    drawn = time.process_time()
    one, other = (rate(rank(score), data["effect"], samples) for score in data["scores"])
    intervals = [one[name].minus(other[name]).interval() for name in ("qini", "autoc")]
    seconds = {"seconds": time.process_time() - start, "drawing_seconds": drawn - start, "clock_seconds": time.perf_counter() - clock}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return {**seconds, "peak_gib": peak, "qini_difference_low": intervals[0][0], "autoc_difference_low": intervals[1][0]}


def _alone(rows: int, shoppers: int, resamples: int) -> dict[str, float]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_ours, rows, shoppers, resamples).result()


def _median(calls: list[Callable[[], Any]]) -> float:
    seconds = []
    for call in calls:
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def _scikit_uplift(halves: list[dict[str, Any]]) -> float:
    """Processor seconds of `qini_auc_score` and `uplift_auc_score` for one model on one half sample."""
    from sklift.metrics import qini_auc_score, uplift_auc_score  # noqa: PLC0415

    def scores(half: dict[str, Any]) -> list[float]:
        return [score(half["outcome"], half["score"], half["treated"]) for score in (qini_auc_score, uplift_auc_score)]

    return _median([partial(scores, half) for half in halves])


def _causalml(halves: list[dict[str, Any]]) -> dict[str, float]:
    """Processor seconds for one model on one half sample: `rate_score` on effects, twice, or `qini_score` and `auuc_score` on outcomes."""
    import pandas as pd  # noqa: PLC0415
    from causalml.metrics import auuc_score, qini_score, rate_score  # noqa: PLC0415

    def rates(frame: pd.DataFrame) -> list[Any]:
        return [rate_score(frame, weighting=weighting) for weighting in ("qini", "autoc")]

    def areas(frame: pd.DataFrame) -> list[Any]:
        return [qini_score(frame), auuc_score(frame)]

    outcomes = [pd.DataFrame({"y": h["outcome"], "w": h["treated"], "model": h["score"]}) for h in halves]
    effects = [pd.DataFrame({"tau": h["effect"], "model": h["score"]}) for h in halves]
    return {
        "rate": _median([partial(rates, frame) for frame in effects]),
        "qini_auuc": _median([partial(areas, frame) for frame in outcomes]),
    }


def _halves(rows: int) -> list[dict[str, Any]]:
    data, rng = _rows(rows), np.random.default_rng(2)
    found = []
    for _ in range(CALLS):
        kept = rng.permutation(rows)[: rows // 2]
        found.append({name: data[name][kept] for name in ("outcome", "treated", "effect")} | {"score": data["scores"][0][kept]})
    return found


def measure(rows: int = 1_000_000, resamples: int = 1_000) -> dict[str, Any]:
    """Ours with one row per shopper and with ten; theirs by the call. Ratios are to the faster of causalml's two ways."""
    ours = {"one_row_a_shopper": _alone(rows, rows, resamples), "ten_rows_a_shopper": _alone(rows, rows // 10, resamples)}
    halves = _halves(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both packages call deprecated functions of others, at every call
        calls = {"scikit_uplift": _scikit_uplift(halves)} | {f"causalml_{k}": v for k, v in _causalml(halves).items()}
    theirs = {name: seconds * resamples * MODELS for name, seconds in calls.items()}
    slowest = max(run["seconds"] for run in ours.values())
    return {
        "rows": rows,
        "resamples": resamples,
        "models": MODELS,
        "ours": {name: {key: round(value, 4) for key, value in run.items()} for name, run in ours.items()},
        "call_seconds": {name: round(seconds, 3) for name, seconds in calls.items()},
        "their_seconds": {name: round(seconds) for name, seconds in theirs.items()},
        "ratio_scikit_uplift": round(theirs["scikit_uplift"] / slowest, 1),
        "ratio_causalml": round(min(theirs["causalml_rate"], theirs["causalml_qini_auuc"]) / slowest, 1),
        "peak_gib": round(max(run["peak_gib"] for run in ours.values()), 2),
    }
