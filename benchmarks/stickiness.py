"""A canary of 10 % on a served run: every shopper asked before and after a restart must meet the same model; the share, and how far off."""

import argparse
import asyncio
import hashlib
import json
import shutil
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from benchmarks.document import write_block
from pipelines.demo_service import Service, served
from promolift.contracts.artifacts import read_manifest, write_json
from promolift.promotion.graph_change import changed, graph_text
from promolift.promotion.stages import SHARE

SHIPPED = Path(__file__).parent.parent / "serving/kserve/graph.yaml"
BATCH, CALLS = 100, 4
STAGE = "canary_10"
TAKEN = ("serving_model", "redis", "registry.db", "lake/landing/source.json")


def with_canary(run: Path, folder: Path) -> str:
    """A copy of what serving needs of the run, with a canary in its graph: the same model under another name. Returns that name."""
    for name in TAKEN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (run / name).is_dir() else shutil.copyfile)(run / name, folder / name)
    (folder / "redis/.lock").unlink(missing_ok=True)
    candidate = Path(shutil.copytree(folder / "serving_model", folder / "rollout/candidate"))
    content = (candidate / "model.tflite").read_bytes() + b"canary"  # the format ignores what follows it
    (candidate / "model.tflite").write_bytes(content)
    manifest = replace(read_manifest(candidate), name="canary", sha256=hashlib.sha256(content).hexdigest())
    write_json(candidate / "manifest.json", manifest)
    graph = changed(yaml.safe_load(SHIPPED.read_text(encoding="utf-8")), manifest.version, STAGE)
    (folder / "rollout/graph.yaml").write_text(graph_text(graph), encoding="utf-8")
    return manifest.version


async def models_of(door: Service, shoppers: Sequence[str]) -> list[str]:
    """Which model each shopper met; "" where none was asked."""
    limit = asyncio.Semaphore(CALLS)

    async def _ask(session: aiohttp.ClientSession, part: Sequence[str]) -> list[str]:
        asked = [
            {"request_id": uuid.uuid4().hex, "shopper_id": who, "moment": "2017-12-01T10:00:00Z", "deadline_ms": 30_000} for who in part
        ]
        async with limit, session.post(f"{door.url}/v1/decisions/batch", json={"requests": asked}) as answer:
            results = (await answer.json())["results"]
        return [str(((one["answer"] or {}).get("versions") or {}).get("predictor", "")) for one in results]

    async with aiohttp.ClientSession(headers={"X-API-Key": door.api_key}) as session:
        parts = [shoppers[i : i + BATCH] for i in range(0, len(shoppers), BATCH)]
        return [model for part in await asyncio.gather(*(_ask(session, part) for part in parts)) for model in part]


def measure(run: Path, count: int) -> dict[str, Any]:
    """Shares and how many shoppers met another model after the restart."""
    shoppers = [f"shopper-{number}" for number in range(count)]
    with tempfile.TemporaryDirectory() as at:
        folder = Path(at) / "run"
        model, met, seconds = with_canary(run, folder), [], []
        for _ in range(2):
            with served(folder) as door:
                began = time.perf_counter()
                met.append(asyncio.run(models_of(door, shoppers)))
                seconds.append(time.perf_counter() - began)
    share = met[0].count(model) / count
    return {
        "shoppers": count, "requests": 2 * count, "unanswered": sum(part.count("") for part in met),
        "met_another_after_restart": sum(one != two for one, two in zip(*met, strict=True)), "share": share,
        "points_off": round(100 * (share - SHARE[STAGE] / 10_000), 3), "requests_per_s": round(2 * count / sum(seconds)),
    }  # fmt: skip


def sentence(found: dict[str, Any]) -> str:
    """The figures as docs/review.md prints them."""
    return (
        f"{found['shoppers']:,} shoppers asked through engine and graph before a restart and after it ({found['requests']:,} requests): "
        f"{found['met_another_after_restart']} met another\nmodel, {found['unanswered']} got no answer; the candidate's share of 10 % was "
        f"{found['points_off']:+.2f} points off."
    )


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stickiness", description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("build/demo"), help="a finished run (%(default)s)")
    parser.add_argument("--shoppers", type=int, default=100_000, help="each asks once before and once after a restart (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/stickiness.json"), help="where figures go (%(default)s)")
    parser.add_argument("--document", type=Path, metavar="FILE", help="also write them between the markers of this file (docs/review.md)")
    options = parser.parse_args()
    found = measure(options.run, options.shoppers)
    write_json(options.out, found)
    print(json.dumps(found))
    if options.document:
        write_block(options.document, "stickiness", [sentence(found)])
    return int(bool(found["met_another_after_restart"] or found["unanswered"]))


if __name__ == "__main__":
    raise SystemExit(main())
