"""`python -m serving.kserve COMMAND`: the decision service, piece by piece or whole, and what its log says."""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

from promolift.errors import InputError, PromoliftError
from promolift.settings import Settings, load
from serving.kserve.boxes import RULES, Sources


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; a failure is one sentence on stderr and the exit status of its kind."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        options = _parser(load()).parse_args(arguments)
        status: int = options.run(options)
    except PromoliftError as problem:
        print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
        return problem.exit_status
    return status


def _node(options: argparse.Namespace) -> int:
    # Feast would have prometheus_client share its values among processes through files, unless that is loaded before.
    import prometheus_client  # noqa: F401, PLC0415 (each command loads only what it needs)

    from serving.kserve.boxes import build  # noqa: PLC0415
    from serving.kserve.listen import bind  # noqa: PLC0415

    sources = Sources(options.redis_url, options.model, options.registry, options.rules, options.spill)
    box = build(options.box, sources, options.settings)
    listener = bind(f"{options.host}:{options.port}")
    name = options.model_name or box.name
    print(f"node {box.name} listens on http://{options.host}:{listener.getsockname()[1]}", flush=True)
    if options.server == "kserve":
        # kserve parses sys.argv when it is imported and would read our flags as its own.
        sys.argv = sys.argv[:1]
        from serving.kserve.model import serve as serve_model  # noqa: PLC0415

        serve_model(box, listener, name)
    else:
        from serving.kserve.node import serve  # noqa: PLC0415

        serve(box, name, listener, lambda: build(options.box, sources, options.settings), options.log_url)
    return 0


def _relay(options: argparse.Namespace) -> int:
    from serving.kserve.decision_log import relay  # noqa: PLC0415

    stop = _stopped()
    if not options.once:
        print("relay drains the decision stream", flush=True)
    place = options.kafka or options.lake
    count = relay(options.redis_url, _sink(options), options.spill, None if options.once else stop.wait, options.alive)
    print(f"relay wrote {count} entries to {place}", flush=True)
    return 0


def _settle(options: argparse.Namespace) -> int:
    from serving.kserve.spool import settle  # noqa: PLC0415

    settle(options.redis_url, options.spill, _stopped().wait, options.alive)
    return 0


def _stopped() -> Event:
    """An event that SIGINT or SIGTERM sets."""
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _sink(options: argparse.Namespace) -> Any:
    if options.kafka:
        from serving.kserve.log_kafka import KafkaLog  # noqa: PLC0415

        return KafkaLog(options.kafka)
    from serving.kserve.log_delta import DeltaLog  # noqa: PLC0415

    return DeltaLog(options.lake)


def _explain(options: argparse.Namespace) -> int:
    from serving.kserve.explain import explain  # noqa: PLC0415
    from serving.kserve.log_delta import read_decisions  # noqa: PLC0415

    found = read_decisions(options.run_folder / "lake", options.decision)
    if not found:
        raise InputError(f"Decision '{options.decision}' is not in the log of {options.run_folder}; take an id that it was answered with.")
    print(explain(found[0]))
    return 0


def _replay(options: argparse.Namespace) -> int:
    from serving.kserve.log_delta import read_decisions  # noqa: PLC0415
    from serving.kserve.replay import Replay  # noqa: PLC0415

    report = Replay(options.run_folder, options.settings.hash_salt).run(read_decisions(options.run_folder / "lake"))
    for difference in report.differences:
        print(difference)
    print(f"{report.equal} of {report.count} logged decisions came out bit for bit as they were")
    return 0 if report.equal == report.count else 1


def _shadow(options: argparse.Namespace) -> int:
    from serving.kserve.shadow import report, shadow  # noqa: PLC0415
    from serving.kserve.versions import keep  # noqa: PLC0415

    folder, settings = options.run_folder, options.settings
    if options.lake:  # what decided there is what this run and these settings say: nobody kept it beside that log
        keep(Sources("", folder / "serving_model", Path()), settings, folder)
    print(report(shadow(folder, settings.hash_salt, options.model, options.most, options.lake or folder / "lake")))
    return 0


def _reconcile(options: argparse.Namespace) -> int:
    from serving.kserve.reconcile import reconcile  # noqa: PLC0415

    return reconcile(options.run_folder / "lake", options.redis_url, rebuild=options.rebuild)


def _serve(options: argparse.Namespace) -> int:
    from serving.kserve.serve import Plan, serve  # noqa: PLC0415

    model = options.model or options.run_folder / "serving_model"
    registry = options.registry or options.run_folder / "registry.db"
    return serve(Plan(options.run_folder, model, registry, options.rules, options.listen, options.fused, options.detect), options.settings)


def _decide(options: argparse.Namespace) -> int:
    from serving.kserve.decide import Question, decide  # noqa: PLC0415

    question = Question(options.run_folder, options.shopper, options.count, options.moment, options.threads, options.skip)
    return decide(question, as_json=options.json)


