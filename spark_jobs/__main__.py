"""`python -m spark_jobs JOB... --lake DIR`: one Spark session runs the jobs in the given order, in this process or in pods of a cluster."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence

from promolift.errors import PromoliftError
from promolift.settings import Settings, load

DATASET = ("ingest_events", "build_exposures", "build_features", "build_examples")
"""From landed events to examples, in the order in which each reads what the one before wrote."""
JOBS = (*DATASET, "measure_lift")
WAYS = ("here", "submit", "operator")
"""Where the jobs may run: in this process, or in pods by spark-submit or by Kubeflow's Spark operator."""
EXAMPLES = """examples:
  python -m spark_jobs ingest_events build_exposures build_features build_examples --lake build/demo/lake
  python -m spark_jobs build_features build_examples --lake s3a://bucket/run/lake --on operator
  python -m spark_jobs measure_lift --lake build/demo/lake

In pods: the lake is in S3, whose endpoint and keys are the Secret promo-s3 of namespace promolift-spark, which
`python -m deployment spark` makes. PROMOLIFT_SPARK_IMAGE names the image; PROMOLIFT_SPARK_EXECUTORS, PROMOLIFT_SPARK_CORES and
PROMOLIFT_SPARK_MEMORY say how many pods of which size.
exit status: 0 done, 2 wrong input, 4 something needed cannot be had, 1 otherwise."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m spark_jobs",
        description="Run jobs in order in one Spark session. A job whose inputs, outputs and code are unchanged is skipped. "
        "Prints one JSON line a job: Delta versions read and written, rows, counters, seconds; the same goes to LAKE/lineage/JOB.json.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    top.add_argument("jobs", nargs="+", choices=JOBS, metavar="JOB", help=", ".join(JOBS))
    top.add_argument(
        "--lake", required=True, help="the lake's root (a folder, or s3a://bucket/prefix); LAKE/landing holds what a source delivered"
    )
    top.add_argument("--on", default=WAYS[0], choices=WAYS, help="where: in this process, or in pods: spark-submit, Spark operator")
    top.add_argument("--submitted", action="store_true", help="started by spark-submit, which says where the work is done and how big")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the jobs; the exit status is the error's own."""
    options = parser().parse_args(arguments)
    try:
        return (_here if options.on == "here" else _in_pods)(options, load())
    except PromoliftError as error:
        print(f"spark_jobs: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("spark_jobs: stopped; the same command goes on after the last finished job.", file=sys.stderr)
        return 130


def _here(options: argparse.Namespace, settings: Settings) -> int:
    from spark_jobs import measure_lift  # noqa: PLC0415
    from spark_jobs.lake import run_job  # noqa: PLC0415 (Spark and Delta take seconds, and who submits needs neither)
    from spark_jobs.landing import fingerprint  # noqa: PLC0415
    from spark_jobs.session import start_session  # noqa: PLC0415

    inputs = {"ingest_events": lambda: fingerprint(options.lake), "measure_lift": measure_lift.inputs}
    session = start_session(settings.jars, submitted=options.submitted)
    for job in options.jobs:
        record = run_job(session, options.lake, job, inputs.get(job, str)())
        print(json.dumps(record, sort_keys=True), flush=True)
    session.stop()
    return 0


def _in_pods(options: argparse.Namespace, settings: Settings) -> int:
    from spark_jobs.cluster import application, run  # noqa: PLC0415 (only who submits has a use for it)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a task that is taken away takes its pods away
    return run(application(options.jobs, options.lake, settings), options.on)


if __name__ == "__main__":
    sys.exit(main())
