"""`python -m benchmarks.guardrails`: how often a sound canary is stopped, and how soon a broken one is, by simulation.

Every run is looked at after every LOOK decisions, by the code that watches a real canary, with the shipped limits but margins of zero for
the false alarms: with their margins the guardrails would hardly ever alarm, and nothing would have been tested. Shoppers come several
times, with habits of their own, so decisions of one shopper are alike. Writes --out and the tables of docs/review.md.
"""

import argparse
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.document import write_block
from promolift.contracts.artifacts import write_json
from promolift.promotion.guardrails import Columns, Foretold, Limits, Margins, judge_columns, read_limits
from promolift.uplift.clusters import Floats

SHARE, LOOK, PLANNED = 0.1, 250, 1_000
TINY = 1e-9
PROMOS = np.array(["no_promo", "p0", "p1", "p2", "p3"])
BROKEN: dict[str, dict[str, float]] = {
    "late: 5 % of the canary's decisions fail": {"failed": 0.05}, "late: 20 % fail": {"failed": 0.2},
    "slow: 30 % over the limit": {"slow": 0.3}, "always promotes": {"never_none": 1.0}, "reserves twice as much": {"cents": 2.0},
}  # fmt: skip


def world(rng: np.random.Generator, count: int, **broken: float) -> Columns:
    """`count` decisions of shoppers with habits; `broken`: what the canary does beyond the control."""
    shoppers = rng.integers(0, max(10, count // 4), count)
    canary = np.char.add("s", shoppers.astype(str))
    inside = rng.random(shoppers.max() + 1)[shoppers] < SHARE
    habit: Floats = rng.beta(2, 3, shoppers.max() + 1)[shoppers]
    none = (rng.random(count) < habit) & ~(inside & (rng.random(count) < broken.get("never_none", 0.0)))
    arm = np.where(none, 0, rng.integers(1, len(PROMOS), count))
    failed = rng.random(count) < np.where(inside, 0.005 + broken.get("failed", 0.0), 0.005)
    slow = rng.random(count) < np.where(inside, 0.02 + broken.get("slow", 0.0), 0.02)
    cents = np.where(arm == 0, 0.0, 50.0 + 60.0 * arm) * np.where(inside, broken.get("cents", 1.0), 1.0)
    degraded = rng.random(count) < 0.01
    return Columns(inside, PROMOS[arm], canary, failed, degraded, np.where(slow, 500.0, 5.0), cents, np.full(count, 0.5))


def stopped(table: Columns, limits: Limits) -> tuple[int, str]:
    """Decisions until the first alarm and its guardrail; (0, "") for none. Looked at after every LOOK decisions."""
    for count in range(LOOK, len(table.canary) + 1, LOOK):
        guards = judge_columns(table.first(count), SHARE, limits, Foretold(), PLANNED)
        if broken := [guard.name for guard in guards if guard.status == "broken"]:
            return count, broken[0]
    return 0, ""


def measure(runs: int, seed: int = 1) -> dict[str, Any]:
    """False alarms over `runs` sound canaries with margins of zero, and delays of broken ones with the shipped margins."""
    limits, rng = read_limits(), np.random.default_rng(seed)
    strict = replace(limits, margins=Margins(**dict.fromkeys(asdict(limits.margins), TINY)))
    count = int(PLANNED / SHARE)
    alarms = Counter(name for _ in range(runs) if (name := stopped(world(rng, count), strict)[1]))
    delays = {}
    for name, broken in BROKEN.items():
        ends = [stopped(world(rng, count, **broken), limits)[0] for _ in range(max(20, runs // 20))]
        found = [end * SHARE for end in ends if end]
        delays[name] = {"found": len(found) / len(ends), "median": float(np.median(found)) if found else None}
    rate = sum(alarms.values()) / runs
    error = 1.96 * float(np.sqrt(rate * (1 - rate) / runs))
    return {
        "runs": runs, "looks": count // LOOK, "alpha": limits.alpha, "false_alarms": rate,
        "interval": [max(0.0, rate - error), rate + error],
        "by_guardrail": {name: number / runs for name, number in sorted(alarms.items())}, "delays": delays,
    }  # fmt: skip


def written(found: dict[str, Any], document: Path) -> None:
    """Write the tables between the markers of the document."""
    low, high = found["interval"]
    lines = [
        f"{found['runs']:,} sound canaries, each looked at {found['looks']} times, with margins of zero: {found['false_alarms']:.1%} were",
        f"stopped (95 % interval {low:.1%} to {high:.1%}); alpha is {found['alpha']:.0%}.",
        "",
        "| what is broken | found before the horizon | decisions of the canary until then (median) |",
        "|---|---|---|",
        *(f"| {name} | {row['found']:.0%} | {row['median'] or 'never'} |" for name, row in found["delays"].items()),
    ]
    write_block(document, "guardrails", lines)


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guardrails", description=__doc__)
    parser.add_argument("--runs", type=int, default=2_000, help="sound canaries (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/guardrails.json"), help="where figures go (%(default)s)")
    parser.add_argument("--document", type=Path, help="also write them between the markers of this file (docs/review.md)")
    options = parser.parse_args()
    began = time.perf_counter()
    found = measure(options.runs)
    write_json(options.out, found)
    if options.document:
        written(found, options.document)
    print(f"{found['false_alarms']:.2%} false alarms of {found['runs']} in {time.perf_counter() - began:.0f} s: {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
