"""Our two-sample tests against alibi-detect's, which run in an environment of their own (`make alibi`; BSL 1.1, tests only)."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promolift.drift.two_sample import chi_square, cramer_von_mises, kolmogorov_smirnov

PYTHON = Path(__file__).parents[2] / "build/alibi/bin/python"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PYTHON.exists(), reason="`make alibi` has not been run")]
Samples = dict[str, Any]


def theirs(folder: Path, pairs: list[Samples]) -> list[dict[str, list[float]]]:
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


def test_the_same_tests_give_the_same_p_values(tmp_path: Path):
    """0.02 apart at most: alibi-detect takes exact distributions where rows are few, ours are the limits."""
    pairs = [pair(seed) for seed in range(4)]
    for samples, found in zip(pairs, theirs(tmp_path, pairs), strict=True):
        columns = list(zip(samples["reference"].T, samples["rows"].T, strict=True))
        counts = [np.bincount(samples[name], minlength=5) for name in ("reference_codes", "rows_codes")]
        ours = {
            "kolmogorov_smirnov": [kolmogorov_smirnov(a, b).p_value for a, b in columns],
            "cramer_von_mises": [cramer_von_mises(a, b).p_value for a, b in columns],
            "chi_square": [chi_square(*counts).p_value],
        }
        for name, values in ours.items():
            assert found[name] == pytest.approx(values, abs=0.02), name
        assert found["tabular"] == pytest.approx([*ours["kolmogorov_smirnov"], *ours["chi_square"]], abs=0.02)


def test_rows_of_returning_shoppers_are_drift_to_it_and_not_to_ours_by_their_design_effect(tmp_path: Path):
    """Twelve rows of each of 60 shoppers: their number is no evidence; deff 12 is what a cluster of 12 costs."""
    rng, pairs = np.random.default_rng(3), list[Samples]()
    for _ in range(12):
        reference, rows = rng.normal(size=(2_000, 1)), np.repeat(rng.normal(size=(60, 1)), 12, axis=0)
        codes = {"reference_codes": np.arange(2_000) % 2, "rows_codes": np.arange(720) % 2}
        pairs.append({"reference": reference, "rows": rows, **codes})
    false = sum(found["kolmogorov_smirnov"][0] < 0.05 for found in theirs(tmp_path, pairs))
    ours = sum(cramer_von_mises(p["reference"][:, 0], p["rows"][:, 0], deff=12.0).p_value < 0.05 for p in pairs)
    assert false >= 8 and ours <= 4
