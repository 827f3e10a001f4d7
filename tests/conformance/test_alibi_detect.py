"""The p-values of a look against alibi-detect's, which run in an environment of their own (`make alibi`; BSL 1.1, tests only)."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.promolift.drift_world import independent_rows, p_values

PYTHON = Path(__file__).parents[2] / "build/alibi/bin/python"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PYTHON.exists(), reason="`make alibi` has not been run")]
Samples = dict[str, Any]


def theirs(folder: Path, pairs: list[Samples]) -> list[dict[str, Any]]:
    paths = [folder / f"{place}.npz" for place in range(len(pairs))]
    for path, samples in zip(paths, pairs, strict=True):
        np.savez(path, **samples)
    command = [str(PYTHON), "-W", "ignore", str(Path(__file__).with_name("alibi_p_values.py")), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.strip().splitlines()[-len(pairs) :]]


def pair(seed: int) -> Samples:
    """Four columns, ever further apart, and a text."""
    rng = np.random.default_rng(seed)
    return {
        "reference": rng.normal(size=(3_000, 4)), "rows": rng.normal((0.0, 0.03, 0.08, 0.15), size=(700, 4)),
        "reference_codes": rng.choice(5, 3_000, p=[0.4, 0.3, 0.2, 0.05, 0.05]),
        "rows_codes": rng.choice(5, 700, p=[0.35, 0.3, 0.2, 0.1, 0.05]),
    }  # fmt: skip


def test_of_independent_rows_both_say_the_same(tmp_path: Path):
    """0.04 apart at most: ours are of 64 bins and of limits, alibi-detect's of every value, and exact where rows are few."""
    pairs = [pair(seed) for seed in range(4)]
    for samples, found in zip(pairs, theirs(tmp_path, pairs), strict=True):
        training, window = (independent_rows(samples[n], samples[f"{n}_codes"], first) for n, first in (("reference", 0), ("rows", 10_000)))
        ours = p_values(training, window)
        assert [ours[f"f{place}"] for place in range(4)] == pytest.approx(found["numbers"], abs=0.04)
        assert ours["text"] == pytest.approx(found["text"], abs=0.04)


def test_rows_of_returning_shoppers_are_drift_to_it_and_not_to_us(tmp_path: Path):
    """Twelve rows of each of 60 shoppers: their number is no evidence."""
    rng, pairs = np.random.default_rng(3), list[Samples]()
    for _ in range(12):
        reference, rows = rng.normal(size=(2_000, 1)), np.repeat(rng.normal(size=(60, 1)), 12, axis=0)
        codes = {"reference_codes": np.arange(2_000) % 2, "rows_codes": np.arange(720) % 2}
        pairs.append({"reference": reference, "rows": rows, **codes})
    false = sum(found["numbers"][0] < 0.05 for found in theirs(tmp_path, pairs))
    ours = 0
    for samples in pairs:
        training, window = (independent_rows(samples[n], samples[f"{n}_codes"], first) for n, first in (("reference", 0), ("rows", 10_000)))
        window["shopper"] = 10_000 + np.arange(720) // 12
        ours += p_values(training, window)["f0"] < 0.05
    assert false >= 8 and ours <= 2