def _parser(settings: Settings) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.kserve", description="The served decision graph.")
    parser.set_defaults(settings=settings)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_node(commands.add_parser("node", help="serve one box as a KServe node"), settings)
    _add_relay(commands.add_parser("relay", help="move logged decisions from Redis to the Delta table"), settings)
    _add_settle(commands.add_parser("settle", help="tell the ledger of what was answered without it (a pod's own spool)"), settings)
    _add_serve(commands.add_parser("serve", help="serve the whole graph for a finished run"))
    _add_decide(commands.add_parser("decide", help="ask a served engine for decisions"))
    _add_log(commands, settings)
    return parser


def _add_node(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.set_defaults(run=_node)
    parser.add_argument("box", help="transformer, eligibility, predictor or constraints")
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on")  # noqa: S104 (a container's port)
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument("--redis-url", default=settings.redis_url, help="online features and ledger")
    parser.add_argument("--model", type=Path, default=Path("/mnt/models"), help="model folder")
    parser.add_argument("--registry", type=Path, default=Path("registry.db"), help="Feast's registry file")
    parser.add_argument("--rules", type=Path, default=RULES, help="rules file")
    parser.add_argument("--spill", type=Path, default=Path("undelivered.jsonl"), help="records of decisions made without Redis")
    parser.add_argument("--log-url", default="", metavar="URL", help="send copies of requests and answers there, as KServe's logger does")
    parser.add_argument("--model_name", default="", metavar="NAME", help="the model's name in URLs, as KServe passes it (default: the box)")
    parser.add_argument(
        "--server", choices=("asgi", "kserve"), default="asgi", help="what serves it: our own server, or KServe's ModelServer"
    )


def _add_log(commands: Any, settings: Settings) -> None:
    explain = commands.add_parser("explain", help="a logged decision in plain words")
    explain.set_defaults(run=_explain)
    explain.add_argument("decision", help="the decision's id")
    replay = commands.add_parser("replay", help="make every logged decision again and compare bit for bit; exit status 1 when one differs")
    replay.set_defaults(run=_replay)
    beside = commands.add_parser("shadow", help="ask another model what it would have answered to logged decisions")
    beside.set_defaults(run=_shadow)
    beside.add_argument("--model", type=Path, required=True, help="model folder of the candidate")
    beside.add_argument("--lake", default="", help="a deployment's lake, whose log is meant (default: the run's own)")
    beside.add_argument("--most", type=int, default=5_000, help="look at so many of the newest decisions (%(default)s)")
    check = commands.add_parser("reconcile", help="hold the ledger's counters against the log; exit status 1 when they differ")
    check.set_defaults(run=_reconcile, rebuild=False)
    rebuild = commands.add_parser("rebuild", help="fill an empty Redis from the log: budgets, reservations, caps, answers to retries")
    rebuild.set_defaults(run=_reconcile, rebuild=True)
    for parser in (explain, replay, beside, check, rebuild):
        parser.add_argument("--run", dest="run_folder", type=Path, required=True, metavar="DIR", help="the served run's folder")
    for parser in (check, rebuild):
        parser.add_argument("--redis-url", default=settings.redis_url, required=not settings.redis_url, help="where the ledger is")


def _add_relay(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.set_defaults(run=_relay)
    parser.add_argument("--redis-url", default=settings.redis_url, help="where the ledger is")
    parser.add_argument("--lake", default="lake", metavar="PLACE", help="folder or s3:// of the log's Delta tables (%(default)s)")
    parser.add_argument("--kafka", default=settings.kafka, metavar="HOST:PORT", help="write to these brokers instead of the lake")
    parser.add_argument("--once", action="store_true", help="drain and end")
    _add_spool(parser)


def _add_settle(parser: argparse.ArgumentParser, settings: Settings) -> None:
    parser.set_defaults(run=_settle)
    parser.add_argument("--redis-url", default=settings.redis_url, help="where the ledger is")
    _add_spool(parser)


def _add_spool(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spill", type=Path, default=Path("undelivered.jsonl"), help="records of decisions made without Redis")
    parser.add_argument("--alive", type=Path, metavar="FILE", help="touched about once a second, for a liveness probe")


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_serve)
    parser.add_argument("--run", dest="run_folder", type=Path, required=True, metavar="DIR", help="a finished run's folder")
    parser.add_argument("--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="where the graph listens")
    parser.add_argument("--fused", action="store_true", help="decide in the engine's own process, without the four nodes")
    parser.add_argument("--detect", action="store_true", help="a drift detector takes copies of what the predictor is asked and answers")
    parser.add_argument("--model", type=Path, help="model folder (DIR/serving_model)")
    parser.add_argument("--registry", type=Path, help="Feast's registry file (DIR/registry.db)")
    parser.add_argument("--rules", type=Path, default=RULES, help="rules file")


def _add_decide(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_decide)
    parser.add_argument("--run", dest="run_folder", type=Path, required=True, metavar="DIR", help="the served run's folder")
    parser.add_argument("--shopper", help="shopper id (default: shoppers of the run)")
    parser.add_argument("--count", type=int, default=1, help="how many decisions")
    parser.add_argument("--threads", type=int, default=1, help="how many at a time")
    parser.add_argument("--skip", type=int, default=0, help="begin so many shoppers further on: whoever was asked about may have their cap")
    parser.add_argument("--moment", help="ISO 8601 UTC (default: the end of the run's data)")
    parser.add_argument("--json", action="store_true", help="print JSON")


if __name__ == "__main__":
    sys.exit(main())
