"""`python -m serving.detector`: the drift detector of the models in some folders."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import redis.asyncio
import uvicorn
import uvloop

from promolift.drift.reference import read_reference
from promolift.errors import InputError, PromoliftError
from promolift.settings import Settings, load
from serving.detector.app import Detector, application
from serving.detector.intake import Intake
from serving.detector.store import Store
from serving.detector.tests_by_name import chosen_tests, known
from serving.detector.watch import Options, Watch, Watched
from serving.kserve.listen import bind
from serving.kserve.model_folder import load_manifest, need_digest
from serving.kserve.predictor import Predictor
from serving.kserve.redis_client import connect

TESTED = {
    "numbers": "test of each number",
    "texts": "test of each text",
    "joint": "test of all features at once, with half of alpha",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; a failure is one sentence on stderr and the exit status of its kind."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        settings = load()
        return _serve(_parser(settings).parse_args(arguments), settings)
    except PromoliftError as problem:
        print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
        return problem.exit_status


def _parser(settings: Settings) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.detector", description=__doc__)
    parser.add_argument(
        "--model", type=Path, action="append", required=True, metavar="DIR", help="model folder; once a version that is served"
    )
    parser.add_argument("--redis-url", default=settings.redis_url, required=not settings.redis_url, help="where windows and looks are kept")
    parser.add_argument("--listen", default="127.0.0.1:8085", metavar="HOST:PORT", help="where to listen (%(default)s)")
    parser.add_argument("--alpha", type=float, default=0.05, help="share of months without change that may raise an alarm (%(default)s)")
    parser.add_argument("--moments", action="store_true", help="days are those of the requests' moments: for replayed traffic")
    for kind, names in known().items():
        told = f"{TESTED[kind]}: {', '.join(names)} (%(default)s)"
        parser.add_argument(f"--{kind}", default=names[0], choices=names, metavar="TEST", help=told)
    parser.add_argument("--reply", default="", metavar="URL", help="where alarms are posted as CloudEvents (default: nowhere)")
    return parser


def watched(folders: Sequence[Path], sha256: str = "") -> dict[str, Watched | None]:
    """What is watched by version; None for one whose folder has no reference.

    Raises InputError for a damaged one, and for any model but the one with that digest, if one is given.
    """
    found: dict[str, Watched | None] = {}
    for folder in folders:
        manifest = load_manifest(folder)
        need_digest(manifest, sha256)
        version = manifest.version
        reference = read_reference(folder, version)
        if reference is None:
            print(f"{version} has no reference in {folder}: it is not watched; fit the detector", file=sys.stderr, flush=True)
        found[version] = Watched(reference, Predictor(folder).values) if reference else None
    return found


def _serve(options: argparse.Namespace, settings: Settings) -> int:
    if not 0 < options.alpha < 1:
        raise InputError(f"--alpha is {options.alpha} but must be between 0 and 1: a probability a month.")
    connect(options.redis_url, timeout_s=2.0).close()
    tests = chosen_tests(options.numbers, options.texts, options.joint)
    all_versions, listener = watched(options.model, settings.model_sha256), bind(options.listen)
    found = {version: one for version, one in all_versions.items() if one}
    references = {version: one.reference for version, one in found.items()}

    async def run() -> None:
        store = Store(redis.asyncio.Redis.from_url(options.redis_url, socket_timeout=5.0))
        watch = Watch(store, found, Options(options.alpha, tests, options.moments, options.reply))
        intake = Intake(store, references, options.moments)
        app = application(Detector(store, intake, watch, all_versions))
        config = uvicorn.Config(app, http="httptools", access_log=False, log_config=None, timeout_graceful_shutdown=10)
        await uvicorn.Server(config).serve(sockets=[listener])

    print(
        f"detector of {', '.join(found) or 'no version'} listens on http://{options.listen.rpartition(':')[0]}:{listener.getsockname()[1]}",
        flush=True,
    )
    uvloop.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
