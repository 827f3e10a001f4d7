"""`python -m serving.engine serve|key|token`: the promo engine's door, its API keys, and a till's check of a token."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promolift.errors import PromoliftError
from promolift.settings import Settings, load
from serving.kserve.boxes import RULES, Sources


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; a failure is one sentence on stderr and the exit status of its kind."""
    try:
        settings = load()
        options = _parser(settings).parse_args(arguments)
        status: int = options.run(options, settings)
    except PromoliftError as problem:
        print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
        return problem.exit_status
    return status


def _serve(options: argparse.Namespace, settings: Settings) -> int:
    import uvloop  # noqa: PLC0415 (each command loads only what it needs)

    from serving.engine.serve import Plan, serve  # noqa: PLC0415
    from serving.kserve.listen import bind  # noqa: PLC0415
    from serving.logs import as_json  # noqa: PLC0415
    from serving.traces import start  # noqa: PLC0415

    as_json(logging.INFO)
    start("promolift-engine")
    sources = Sources(options.redis_url, options.model, options.registry, options.rules, options.spill, options.rollout)
    plan = Plan(sources, options.graph, options.keys, options.lake, options.threads)
    listener = bind(options.listen)
    host, port = listener.getsockname()[:2]
    uvloop.run(serve(plan, settings, listener, f"engine listens on http://{host}:{port}"))
    return 0


def _key(options: argparse.Namespace, _: Settings) -> int:
    from serving.engine.auth import keys_in  # noqa: PLC0415

    print(keys_in(options.keys).add(options.name, options.scopes.split(",")))
    return 0


def _token(options: argparse.Namespace, settings: Settings) -> int:
    from serving.kserve.boxes import keys_of  # noqa: PLC0415

    offer = keys_of(settings).verify(options.token, store_id=options.store, shopper_id=options.shopper)
    print(f"valid: promo {offer.promo_id}, at most {offer.cents / 100:.2f}, until {offer.expires_at}, reservation {offer.reservation_id}")
    return 0


def _parser(settings: Settings) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.engine", description="The promo engine API in front of the decision graph.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(
        commands.add_parser("serve", help="serve the engine, with the graph's boxes in this process or behind --graph URL"), settings
    )
    key = commands.add_parser("key", help="make an API key; it is printed once, the file keeps its hash")
    key.set_defaults(run=_key)
    key.add_argument("--keys", type=Path, required=True, metavar="FILE", help="the file of keys")
    key.add_argument("--name", required=True, help="who will use it")
    key.add_argument("--scopes", default="decide", help="comma-separated: decide, redeem, operate (%(default)s)")
    token = commands.add_parser("token", help="check a promo token offline, as a till does (needs PROMOLIFT_TOKEN_KEYS)")
    token.set_defaults(run=_token)
    token.add_argument("token", help="what the shopper shows")
    token.add_argument("--store", default="", help="the till's store")
    token.add_argument("--shopper", help="the shopper, where the till knows who it is")
    return parser


def _add_serve(parser: argparse.ArgumentParser, settings: Settings) -> None:
    add: Any = parser.add_argument
    parser.set_defaults(run=_serve)
    add("--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="where to listen (%(default)s)")
    add("--graph", metavar="URL", help="the InferenceGraph to ask; without it the four boxes run in this process")
    add("--keys", type=Path, required=True, metavar="FILE", help="API keys, as `key` makes them")
    add("--redis-url", default=settings.redis_url, help="online features and ledger")
    add("--model", type=Path, default=Path("/mnt/models"), help="model folder (%(default)s)")
    add("--registry", type=Path, default=Path("registry.db"), help="Feast's registry file (%(default)s)")
    add("--rules", type=Path, default=RULES, help="rules file")
    add("--lake", default="lake", metavar="PLACE", help="folder or s3:// of the decision log, to explain from (%(default)s)")
    add("--spill", type=Path, default=Path("undelivered.jsonl"), help="answers given without the ledger, until it knows them (%(default)s)")
    add("--rollout", type=Path, metavar="DIR", help="without --graph: folder of a canary's graph and model, read anew by SIGHUP")
    add("--threads", type=int, default=2, help="decisions at a time, with the boxes in this process (%(default)s)")


if __name__ == "__main__":
    sys.exit(main())
