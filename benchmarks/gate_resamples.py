"""Seconds of the gate's resampling, beside the same work done by sorting anew in every half sample."""

import time
from typing import Any

import numpy as np

from promolift.uplift.bootstrap import half_samples
from promolift.uplift.ranking import rank, rate

ROWS, SHOPPERS, RESAMPLES, MODELS = 25_000, 2_500, 200, 5


def _by_sorting(score: np.ndarray, effect: np.ndarray, rows: np.ndarray) -> float:
    """QINI of one half sample from scratch: sort, cumulate, integrate."""
    order = np.argsort(-score[rows], kind="stable")
    gain = np.cumsum(effect[rows][order])
    share = np.arange(1, len(gain) + 1) / len(gain)
    return float((gain / len(gain) - share * gain[-1] / len(gain)).mean())


def measure() -> dict[str, Any]:
    """QINI and AUTOC of MODELS rankings with RESAMPLES paired half samples of shoppers; ratio to sorting anew."""
    rng = np.random.default_rng(0)
    codes, effect = rng.integers(0, SHOPPERS, ROWS), rng.normal(size=ROWS)
    scores = rng.normal(size=(MODELS, ROWS))
    samples = half_samples(codes, SHOPPERS, RESAMPLES, seed=1)
    start = time.perf_counter()
    ours = [rate(rank(score), effect, samples)["qini"] for score in scores]
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    naive = np.array([_by_sorting(scores[0], effect, rows) for rows in samples.rows()])
    anew = (time.perf_counter() - start) * MODELS
    largest = float(np.abs(naive - ours[0].draws).max())
    return {
        "seconds": round(seconds, 2),
        "sorting_anew_seconds": round(anew, 2),
        "ratio": round(anew / seconds, 1),
        "largest_difference": largest,
    }
