"""Our tests of a look against alibi-detect's, which run in an environment of their own (`make alibi`; BSL 1.1, optional)."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.detector.tests_by_name import chosen_tests
from tests.promolift.drift_world import independent_rows, p_values

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "build/alibi/bin/python"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PYTHON.exists(), reason="`make alibi` has not been run")]
Samples = dict[str, Any]
NAMES = ["f0", "f1", "f2", "f3", "text"]


def theirs(folder: Path, pairs: list[Samples], numbers: str = "alibi:cvm", joint: str = "none") -> list[dict[str, Any]]:
    paths = [folder / f"{place}.npz" for place in range(len(pairs))]
    for path, samples in zip(paths, pairs, strict=True):
        np.savez(path, **samples)
    script = Path(__file__).with_name("alibi_p_values.py")
    command = [str(PYTHON), "-W", "ignore", str(script), numbers, "alibi:chi2", joint, *map(str, paths)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.strip().splitlines() if line.startswith("{")]


def ours(samples: Samples, numbers: str = "cvm") -> dict[str, float]:
    sides = (independent_rows(samples[n], samples[f"{n}_codes"], first) for n, first in (("reference", 0), ("rows", 10_000)))
    return p_values(*sides, chosen_tests(numbers))


def pair(seed: int) -> Samples:
    """Four columns, ever further apart, and a text."""
    rng = np.random.default_rng(seed)
    return {
        "reference": rng.normal(size=(3_000, 4)), "rows": rng.normal((0.0, 0.03, 0.08, 0.15), size=(700, 4)),
        "reference_codes": rng.choice(5, 3_000, p=[0.4, 0.3, 0.2, 0.05, 0.05]),
        "rows_codes": rng.choice(5, 700, p=[0.35, 0.3, 0.2, 0.1, 0.05]),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["cvm", "ks"])
def test_of_independent_rows_both_say_the_same_of_a_column(tmp_path: Path, name: str):
    """0.04 apart at most: theirs are of as many rows as the window is worth, exact where these are few; ours are limits."""
    pairs = [pair(seed) for seed in range(3)]
    for samples, found in zip(pairs, theirs(tmp_path, pairs, f"alibi:{name}"), strict=True):
        expected = ours(samples, name)
        assert [found["columns"][column] for column in NAMES] == pytest.approx([expected[column] for column in NAMES], abs=0.04)


def test_both_say_the_same_of_all_columns_at_once(tmp_path: Path):
    """MMD with the same kernel: only the permutations differ, 500 of theirs."""
    pairs = [pair(1), {**pair(2), "rows": pair(3)["rows"] * 1.15}]
    joint = chosen_tests(joint="mmd").joint
    assert joint is not None
    for samples, found in zip(pairs, theirs(tmp_path, pairs, joint="alibi:mmd"), strict=True):
        expected = joint(samples["reference"][:500], samples["rows"][:500], 1)
        assert found["joint"] == pytest.approx(expected, abs=4 * np.sqrt(max(expected, 0.01) / 500))


def test_rows_of_returning_shoppers_are_drift_to_it_by_itself_and_not_to_a_look(tmp_path: Path):
    """Twelve rows of each of 60 shoppers: their number is no evidence, and a look knows what they are worth, by whatever test."""
    rng, pairs = np.random.default_rng(3), list[Samples]()
    for _ in range(12):
        reference, rows = rng.normal(size=(2_000, 1)), np.repeat(rng.normal(size=(60, 1)), 12, axis=0)
        codes = {"reference_codes": np.arange(2_000) % 2, "rows_codes": np.arange(720) % 2}
        pairs.append({"reference": reference, "rows": rows, **codes})
    false = sum(found["columns"]["f0"] < 0.05 for found in theirs(tmp_path, pairs))
    known = 0
    for samples in pairs:
        training, window = (independent_rows(samples[n], samples[f"{n}_codes"], first) for n, first in (("reference", 0), ("rows", 10_000)))
        window["shopper"] = 10_000 + np.arange(720) // 12
        known += p_values(training, window, chosen_tests("ks"))["f0"] < 0.05
    assert false >= 8 and known <= 2
