"""Drift: how often a month without change raises an alarm, and how late a planted change is found, by the tests that are chosen.

On the real baskets of a run's lake (drift_months.py says how). alibi-detect's tests are measured in their own environment, if `make alibi`
has been run: there are no tables of theirs otherwise.

    python -m benchmarks.drift --run build/demo --out build/drift/result.json
"""

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.document import write_block
from benchmarks.drift_months import ALPHA, PLANTS, World, delay, halves, month, of_half
from promolift.contracts.artifacts import json_text, read_manifest
from promolift.drift.fitting import fit
from promolift.drift.reference import read_reference, write_reference
from promolift.drift.sketch import column_names
from serving.detector.tests_by_name import ALIBI, chosen_tests

VERSION, ROWS = "benchmark", "rows.npy"
SPLITS = 50
"""Ways to divide the shoppers into those of the reference and those of the months; months of one division have the same shoppers."""
KINDS = ("same shoppers", "new shoppers")
THEIR_PYTHON = Path("build/alibi/bin/python")
_shared: dict[str, Callable[[int], dict[str, Any]]] = {}
"""What a forked process works on."""


@dataclass(frozen=True)
class Choice:
    """Tests of a look, months without change of each kind, and times that each change is planted; fewer where a look takes longer.

    `halves`: with months of shoppers whom training has not seen, for which SPLITS references are fitted.
    """

    name: str
    months: int
    plants: int
    tests: tuple[str, str, str] = ("cvm", "chi2", "none")
    segments: bool = False
    halves: bool = False


CHOICES = (
    Choice("Cramér-von Mises, chi-square", 500, 40, halves=True),
    Choice("with segments", 100, 10, segments=True),
    Choice("Kolmogorov-Smirnov, chi-square", 200, 20, ("ks", "chi2", "none")),
    Choice("with MMD", 50, 5, ("cvm", "chi2", "mmd")),
    Choice("alibi-detect's KS, chi-square", 10, 3, ("alibi:ks", "alibi:chi2", "none")),
)
"""The first is the default at everybody, the second what a detector does whose reference has segments."""


def prepared(run: Path, folder: Path) -> None:
    """The reference of all rows, with segments, and the rows in `folder`."""
    from components.fit_detector import segments_of, training_rows  # noqa: PLC0415 (not in alibi-detect's environment)

    model = run / "serving_model"
    columns, rows = training_rows(model, read_manifest(model), run / "lake")
    write_reference(fit(columns, rows, VERSION, 1, segments_of(columns, run / "lake")), folder)
    np.save(folder / ROWS, rows)


def worlds(folder: Path, choice: Choice) -> dict[str, list[Callable[[], World]]]:
    """What the months of each kind are drawn from, made when it is needed: one takes 100 MB."""
    rows, reference = np.load(folder / ROWS), read_reference(folder, VERSION)
    assert reference is not None  # noqa: S101 (prepared has written it)
    whole = reference if choice.segments else replace(reference, segments={})
    found: dict[str, list[Callable[[], World]]] = {KINDS[0]: [partial(of_half, whole, rows)]}
    if choice.halves:
        found[KINDS[1]] = [partial(halves, reference.columns, rows, seed) for seed in range(SPLITS)]
    return found


def measure(folder: Path, choice: Choice, workers: int) -> dict[str, Any]:
    """Its tables, and how long they took."""
    started, places = time.perf_counter(), worlds(folder, choice)
    same, tests = places[KINDS[0]][0](), chosen_tests(*choice.tests)
    columns = len(column_names(same.reference.columns))
    found: dict[str, Any] = {
        "tests": choice.tests, "months": choice.months, "plants": choice.plants, "columns": columns,
        "segments": len(same.reference.segments), "false_alarms": {}, "delays": {},
    }  # fmt: skip
    for kind, of_kind in places.items():
        each = choice.months // len(of_kind)
        answers = [_over(workers, partial(month, place(), tests), each) for place in of_kind]
        found["false_alarms"][kind] = {rule: _share([[a[rule] for a in of] for of in answers]) for rule in ("look", "textbook", "psi")}
        print(f"{choice.name}, {kind}: {json.dumps(found['false_alarms'][kind])}", flush=True)
    for name in PLANTS:
        found["delays"][name] = _delays(_over(workers, partial(delay, same, tests, name), choice.plants))
        print(f"{choice.name}, {name}: {json.dumps(found['delays'][name])}", flush=True)
    return found | {"seconds": round(time.perf_counter() - started, 1)}


