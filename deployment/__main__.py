"""`python -m deployment COMMAND`: the manifests rendered and checked, a run brought to a cluster, put under load, taken off it."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from deployment.render import OVERLAYS, Build, kinds, render
from promolift.errors import ExpectationError, InputError, PromoliftError

EXAMPLES = """examples:
  python -m deployment render                                  all overlays, checked strictly: build/manifests/*/manifests.yaml
  python -m deployment deploy --run build/demo                 to the current context, after asking
  YES=1 python -m deployment deploy --run build/demo --context kind-promolift
  python -m deployment undeploy
  python -m deployment spark                                   once, before pipelines.run --spark-on submit or operator
  python -m deployment schemas kserve-crds.yaml                when KServe's kinds have changed

`deploy` needs a cluster with KServe (Standard mode), the images `serving` and `online` on its nodes (`make images`), and an S3 endpoint
that pods reach, given by AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. It makes namespace and bucket promolift.
exit status: 0 done, 2 wrong input, 3 a manifest breaks a schema or a policy, 4 something needed cannot be had, 1 otherwise."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; a failure is one sentence on stderr and the exit status of its kind."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run_command(options)
    except PromoliftError as problem:
        print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
        return problem.exit_status
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    return status


def _render(options: argparse.Namespace) -> int:
    from deployment.policies import POLICIES, broken  # noqa: PLC0415 (each command loads only what it needs)
    from deployment.schemas import mistakes  # noqa: PLC0415

    wrong: list[str] = []
    for overlay in options.overlay or OVERLAYS:
        folder = options.out / overlay
        documents = render(Build(overlay, registry=options.registry), folder)
        found = [f"{overlay}: {line}" for line in (*mistakes(documents), *broken(documents))]
        services = len(kinds(documents, "InferenceService"))
        print(
            f"{overlay:<11} {len(documents)} documents, {services} services, {len(found)} mistakes: {folder / 'manifests.yaml'}", flush=True
        )
        wrong += found
    if wrong:
        raise ExpectationError(f"{len(wrong)} mistakes in the manifests.\n" + "\n".join(wrong))
    print(f"every field is known to its schema; {len(POLICIES)} policies hold")
    return 0


def _deploy(options: argparse.Namespace) -> int:
    from deployment.ask import ask_both  # noqa: PLC0415
    from deployment.local import Plan, deploy  # noqa: PLC0415
    from promolift.kubectl import chosen  # noqa: PLC0415

    kubectl = chosen(options.context)
    _confirm(f"Deploy {options.run} to context '{kubectl.context}', namespace promolift, bucket promolift?")
    plan = Plan(options.run, options.registry, options.out)
    deploy(kubectl, plan)
    ask_both(kubectl, plan.run, plan.out)
    return 0


def _undeploy(options: argparse.Namespace) -> int:
    from deployment.local import Plan, undeploy  # noqa: PLC0415
    from promolift.kubectl import chosen  # noqa: PLC0415

    kubectl = chosen(options.context)
    _confirm(f"Delete namespace promolift of context '{kubectl.context}' and the bucket promolift, decision log included?")
    undeploy(kubectl, Plan(Path(), options.registry, options.out))
    return 0


def _spark(options: argparse.Namespace) -> int:
    from deployment.secret_values import s3_secret  # noqa: PLC0415
    from promolift.kubectl import chosen  # noqa: PLC0415

    kubectl, documents = chosen(options.context), render(Build("spark"), options.out / "spark")
    (space,) = (document["metadata"]["name"] for document in kinds(documents, "Namespace"))
    if options.remove:
        _confirm(f"Delete namespace {space} of context '{kubectl.context}' with the Spark jobs that run there?")
        kubectl("delete", "namespace", space, "--ignore-not-found")
        print(f"{space} is gone; what jobs wrote is in S3")
        return 0
    secret = s3_secret(space)
    _confirm(f"Make namespace {space} for Spark's pods in context '{kubectl.context}'?")
    kubectl.apply([*documents, secret])
    print(f"{space} is ready: python -m pipelines.run dataset --root s3a://BUCKET/PREFIX --spark-on submit ...")
    return 0


def _load(options: argparse.Namespace) -> int:
    from deployment.load import measure  # noqa: PLC0415
    from loadtests.run import Load, readable  # noqa: PLC0415
    from promolift.kubectl import chosen  # noqa: PLC0415

    found = measure(chosen(options.context), Load("cluster", options.seconds, options.users, options.run, False, options.out / "load"))
    print(f"{readable(found)}\nreport: {options.out / 'load/load.html'}")
    return 1 if found["breaches"] else 0


def _page(options: argparse.Namespace) -> int:
    from deployment.page import write  # noqa: PLC0415

    write(options.measured, options.out / "page", check=options.check)
    return 0


def _images(options: argparse.Namespace) -> int:
    from pipelines.build_images import image_name  # noqa: PLC0415

    spark = [image_name("spark", options.registry)] if options.spark else []
    print(*Build("local", registry=options.registry).images().values(), *spark, sep="\n")
    return 0


def _schemas(options: argparse.Namespace) -> int:
    from deployment.schemas import add  # noqa: PLC0415

    for file in options.file:
        print(*add(file), sep="\n")
    return 0


def _confirm(question: str) -> None:
    """Raises InputError for anything but yes; YES=1 answers for CI."""
    if os.environ.get("YES") == "1":
        return
    answer = input(f"{question} [y/N] ") if sys.stdin.isatty() else ""
    if answer.strip().lower() not in {"y", "yes"}:
        raise InputError("Not confirmed, so nothing was changed; answer y, or set YES=1.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployment", description="Render, check and apply the manifests.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    checking = commands.add_parser("render", help="render overlays and hold them to schemas and policies")
    checking.set_defaults(run_command=_render)
    checking.add_argument("overlay", nargs="*", metavar="OVERLAY", help=f"which ones (default: {', '.join(OVERLAYS)})")
    checking.add_argument("--out", type=Path, default=Path("build/manifests"), metavar="DIR", help="where they go (%(default)s)")
    deploying = commands.add_parser("deploy", help="serve a finished run on the current context, and ask it")
    deploying.set_defaults(run_command=_deploy)
    removing = commands.add_parser("undeploy", help="remove all of it")
    removing.set_defaults(run_command=_undeploy)
    loading = commands.add_parser("load", help="Locust against the graph of the deployment; exit status 1 for a broken promise")
    loading.set_defaults(run_command=_load)
    loading.add_argument("--seconds", type=int, default=30, help="how long (%(default)s)")
    loading.add_argument("--users", type=int, default=8, help="callers, each asking ten times a second (%(default)s)")
    spark = commands.add_parser("spark", help="make the namespace, accounts and secret of Spark's pods on the current context")
    spark.set_defaults(run_command=_spark)
    spark.add_argument("--remove", action="store_true", help="delete the namespace instead")
    naming = commands.add_parser("images", help="print the names of the images that the deployment runs")
    naming.set_defaults(run_command=_images)
    naming.add_argument("--spark", action="store_true", help="that of Spark's pods too")
    for command in (deploying, loading):
        command.add_argument("--run", type=Path, default=Path("build/demo"), metavar="DIR", help="a finished run (%(default)s)")
    for command in (deploying, removing, loading, spark):
        command.add_argument("--context", default="", help="kube context (default: the current one, unless it looks like production)")
        command.add_argument("--out", type=Path, default=Path("build/deploy"), metavar="DIR", help="where files go (%(default)s)")
    for command in (checking, deploying, removing, naming):
        command.add_argument("--registry", default="", metavar="HOST/PATH", help="registry before the images' names (default: none)")
    paging = commands.add_parser("page", help="write drawing and figures of docs/cluster.md")
    paging.set_defaults(run_command=_page)
    paging.add_argument("--measured", type=Path, default=Path("build/cluster/measured.json"), metavar="FILE", help="of make test-cluster")
    paging.add_argument("--out", type=Path, default=Path("build/manifests"), metavar="DIR", help="where manifests go (%(default)s)")
    paging.add_argument("--check", action="store_true", help="write nothing; fail when the drawing is not what the manifests say")
    schemas = commands.add_parser("schemas", help="take a kind's schema from its CRD file")
    schemas.set_defaults(run_command=_schemas)
    schemas.add_argument("file", nargs="+", type=Path, help="YAML with CustomResourceDefinitions")
    return parser


if __name__ == "__main__":
    sys.exit(main())
