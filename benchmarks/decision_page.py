"""`python -m benchmarks.decision_page`: a real request through every box, what each adds and how long it takes -> docs/decision.md."""

import argparse
import json
import shutil
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import SecretStr

from loadtests.run import baskets
from promolift.contracts.artifacts import read_source_card
from promolift.contracts.decisions import NODES, Envelope, dump, read_request
from promolift.contracts.engine import answer_of
from promolift.policy.ledger import Ledger
from promolift.redis_server import redis_server
from promolift.settings import Settings
from serving.engine.openapi import document
from serving.kserve.boxes import Sources, build, keys_of
from serving.kserve.explain import explain
from serving.kserve.redis_client import client
from serving.kserve.replay import Replay
from serving.kserve.stamp import Box
from serving.kserve.versions import keep

ADDS = {"transformer": ("shopper",), "eligibility": ("candidates",), "predictor": ("scores",), "constraints": ("decision", "token")}
SAYS = {
    "transformer": "reads the shopper's online features, one HMGET on Feast's Redis, and says how old they are.",
    "eligibility": "looks the rules up in masks that were compiled once, and makes a sentence for every promo that they refuse.",
    "predictor": "asks the LiteRT model: value, lower bound and cost of every candidate. Whom it cannot know gets the means of a segment.",
    "constraints": "takes the arm of the largest estimate less lambda times cost among those whose bound is not negative and that the "
    "ledger can give, or explores; budget, caps, reservation and log record are one Redis script. Then the token is signed.",
}
TIMES = 300
MOST_SHOWN = 6


def page(run: Path) -> str:
    """The page for the first basket of the run whose shopper is given a promo."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(run / "redis", Path(folder) / "redis", ignore=shutil.ignore_patterns(".lock"))
        with redis_server(Path(folder) / "redis") as url:
            settings = Settings(token_keys={"page-1": SecretStr("a key of thirty-two bytes or more")}, budget_cents=10**9)
            sources = Sources(url, run / "serving_model", run / "registry.db", spill=Path(folder) / "spill.jsonl")
            keep(sources, settings, Path(folder))
            boxes = [build(name, sources, settings) for name in NODES]
            steps = _granted(boxes, run)
            times = _times(boxes, steps[0])
            replayed = Replay(Path(folder), settings.hash_salt).run([steps[-1]])
            offer = keys_of(settings).verify(str(steps[-1].token), store_id="")
            stream = Ledger(client(url)).stream
    lines = [HEAD, _block("The request", dump(steps[0].request))]
    for name, envelope in zip(NODES, steps[1:], strict=True):
        added = {key: _short(dump(envelope)[key]) for key in ADDS[name]}
        lines += [f"## {name}", "", f"It {SAYS[name]} {times[name]:.2f} ms.", _block("", added)]
    answer = {key: value for key, value in _plain(answer_of(steps[-1])).items() if key not in ("versions", "timings_ms")}
    lines += ["## The answer", "", f"`POST /v1/decisions` ({document()['info']['title']}) answers:", _block("", answer)]
    lines += ["A till reads the token offline:", _block("", vars(offer))]
    lines += [
        "## Afterwards",
        "",
        f"The record went to the Redis stream `{stream}` in the reservation's own script, from there to Delta or Kafka.",
    ]
    lines += [f"Replayed with the recorded versions: {replayed.equal} of {replayed.count} equal. `explain` says:", "", "```"]
    return "\n".join([*lines, explain(steps[-1]), "```", ""])


HEAD = """# One decision, box by box

Made by `python -m benchmarks.decision_page` from a run of `make demo`: a real basket of Complete Journey, the trained model, a real Redis.
Times are medians of 300 decisions in one process on an otherwise idle machine of 2 cores; behind the graph each box is a service and the
envelope travels as JSON. Long lists are cut (…).
"""


def _granted(boxes: list[Box], run: Path) -> list[Envelope]:
    """The envelopes after each box, of a request that ends with the best promo."""
    moment = read_source_card(run / "lake").as_of
    for number, basket in enumerate(baskets(run / "lake")):
        asked = {"request_id": f"page-{number}", "shopper_id": basket["shopper_id"], "moment": moment, "basket": basket["lines"]}
        steps = [Envelope(read_request(asked))]
        for box in boxes:
            steps.append(box(steps[-1]))
        if steps[-1].decision and steps[-1].decision.reason == "best_profit":
            return steps
    raise SystemExit("No basket of the run is given a promo; train a run whose model is promoted.")


def _times(boxes: list[Box], start: Envelope) -> dict[str, float]:
    """Median milliseconds of each box over requests that differ in their ids."""
    found: dict[str, list[float]] = {name: [] for name in NODES}
    for number in range(TIMES):
        envelope = replace(start, request=replace(start.request, request_id=f"time-{number}"))
        for box in boxes:
            began = perf_counter()
            envelope = box(envelope)
            found[box.name].append((perf_counter() - began) * 1000)
    return {name: statistics.median(times) for name, times in found.items()}


def _short(value: Any) -> Any:
    """Without most of a long mapping."""
    if isinstance(value, dict):
        kept = {key: _short(inner) for key, inner in list(value.items())[:MOST_SHOWN]} if len(value) > 2 * MOST_SHOWN else value
        return (
            {**kept, "…": f"{len(value) - MOST_SHOWN} more"} if kept is not value else {key: _short(inner) for key, inner in value.items()}
        )
    return value


def _plain(value: Any) -> dict[str, Any]:
    from pydantic import TypeAdapter  # noqa: PLC0415

    found: dict[str, Any] = TypeAdapter(type(value)).dump_python(value, mode="json")
    return found


def _block(title: str, value: Any) -> str:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return f"{title}\n\n```json\n{text}\n```\n" if title else f"\n```json\n{text}\n```\n"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decision_page", description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("build/demo"), help="a finished run (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("docs/decision.md"), help="the page (%(default)s)")
    options = parser.parse_args()
    options.out.write_text(page(options.run), encoding="utf-8")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
