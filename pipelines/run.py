"""`python -m pipelines.run PIPELINE --source S`: run a pipeline on this machine, as processes or in images, or on a cluster."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from getpass import getuser
from pathlib import Path
from typing import Any

from components.land_events import SOURCES, inputs
from components.learner_names import LEARNERS, names_of
from pipelines.build_images import image_name
from pipelines.cluster_runner import Server, check_cluster, for_cluster, run_on_server, uploaded
from pipelines.compiled import check_all, compiled, write_all
from pipelines.docker_runner import docker_runner, need_images
from pipelines.finish import finish
from pipelines.images import ROOT, source_hash, with_sources, without_gpus
from pipelines.local_runner import Task, run_pipeline
from pipelines.promotion_run import add_promotion, promote
from pipelines.run_folder import Origin, brought, content_of, opened
from pipelines.summary import summarise
from promolift.contracts.artifacts import CANDIDATES, write_json
from promolift.errors import InputError, PromoliftError
from promolift.java import check_java
from promolift.settings import load
from promolift.storage import is_remote, spelled
from spark_jobs.__main__ import WAYS

EXAMPLES = """examples:
  python -m pipelines.run training --source complete_journey --out build/demo
  python -m pipelines.run training --source hillstrom --path hillstrom_no_indices.csv.gz --out build/hillstrom
  python -m pipelines.run training --source table --path trial.yaml --out build/trial
  python -m pipelines.run training --source complete_journey --out build/quick --epochs 2
  python -m pipelines.run training --source complete_journey --out build/many --learners x_learner,dr_learner,tarnet --seeds 3
  python -m pipelines.run dataset --source complete_journey --out build/data
  python -m pipelines.run dataset --source complete_journey --root s3a://bucket/run --spark-on operator --out build/pods
  make images && python -m pipelines.run training --on docker --source hillstrom --path FILE --out build/docker
  python -m pipelines.run training --on cluster --host https://HOST/pipeline --root s3a://bucket/run --source hillstrom --path FILE
  python -m pipelines.run promotion --run build/demo --version 2 --dry-run
  python -m pipelines.run monitoring --served build/demo --detector http://HOST:8085 --source complete_journey --out build/again
  python -m pipelines.run compile --check

Source `table` is any randomised experiment as CSV or Parquet; trial.yaml says what its columns mean
(`components/sources/table_spec.py` begins with a whole example).

A second run in the same folder reuses every task whose input and code are unchanged. DIR/report.html shows the run,
DIR/summary.json holds the same for programs, DIR/pipeline.log has everything that the stages printed.
exit status: 0 done (a refused model too), 2 wrong input, 3 an expectation failed, 4 something needed cannot be had, 1 otherwise."""


TRAINS = ("training", "monitoring")
"""Pipelines that may end with a registered version."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m pipelines.run", description="Run a pipeline on this machine or on a cluster, or compile the pipelines.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = top.add_subparsers(dest="command", required=True, metavar="{training,monitoring,dataset,promotion,compile}")
    _effort(_pipeline(commands, "training", "data set, models, gate and registration; ends with a report"))
    watching = _pipeline(commands, "monitoring", "drift, labels and age of the champion; trains again where one of them asks for it")
    _effort(watching)
    watching.add_argument("--served", required=True, metavar="DIR", help="the served run, or its place in S3: its trail names the champion")
    watching.add_argument(
        "--detector", default="", metavar="URL", help="the drift detector (default: none; labels and age are looked at all the same)"
    )
    watching.add_argument("--policy", default="", metavar="FILE", help="instead of src/promolift/drift/retraining.yaml")
    watching.add_argument("--at", default="", metavar="MOMENT", help="now, ISO 8601, for replays (default: the clock)")
    _pipeline(commands, "dataset", "only the validated data set and the features online")
    add_promotion(commands)
    compiling = commands.add_parser("compile", help="rewrite pipelines/compiled/*.yaml")
    compiling.add_argument("--check", action="store_true", help="write nothing; fail when a committed file is stale")
    return top


