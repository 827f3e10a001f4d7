"""`python -m pipelines.run promotion`: an approved version brought to the shoppers of a served run, stage by stage."""

import argparse
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from components.promote import promotion
from pipelines.compiled import compiled
from pipelines.docker_runner import SETTINGS, STORAGE, docker_runner, need_images
from pipelines.images import ROOT, with_sources
from pipelines.local_runner import run_pipeline
from promolift.errors import InputError
from promolift.kubectl import chosen
from promolift.locks import held
from promolift.promotion.trail_table import TrailTable
from promolift.settings import FILE, load


def add_promotion(commands: Any) -> None:
    """The subcommand's options."""
    made = commands.add_parser("promotion", help="an approved version -> shadow -> canary -> champion, guardrails watched, or back")
    made.add_argument("--run", dest="run_folder", type=Path, required=True, metavar="DIR", help="the served run's folder")
    made.add_argument("--version", required=True, help="the registered version")
    made.add_argument(
        "--on", choices=["local", "docker", "cluster"], default="local",
        help="what to promote on: what serves DIR here (docker: by the image), or its deployment",
    )  # fmt: skip
    made.add_argument(
        "--context", default="", help="with --on cluster: kube context (default: the current one, unless it looks like production)"
    )
    made.add_argument("--guardrails", default="", metavar="FILE", help="limits instead of src/promolift/promotion/guardrails.yaml")
    made.add_argument("--patience", type=int, default=0, metavar="S", help="watch a stage so many seconds at most (0: to its end)")
    made.add_argument("--dry-run", action="store_true", help="print the plan and the graph's diff, and change nothing")


def promote(options: argparse.Namespace) -> int:
    """Run it; exit status 0 when every task did what the trail allows (a version may stay where it is: the lines say why).

    An order to roll back that nobody has carried out yet is carried out at once.
    """
    settings, folder = load(), options.run_folder.resolve()
    if not folder.is_dir():
        raise InputError(f"There is no run folder {folder}; name a served run with --run.")
    guardrails = str(Path(options.guardrails).resolve()) if options.guardrails else ""
    context = chosen(options.context).context if options.on == "cluster" else ""
    about = (str(folder), settings.mlflow_uri, settings.model_name, options.version)
    if options.dry_run:
        print(promotion(*about, guardrails=guardrails, context=context).plan())
        return 0
    arguments = {
        "folder": str(folder), "mlflow_uri": settings.mlflow_uri, "version": options.version, "model_name": settings.model_name,
        "guardrails": guardrails, "patience_s": options.patience, "context": context,
    }  # fmt: skip
    taken = f"Another promotion is at work in {folder}; it sees what the trail says at its next look."
    with held(folder / "rollout" / ".lock", "promote in a folder that can be written", taken):
        now = TrailTable(folder / "lake").standings().get(options.version)
        if now is not None and now.wish is not None:  # a reviewer waits: a pipeline around it takes longer than the act
            promotion(*about, guardrails=guardrails, context=context).roll_back(now.wish.actor, now.wish.reason)
        else:
            _run(folder, arguments, in_images=options.on == "docker")
    return 0


def _run(folder: Path, arguments: dict[str, Any], *, in_images: bool) -> None:
    os.environ["PYTHONPATH"] = str(ROOT)
    print(f"promotion of version {arguments['version']} in {folder}", flush=True)
    began = time.monotonic()
    text, place = with_sources(compiled("promotion")), folder / "rollout"
    if in_images:
        need_images(text)
    read = (arguments["guardrails"], os.environ.get(FILE, ""))
    with docker_runner(folder, *read, passed=(STORAGE, SETTINGS)) if in_images else nullcontext() as runner:
        run_pipeline(text, arguments, place / ".kfp", place / "promotion.log", sys.stdout, runner=runner, aloud="version ")
    print(f"  {'total':<22} {time.monotonic() - began:6.1f} s")