def _over(workers: int, work: Callable[[int], dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """`work` of 0 to count - 1, in processes that are forked with it: its world is too large to be sent."""
    with ProcessPoolExecutor(workers, get_context("fork"), _begin, (work,)) as pool:
        return list(pool.map(_work, range(count)))


def _begin(work: Callable[[int], dict[str, Any]]) -> None:
    _shared["work"] = work


def _work(number: int) -> dict[str, Any]:
    return _shared["work"](number)


def _there(folder: Path, choice: Choice, workers: int) -> dict[str, Any] | None:
    """The same in the environment of alibi-detect; None where there is none."""
    if not THEIR_PYTHON.exists():
        print(f"{choice.name}: left out, `make alibi` has not been run", flush=True)
        return None
    command = [str(THEIR_PYTHON), "-m", "benchmarks.drift", "--prepared", str(folder), "--only", choice.name, "--workers", str(workers)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([*command, "--out", str(folder / "alibi.json")], check=True, env=environment)
    found: dict[str, Any] = json.loads((folder / "alibi.json").read_text(encoding="utf-8"))["choices"][choice.name]
    return found


def _share(hits: Sequence[Sequence[bool]]) -> dict[str, float]:
    """Share of months with an alarm, with its 95 % interval: Wilson's, or Student's over worlds, since months of one are alike.

    Worlds that all say the same say it no more often than there are worlds.
    """
    each = [float(np.mean(of_world)) for of_world in hits]
    if len(each) == 1 or len(set(each)) == 1:
        trials = len(hits[0]) if len(each) == 1 else len(each)
        found = stats.binomtest(round(each[0] * trials), trials).proportion_ci(method="wilson")
        low, high = float(found.low), float(found.high)
    else:
        spread = float(stats.t.ppf(0.975, len(each) - 1) * np.std(each, ddof=1) / np.sqrt(len(each)))
        low, high = max(np.mean(each) - spread, 0.0), min(np.mean(each) + spread, 1.0)
    return {"share": round(float(np.mean(each)), 4), "low": round(low, 4), "high": round(high, 4)}


def _delays(answers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    told = list(answers)
    columns = [a["column"] for a in told if a["column"]]
    found: dict[str, Any] = {"by": max(set(columns), key=columns.count) if columns else None}
    for rule in ("look", "textbook"):
        days = [a[rule] if a[rule] is not None else np.inf for a in told]
        quantiles = [float(np.quantile(days, q, method="higher")) for q in (0.5, 0.9)]
        found[rule] = {
            "found": round(float(np.isfinite(days).mean()), 3),
            "p50_days": _finite(quantiles[0]),
            "p90_days": _finite(quantiles[1]),
        }
    return found


def _finite(days: float) -> float | None:
    return days if np.isfinite(days) else None


def written(found: Mapping[str, Any], document: Path) -> None:
    """Write the tables between the markers of the document."""

    def share(of: Mapping[str, float]) -> str:
        return f"{of['share']:.1%} ({of['low']:.1%} to {of['high']:.1%})"

    def days(of: Mapping[str, Any]) -> str:
        if not of["p50_days"]:
            return f"not ({of['found']:.0%})"
        return f"{of['p50_days']:g}, {'more than 28' if of['p90_days'] is None else format(of['p90_days'], 'g')}"

    choices = {choice.name: found["choices"][choice.name] for choice in CHOICES if choice.name in found["choices"]}  # JSON has sorted them
    first = next(iter(choices.values()))
    usual = {"KS and chi-square with Bonferroni": "textbook", "PSI > 0.2": "psi"}
    lines = [
        f"Share of months without change with an alarm (95 % interval), promised {ALPHA:.0%}; {first['columns']} columns:",
        "", f"| tests of a look | months | {' | '.join(KINDS)} |", "|---|---|---|---|",
        *(f"| {name} | {one['months']} | {' | '.join(_cell(one['false_alarms'].get(kind), 'look', share) for kind in KINDS)} |"
          for name, one in choices.items()),
        *(f"| the rule: {name} | {first['months']} | {' | '.join(share(first['false_alarms'][kind][rule]) for kind in KINDS)} |"
          for name, rule in usual.items()),
        "", "Days until a planted change is found, median and nine tenths, with all shoppers:", "",
        f"| change | {' | '.join(choices)} | found in | the textbook's, which alarm without a change too |",
        f"|---{'|---' * len(choices)}|---|---|",
        *(f"| {name} | {' | '.join(days(one['delays'][name]['look']) for one in choices.values())} | {first['delays'][name]['by'] or ''} |"
          f" {days(first['delays'][name]['textbook'])} |" for name in PLANTS),
    ]  # fmt: skip
    write_block(document, "drift", lines)


def _cell(of: Mapping[str, Any] | None, rule: str, share: Callable[[Mapping[str, float]], str]) -> str:
    return share(of[rule]) if of else "–"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("build/demo"), metavar="DIR", help="finished run (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="what --out has of other tests stays in it")
    parser.add_argument("--only", default="", metavar="NAME", help=f"one of: {'; '.join(choice.name for choice in CHOICES)}")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (%(default)s)")
    parser.add_argument("--prepared", type=Path, metavar="DIR", help="reference and rows that an earlier measurement has left")
    parser.add_argument("--out", type=Path, default=Path("build/drift/result.json"), metavar="FILE", help="where to write (%(default)s)")
    parser.add_argument(
        "--document", type=Path, metavar="FILE", help="also write the tables between the markers of this file (docs/drift.md)"
    )
    options = parser.parse_args()
    folder: Path = options.prepared or options.out.parent
    folder.mkdir(parents=True, exist_ok=True)
    if not options.prepared:
        prepared(options.run, folder)
    chosen = [choice for choice in CHOICES if options.only in {"", choice.name}]
    measured = _measured(folder, chosen, options.workers)
    before = json.loads(options.out.read_text(encoding="utf-8"))["choices"] if options.keep else {}
    found = {"alpha_a_month": ALPHA, "choices": {c.name: one for c in CHOICES if (one := {**before, **measured}.get(c.name))}}
    options.out.write_text(json_text(found), encoding="utf-8")
    if options.document:
        written(found, options.document)
    print(f"written: {options.out}")


def _measured(folder: Path, chosen: Sequence[Choice], workers: int) -> dict[str, Any]:
    """By name; alibi-detect's elsewhere, unless this is their environment."""
    found: dict[str, Any] = {}
    for choice in chosen:
        elsewhere = choice.tests[0].startswith(ALIBI) and find_spec("alibi_detect") is None
        if one := _there(folder, choice, workers) if elsewhere else measure(folder, choice, workers):
            found[choice.name] = one
    return found


if __name__ == "__main__":
    main()