def _effort(training: argparse.ArgumentParser) -> None:
    """How much a training does."""
    training.add_argument("--epochs", type=int, default=0, help="at most so many epochs of the network (default: as many as it takes)")
    others = [name for name in LEARNERS if name not in CANDIDATES]
    training.add_argument("--learners", default="", help=f"more candidates, with commas between: {', '.join(others)}")
    training.add_argument("--seeds", type=int, default=1, help="train each candidate so many times, to see what is the seed's (default: 1)")
    training.add_argument("--search-trials", type=int, default=0, help="first search each candidate's parameters (default: 0, no search)")
    training.add_argument("--search-seconds", type=int, default=600, help="no new trial of one candidate after (default: 600)")


def _pipeline(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{name}: {text}.", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--on", choices=["local", "docker", "cluster"], default="local",
        help="where the tasks run: processes here (default), the images here, or a Kubeflow Pipelines server",
    )  # fmt: skip
    made.add_argument("--host", default="", metavar="URL", help="with --on cluster: the server (default: in a pod, that of its cluster)")
    made.add_argument("--namespace", default="", help="with --on cluster: the namespace of runs, on a server for several users")
    made.add_argument("--registry", default="", metavar="HOST/PATH", help="with --on cluster: registry before the images' names")
    made.add_argument("--no-gpu", action="store_true", help="with --on cluster: the network trains without a GPU")
    made.add_argument("--source", required=True, help=f"which data: {', '.join(SOURCES)}")
    made.add_argument("--path", default="", help="the source's file or folder (default: the source fetches its own data)")
    made.add_argument("--out", type=Path, default=Path("build/run"), metavar="DIR", help="run folder (default: build/run)")
    made.add_argument("--root", default="", help="where data and models are kept, such as s3a://bucket/prefix (default: in DIR)")
    made.add_argument("--spark-on", choices=WAYS, default=WAYS[0], help="where Spark works: in its task (default), or in pods, made how")
    made.add_argument("--seed", type=int, default=1, help="seed of simulation, split and training (default: 1)")
    made.add_argument("--fresh", action="store_true", help="first delete what earlier runs wrote into DIR")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; a failure prints its sentence as the last line and gives the status of its class."""
    options = parser().parse_args(arguments)
    try:
        if options.command == "compile":
            return _compile(check=options.check)
        if options.command == "promotion":
            return promote(options)
        execute(options.command, options)
    except PromoliftError as error:
        print(f"\n{error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on after the last finished task.", file=sys.stderr)
        return 130
    return 0


def _compile(*, check: bool) -> int:
    if check:
        check_all()
        return 0
    print(*(path.relative_to(ROOT) for path in write_all()), sep="\n")
    return 0


def execute(pipeline: str, options: argparse.Namespace) -> dict[str, Any]:
    """Check the input and what is needed, run the pipeline, write report and summary into its folder, and return the summary."""
    if options.source not in SOURCES:
        raise InputError(f"There is no source '{options.source}'; choose one of {', '.join(SOURCES)}.")
    if pipeline in TRAINS:
        _check_effort(options)
    if is_remote(options.path):
        raise InputError(f"--path is {options.path}; name a file of this machine (--on cluster uploads it).")
    settings, root = load(), spelled(options.root) if options.root else ""
    if options.on == "cluster":
        check_cluster(pipeline, root, settings)
    origin = Origin(options.source, content_of(*inputs(options.source, options.path)), options.seed, source_hash("spark"))
    text = with_sources(without_gpus(compiled(pipeline)) if options.on != "cluster" or options.no_gpu else compiled(pipeline))
    _check_machine(options, text)
    with opened(options.out, origin, root=root, fresh=options.fresh) as folder:
        arguments = _arguments(pipeline, options, origin, folder)
        return _run(pipeline, folder, arguments, lambda: (_there if options.on == "cluster" else _here)(options, text, folder, arguments))


def _check_machine(options: argparse.Namespace, text: str) -> None:
    if options.on == "docker" and options.command == "monitoring":
        raise InputError(
            "A container sees its own run only, not the served one: use monitoring --on local, or --on cluster with both in S3."
        )
    if options.on == "cluster" and options.command == "monitoring" and not is_remote(options.served):
        raise InputError(f"--served is {options.served}, a folder that the cluster does not see; name s3a://bucket/prefix.")
    if options.on == "local":
        check_java()
    elif options.on == "docker":
        need_images(text)
    if options.spark_on != WAYS[0] and options.on != "cluster":
        _check_pods(options)


def _here(options: argparse.Namespace, text: str, folder: Path, arguments: dict[str, Any]) -> dict[str, Task]:
    os.environ["PYTHONPATH"] = str(ROOT)  # the tasks import the rooms from wherever the command was given
    with docker_runner(folder, options.path) if options.on == "docker" else nullcontext() as runner:
        return run_pipeline(text, arguments, folder / ".kfp", folder / "pipeline.log", sys.stdout, runner=runner, aloud="retraining of ")


def _there(options: argparse.Namespace, text: str, folder: Path, arguments: dict[str, Any]) -> dict[str, Task]:
    server = Server(options.host, load().kfp_token.get_secret_value(), options.namespace)
    # Redis' address comes from a Secret there: one that holds here need not hold there, and a server shows what it was given
    given = {**arguments, "path": uploaded(options.source, options.path, arguments["root"]), "redis_url": ""}
    name = f"{options.command}-{folder.name}"
    return run_on_server(for_cluster(text, options.registry, gpu=not options.no_gpu), given, server, name, sys.stdout)


def _check_pods(options: argparse.Namespace) -> None:
    """Spark's pods are started from here, with our image and a lake that they see."""
    if options.on == "docker":
        raise InputError("A container sees no cluster: use --on local with --spark-on, so that only Spark's jobs run in pods.")
    if not is_remote(options.root):
        raise InputError("--spark-on needs --root s3a://bucket/prefix: pods do not see the folder of this machine.")
    os.environ.setdefault("PROMOLIFT_SPARK_IMAGE", image_name("spark"))


