"""`python -m science --out DIR`: published data and simulated worlds -> DIR/result.json and DIR/report.html.

A finished step's JSON (DIR/steps) is reused while its code, settings, data and libraries are unchanged, so a killed run goes on.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promolift.contracts.artifacts import write_json
from promolift.errors import PromoliftError, usable
from science.ihdp import REPLICATIONS, TRIED
from science.report import MAKERS, document, page, sentence
from science.steps import Step, done

QUICK: dict[str, dict[str, Any]] = {
    "hillstrom": {"splits": 2, "resamples": 20},
    "ihdp": {"limit": 2},
    "coverage": {"worlds": 10},
    "operating_curve": {"worlds": 10},
}
"""Settings of a quick run; a full one takes each step's own."""
NO_IHDP = "No replications were given: pass --ihdp FILE.npz (`science/ihdp.py` says which layouts it reads)."


def steps(options: argparse.Namespace) -> tuple[Step, ...]:
    """The parts of the run in their order."""
    quick: dict[str, dict[str, Any]] = {name: settings if options.quick else {} for name, settings in QUICK.items()}
    hillstrom, ihdp = options.hillstrom, options.ihdp
    return (
        Step("hillstrom", "science.hillstrom", {"path": str(hillstrom or ""), **quick["hillstrom"]}, hillstrom),
        Step("ihdp", "science.ihdp", {"path": ihdp, "limit": options.replications, **quick["ihdp"]}, ihdp, "" if ihdp else NO_IHDP),
        Step("coverage", "science.coverage", quick["coverage"]),
        Step("operating_curve", "science.operating_curve", quick["operating_curve"]),
    )


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Do or reuse every step and write both files."""
    start = time.perf_counter()

    def told(line: str) -> None:
        print(f"{time.perf_counter() - start:6.0f} s  {line}", flush=True)

    with usable(options.out, "give another folder as --out"):
        wanted = options.only or list(MAKERS)
        records = {step.name: done(step, options.out, wanted=step.name in wanted, told=told) for step in steps(options)}
        found = document(records, quick=options.quick)
        write_json(options.out / "result.json", found)
        (options.out / "report.html").write_text(page(found), encoding="utf-8")
    told(f"{sentence(found)} Read {options.out / 'report.html'}.")
    return found


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m science", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/science"), help="folder for result.json and report.html")
    parser.add_argument("--only", nargs="+", choices=list(MAKERS), metavar="NAME", help=f"run these only: {', '.join(MAKERS)}")
    parser.add_argument("--quick", action="store_true", help="tiny settings: to see that it works, not for figures")
    parser.add_argument("--hillstrom", type=Path, help="Hillstrom's CSV(.gz) file; without it, it is fetched by checksum")
    parser.add_argument("--ihdp", type=Path, help="npz file of IHDP: its replications, or x, t and test rows to draw them from")
    parser.add_argument(
        "--replications", type=int, default=REPLICATIONS, help=f"so many of IHDP, from number {TRIED + 1} (default: {REPLICATIONS})"
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Exit status 0 once both files are written, whatever the targets say; they are read from the files."""
    try:
        run(parse())
    except PromoliftError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
