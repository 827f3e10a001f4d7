"""Real baskets of the last week of a run's training through its whole service, watched: engine, graph, copies, detector, looks.

    python -m benchmarks.traffic --run build/demo

Features online are those of the week's examples, as the model learnt from them. Every basket asks for a decision at its own moment with its
own lines, and each day ends with a look. Nothing has changed until the last day, when every amount is 10 % higher.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.document import write_block
from components.fit_detector import fit_model
from pipelines.demo_drift import ask, look
from pipelines.demo_service import Request, baskets, lay_out, served_copy
from promolift.contracts.artifacts import write_json
from promolift.drift.reference import JSON

DEARER = 1.1


def dearer(request: Request) -> Request:
    """The same basket at higher prices."""
    return request | {"basket": [line | {"amount_cents": round(DEARER * line["amount_cents"])} for line in request["basket"]]}


def measure(run: Path) -> list[dict[str, Any]]:
    """The look of every day, with how many were asked and how many decisions came."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "run"
        by_day = list(baskets(run, lay_out(run, folder)).items())
        if not (folder / "serving_model" / JSON).exists():
            fit_model(folder / "serving_model", run / "lake", 1)
        with served_copy(folder, "--detect") as service, httpx.Client(timeout=30) as client:
            for day, requests in by_day:
                last = day == by_day[-1][0]
                answered, seen = ask(service, client, [dearer(request) for request in requests] if last else requests)
                made = look(service, client, day)
                found.append({"day": day, "asked": len(requests), "answered": answered, "seen": seen, "dearer": last, "look": made})
                print(line_of(found[-1]), flush=True)
    return found


def line_of(day: dict[str, Any]) -> str:
    """One day for whoever waits."""
    told = [f"{f['column']} over {f['days']} ({f['p_value']:.0e})" for f in day["look"]["findings"]]
    changed = ", prices 10 % higher" if day["dearer"] else ""
    counts = f"{day['asked']} asked, {day['answered']} answered, {day['seen']} seen"
    return f"{day['day']}{changed}: {counts}, {day['look']['status']} {', '.join(told)}"


def sentence(days: Sequence[dict[str, Any]]) -> str:
    """The figures as docs/drift.md prints them."""
    quiet, last = [day["look"]["status"] for day in days if not day["dearer"]], days[-1]["look"]
    asked, seen = (sum(day[name] for day in days) for name in ("asked", "seen"))
    return (
        f"{asked:,} real baskets of the last week of training asked the whole service (engine, graph, boxes); the detector saw\n"
        f"{seen:,} of the answers. Of {len(quiet)} days without a change {quiet.count('no drift')} had no drift, "
        f"{quiet.count('drift')} had, {quiet.count('too few rows')} too few rows; on the last one prices were 10 % higher:\n"
        f"{last['status']}, {', '.join(f['column'] for f in last['findings'])}."
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("build/demo"), metavar="DIR", help="finished run (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/drift/traffic.json"), metavar="FILE", help="where to write (%(default)s)")
    parser.add_argument("--document", type=Path, metavar="FILE", help="also write them between the markers of this file (docs/drift.md)")
    options = parser.parse_args()
    days = measure(options.run)
    write_json(options.out, {"days": days})
    if options.document:
        write_block(options.document, "traffic", [sentence(days)])


if __name__ == "__main__":
    main()