def _check_effort(options: argparse.Namespace) -> None:
    if options.epochs < 0:
        raise InputError(f"--epochs is {options.epochs} but must be 1 or more, or 0 for as many as it takes.")
    for name, least in (("seeds", 1), ("search_trials", 0), ("search_seconds", 1)):
        if getattr(options, name) < least:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(options, name)} but must be {least} or more.")
    names_of(options.learners)


def _arguments(pipeline: str, options: argparse.Namespace, origin: Origin, folder: Path) -> dict[str, Any]:
    """The pipeline's parameters for a run in `folder`."""
    settings = load()
    path = str(Path(options.path).resolve()) if options.path else ""
    found = {
        "source": origin.source,
        "content": origin.content,
        "seed": origin.seed,
        "path": path,
        "root": spelled(options.root or folder),
        "redis_url": settings.redis_url,
        "spark_on": options.spark_on,
    }
    if pipeline in TRAINS:
        uri = settings.mlflow_uri or f"sqlite:///{folder / 'mlflow.db'}"
        effort = ("epochs", "learners", "seeds", "search_trials", "search_seconds")
        found |= {**{name: getattr(options, name) for name in effort}, "mlflow_uri": uri, "model_name": settings.model_name}
        found["author"] = settings.author or getuser()
    if pipeline == "monitoring":
        policy = str(Path(options.policy).resolve()) if options.policy else ""
        found |= {"served": spelled(options.served), "detector": options.detector, "policy": policy, "at": options.at}
    return found


def _run(pipeline: str, folder: Path, arguments: dict[str, Any], work: Callable[[], dict[str, Task]]) -> dict[str, Any]:
    """Let `work` run the tasks, and make of them what the folder keeps. Returns the summary."""
    began = time.perf_counter()
    print(f"{pipeline} of {arguments['source']} in {folder}", flush=True)
    tasks = work()
    if "land-events" not in tasks:  # monitoring found nothing to train for, and the log says why
        return {}
    brought(arguments["root"], folder)
    summary = summarise(folder, tasks, time.perf_counter() - began)
    write_json(folder / "summary.json", summary)
    if pipeline in TRAINS:
        finish(folder, summary, arguments["mlflow_uri"])
    print(f"  {'total':<22} {summary['seconds']['total']:6.1f} s")
    return summary


if __name__ == "__main__":
    sys.exit(main())
