"""`python -m spark_jobs JOB... --lake DIR`: one Spark session runs the jobs in the given order."""

import argparse
import json
import sys
from collections.abc import Sequence

from promolift.errors import PromoliftError
from promolift.settings import load
from spark_jobs.lake import run_job
from spark_jobs.landing import fingerprint
from spark_jobs.session import start_session

JOBS = ("ingest_events", "build_exposures", "build_features", "build_examples")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m spark_jobs",
        description="Run jobs in order in one Spark session. A job whose inputs, outputs and code are unchanged is skipped. "
        "Prints one JSON line a job: Delta versions read and written, rows, counters, seconds; the same goes to LAKE/lineage/JOB.json.",
        epilog="Example: python -m spark_jobs ingest_events build_exposures build_features build_examples --lake build/demo/lake",
    )
    top.add_argument("jobs", nargs="+", choices=JOBS, metavar="JOB", help=", ".join(JOBS))
    top.add_argument(
        "--lake", required=True, help="the lake's root (a folder, or s3a://bucket/prefix); LAKE/landing holds what a source delivered"
    )
    top.add_argument("--submitted", action="store_true", help="started by spark-submit, which says where the work is done and how big")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the jobs; the exit status is the error's own."""
    options = parser().parse_args(arguments)
    try:
        inputs = fingerprint(options.lake) if "ingest_events" in options.jobs else ""
        session = start_session(load().jars, submitted=options.submitted)
        for job in options.jobs:
            record = run_job(session, options.lake, job, inputs if job == "ingest_events" else "")
            print(json.dumps(record, sort_keys=True), flush=True)
        session.stop()
    except PromoliftError as error:
        print(f"spark_jobs: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
