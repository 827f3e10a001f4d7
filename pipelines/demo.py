"""`python -m pipelines.demo`: real shopping histories -> model -> verdict -> served graph -> 200 logged decisions -> a drift found."""

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipelines import demo_drift, run
from promolift.contracts.artifacts import write_json
from promolift.contracts.tables import DECISIONS
from promolift.errors import PromoliftError, UnavailableError
from promolift.memory import PeakMemory

SERVING = (sys.executable, "-m", "serving.kserve")
READY_S = 120.0
STOP_S = 60.0


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


def drifted(options: argparse.Namespace) -> dict[str, Any]:
    """Show the drift, and what it sets off; what summary.json says of it. {} for a source without baskets."""
    if not demo_drift.can_be_shown(options.out):
        return {}
    again = options.out.with_name(f"{options.out.name}-again")
    print(f"\ndrift, planted in a copy of {options.out}", flush=True)
    found = demo_drift.shown(options.out, again)
    command = ["monitoring", "--served", str(options.out), "--out", str(again), *_about(options)]
    if found["retraining"]["due"]:
        print(f"  noted as {found['retraining']['cause']['id']}; its training: python -m pipelines.run {shlex.join(command)}")
        if options.retrain:
            run.execute("monitoring", run.parser().parse_args(command))
    return found


@contextmanager
def served(folder: Path) -> Iterator[None]:
    """The graph of a finished run, served on a free port until the block ends; its log is flushed when it stops."""
    record, log = folder / "serving.json", folder / "serving.log"
    record.unlink(missing_ok=True)
    with log.open("w", encoding="utf-8") as output:
        command = [*SERVING, "serve", "--run", str(folder), "--listen", "127.0.0.1:0"]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_ready(process, record, log)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_S)


def _wait_ready(process: "subprocess.Popen[bytes]", record: Path, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while not record.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            last = (log.read_text(encoding="utf-8").strip().splitlines() or ["it said nothing"])[-1]
            raise UnavailableError(f"The graph did not come up: {last} (all of it: {log}).")
        time.sleep(0.1)


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
        made, drift = decide(options.out, options.decisions), drifted(options)
    except PromoliftError as error:
        print(f"\n{error}", file=sys.stderr)
        return error.exit_status
    for measure, value in made.pop("serve").items():
        summary[measure]["serve"] = value
    summary |= made | {"drift": drift}
    write_json(options.out / "summary.json", summary)
    _close(summary, options.out)
    return 0 if not summary["decisions"]["errors"] and summary["decisions"]["logged"] == options.decisions + 1 else 1


if __name__ == "__main__":
    sys.exit(main())
