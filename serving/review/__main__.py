"""`python -m serving.review COMMAND`: the reviewer's page, its people, and every act of it from the command line."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from promolift.errors import InputError, PromoliftError
from promolift.promotion.actions import Review
from promolift.promotion.approval import approval_key
from promolift.promotion.stages import PATH
from promolift.promotion.trail_table import TrailTable
from promolift.settings import load
from serving.kserve.listen import bind
from serving.kserve.problem import RequestError
from serving.review.app import ACTS, ReviewApp, application
from serving.review.oidc import open_id
from serving.review.pages import Pages
from serving.review.people import People, people_in

TOKEN = "PROMOLIFT_REVIEW_TOKEN"  # noqa: S105 (the variable's name)
EXAMPLES = f"""examples:
  python -m serving.review add --run build/demo --name bea --roles reviewer
  python -m serving.review serve --run build/demo --promote
  python -m serving.review status --run build/demo
  {TOKEN}=... python -m serving.review approve --run build/demo --version 2 --reason "read it" --up-to canary_10

exit status: 0 done, 2 wrong input or not allowed, 4 something needed cannot be had, 1 otherwise."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; a failure is one sentence on stderr and the exit status of its kind."""
    try:
        options = _parser().parse_args(arguments)
        status: int = options.act(options)
    except RequestError as problem:
        print(f"InputError: {problem}", file=sys.stderr)
        return InputError.exit_status
    except PromoliftError as problem:
        print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
        return problem.exit_status
    return status


def review_of(folder: Path) -> Review:
    """The acts on the trail of a run folder. Raises InputError where there is no such folder."""
    if not folder.is_dir():
        raise InputError(f"There is no run folder {folder}; name one with --run.")
    return Review(folder / "lake", TrailTable(folder / "lake"), approval_key(folder, load()))


def _serve(options: argparse.Namespace) -> int:
    review, people = review_of(options.run_folder), People(options.people or options.run_folder / "rollout" / "people.json")
    follow = _promoter(options.run_folder, options.guardrails, options.on) if options.promote else None
    pages = Pages(review, options.run_folder / "rollout")
    pages.prepare()
    app = application(ReviewApp(review, pages, people, follow, secure=options.secure, provider=open_id(load(), secure=options.secure)))
    listener = bind(options.listen)
    host, port = listener.getsockname()[:2]
    print(f"review listens on http://{host}:{port}", flush=True)
    config = uvicorn.Config(app, http="httptools", access_log=False, log_config=None)
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _promoter(folder: Path, guardrails: str, on: str) -> Callable[[str], None]:
    """Starts `pipelines.run promotion` for a version; one that finds another at work leaves it the version."""
    log = folder / "rollout" / "started.log"

    def start(version: str) -> None:
        command = [sys.executable, "-m", "pipelines.run", "promotion", "--run", str(folder), "--version", version, "--on", on]
        with log.open("a", encoding="utf-8") as out:
            more = ["--guardrails", guardrails] if guardrails else []
            subprocess.Popen([*command, *more], stdout=out, stderr=subprocess.STDOUT, start_new_session=True)

    return start


def _add(options: argparse.Namespace) -> int:
    file = options.people or options.run_folder / "rollout" / "people.json"
    print(people_in(file).add(options.name, options.roles.split(",")))
    return 0


def _status(options: argparse.Namespace) -> int:
    review = review_of(options.run_folder)
    for one in review.trail.standings().values():
        paused = ", paused" if one.paused else ""
        print(f"version {one.version:<4} {one.stage}{paused:<10} {one.model}  {one.last.action} by {one.last.actor}: {one.last.reason}")
    print(f"{len(review.trail.entries())} entries, chain sound")
    return 0


def _act(options: argparse.Namespace) -> int:
    review = review_of(options.run_folder)
    people = People(options.people or options.run_folder / "rollout" / "people.json")
    token = os.environ.get(TOKEN, "")
    if not token:
        raise InputError(f"Set {TOKEN} to your token, so that the trail knows who you are.")
    person, name = people.person(token), options.name_of_act
    if name == "approve":
        entry = review.approve(person, options.version, options.reason, options.up_to, options.evidence or review.evidence(options.version))
    else:
        entry = getattr(review, name)(person, options.version, options.reason)
    print(f"entry {entry.seq}: {name} of version {entry.version} by {entry.actor}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.review", description="The reviewer's page and its acts.", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serving = commands.add_parser("serve", help="serve the page")
    serving.set_defaults(act=_serve)
    serving.add_argument("--listen", default="127.0.0.1:8090", metavar="HOST:PORT", help="where to listen (%(default)s)")
    serving.add_argument("--promote", action="store_true", help="start the promotion pipeline here after an approval or a rollback")
    serving.add_argument("--on", choices=["local", "cluster"], default="local", help="on what serves DIR here (default), or its deployment")
    serving.add_argument("--guardrails", default="", metavar="FILE", help="limits for those promotions")
    serving.add_argument("--secure", action="store_true", help="cookies over HTTPS only: behind a proxy that ends TLS")
    adding = commands.add_parser("add", help="make a person's token; it is printed once, the file keeps its hash")
    adding.set_defaults(act=_add)
    adding.add_argument("--name", required=True, help="who")
    adding.add_argument("--roles", default="viewer", help="comma-separated: viewer, author, reviewer (%(default)s)")
    status = commands.add_parser("status", help="every version's stage; verifies the chain")
    status.set_defaults(act=_status)
    acting = [commands.add_parser(name.replace("_", "-"), help=f"{name.replace('_', ' ')} a version") for name in ACTS]
    for name, act in zip(ACTS, acting, strict=True):
        act.set_defaults(act=_act, name_of_act=name)
        act.add_argument("--version", required=True, help="which one")
        act.add_argument("--reason", required=True, help="why, for the trail")
    acting[0].add_argument("--up-to", default=PATH[-1], choices=PATH[1:], help="how far (%(default)s)")
    acting[0].add_argument("--evidence", default="", help="hash of the dossier that you have read (default: as it is now)")
    for command in (serving, adding, status, *acting):
        command.add_argument("--run", dest="run_folder", type=Path, required=True, metavar="DIR", help="the served run's folder")
        command.add_argument("--people", type=Path, metavar="FILE", help="file of named tokens (DIR/rollout/people.json)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
