"""`python -m pipelines.demo`: real shopping histories -> model -> verdict -> served graph -> 200 decisions -> a canary -> a drift found."""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines import demo_canary, demo_drift, run
from pipelines.demo_service import SERVING, has_baskets, served
from promolift.contracts.artifacts import write_json
from promolift.contracts.tables import DECISIONS
from promolift.errors import PromoliftError, UnavailableError
from promolift.memory import PeakMemory


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m pipelines.demo", description=__doc__)
    top.add_argument("--out", type=Path, default=Path("build/demo"), metavar="DIR", help="run folder (default: build/demo)")
    top.add_argument("--source", default="complete_journey", help="which data (default: complete_journey)")
    top.add_argument("--path", default="", help="the source's file or folder")
    top.add_argument("--seed", type=int, default=1, help="seed of simulation, split and training (default: 1)")
    top.add_argument("--epochs", type=int, default=0, help="at most so many epochs of the network (default: as many as it takes)")
    top.add_argument("--decisions", type=int, default=200, help="how many decisions to ask for (default: 200)")
    top.add_argument(
        "--retrain", action="store_true", help="also make the training that the drift asks for, in DIR-again (as long as the first one)"
    )
    return top


def _train(options: argparse.Namespace) -> dict[str, Any]:
    return run.execute("training", run.parser().parse_args(["training", "--out", str(options.out), *_about(options)]))


def _about(options: argparse.Namespace) -> list[str]:
    """What every training of this demo is told."""
    about = {"source": options.source, "path": options.path, "seed": options.seed, "epochs": options.epochs}
    return [word for name, value in about.items() if value for word in (f"--{name}", str(value))]


def promoted(options: argparse.Namespace) -> dict[str, Any]:
    """Show a canary, a refusal and a rollback; what summary.json says of them."""
    folder = options.out.with_name(f"{options.out.name}-canary")
    print(f"\ncanary, in {folder}: as if a simpler model had served until now", flush=True)
    found = demo_canary.shown(options.out, folder)
    print(f"  {found['requests']} requests, {found['errors']} errors; {found['seconds']['total']} s; on a page: make review RUN={folder}")
    return found


def _shown(options: argparse.Namespace) -> dict[str, Any]:
    """What happens to a served model later; nothing for a source without baskets to ask about."""
    return {"canary": promoted(options), "drift": drifted(options)} if has_baskets(options.out) else {"canary": {}, "drift": {}}


def drifted(options: argparse.Namespace) -> dict[str, Any]:
    """Show the drift, and what it sets off; what summary.json says of it."""
    again = options.out.with_name(f"{options.out.name}-again")
    print(f"\ndrift, planted in a copy of {options.out}", flush=True)
    found = demo_drift.shown(options.out, again)
    command = ["monitoring", "--served", str(options.out), "--out", str(again), *_about(options)]
    if found["retraining"]["due"]:
        print(f"  noted as {found['retraining']['cause']['id']}; its training: python -m pipelines.run {shlex.join(command)}")
        if options.retrain:
            run.execute("monitoring", run.parser().parse_args(command))
    return found


def _ask(folder: Path, count: int, skip: int) -> dict[str, Any]:
    """Ask for decisions one after another; the summary of `decide --json`."""
    command = [*SERVING, "decide", "--run", str(folder), "--count", str(count), "--skip", str(skip), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise UnavailableError(f"Asking for decisions failed: {done.stderr.strip()}")
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def _show_one(folder: Path, skip: int) -> None:
    subprocess.run([*SERVING, "decide", "--run", str(folder), "--skip", str(skip)], check=False)


def logged(folder: Path, since: int) -> int:
    """Requests in the Delta table of decisions beyond the first `since`; one that was answered late has a second row, its decision."""
    from deltalake import DeltaTable, QueryBuilder  # noqa: PLC0415

    place = str(folder / "lake" / DECISIONS.path)
    if not DeltaTable.is_deltatable(place):
        return -since
    query = "SELECT COUNT(DISTINCT request_id) AS requests FROM decisions"
    found = QueryBuilder().register("decisions", DeltaTable(place)).execute(query).read_all()
    return int(found["requests"][0].as_py()) - since


def decide(folder: Path, count: int) -> dict[str, Any]:
    """Serve the run, ask for `count` decisions and for one in full; what summary.json says of them."""
    before, start = logged(folder, 0), time.perf_counter()
    skip = before // (count + 1)  # the moment asked about is the end of the data every time, and caps count by it: ask about others
    print(f"serving {folder}", flush=True)
    with PeakMemory() as memory, served(folder):
        ready = time.perf_counter() - start
        print(f"  {'graph ready':<22} {ready:6.1f} s", flush=True)
        asked = _ask(folder, count, skip)
        print(f"  {f'{count} decisions':<22} {time.perf_counter() - start - ready:6.1f} s\n", flush=True)
        _show_one(folder, skip)
    last, used = asked.pop("last"), {"seconds": round(ready, 1), "peak_gib": round(memory.take(), 2)}
    return {"decisions": {**asked, "logged": logged(folder, before)}, "last_decision": last.get("envelope", last), "serve": used}


def _close(summary: dict[str, Any], folder: Path) -> None:
    made, latency = summary["decisions"], summary["decisions"]["latency_ms"]
    step, most = max(summary["peak_gib"].items(), key=lambda item: item[1])
    print(
        f"\n{made['count']} decisions over HTTP, {made['errors']} errors, {made['logged']} logged with the one above; "
        f"p50 {latency['p50']} ms, p95 {latency['p95']} ms; no_promo {made['share_no_promo']:.0%}"
    )
    print(f"peak memory {most} GiB, in {step}")
    print(f"summary: {folder / 'summary.json'}\nreport:  {folder / 'report.html'}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit status is 0 when a model passed and every decision was answered and logged."""
    options = parser().parse_args(arguments)
    try:
        summary = _train(options)
        if not (options.out / "serving_model").is_dir():
            print("No model passed the gate, so there is nothing to serve; the report says why.", file=sys.stderr)
            return 1
        made, shown = decide(options.out, options.decisions), _shown(options)
    except PromoliftError as error:
        print(f"\n{error}", file=sys.stderr)
        return error.exit_status
    for measure, value in made.pop("serve").items():
        summary[measure]["serve"] = value
    summary |= made | shown
    write_json(options.out / "summary.json", summary)
    _close(summary, options.out)
    return 0 if not summary["decisions"]["errors"] and summary["decisions"]["logged"] == options.decisions + 1 else 1


if __name__ == "__main__":
    sys.exit(main())
