"""gold/lift of a demo's run against the truth of its simulated experiment: how many intervals hold it, and what CUPED saves."""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.document import write_block
from promolift.contracts.artifacts import write_json
from promolift.contracts.tables import EVERYBODY, EXPOSURES, LIFT, TRUTH
from promolift.delta_rows import Row, read_rows


def truths(run: Path) -> dict[tuple[str, str], float]:
    """Mean true profit (cents a decision) of each promo against none, by bucket and promo."""
    buckets = {row["exposure_id"]: row["bucket"] for row in read_rows(run / "lake" / EXPOSURES.path, ("exposure_id", "bucket"))}
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in read_rows(run / TRUTH.layer, ("exposure_id", "promo_id", "profit_cents")):
        found[buckets.get(row["exposure_id"], ""), row["promo_id"]].append(row["profit_cents"])
    return {key: sum(values) / len(values) for key, values in found.items()}


def measure(run: Path) -> dict[str, Any]:
    """Promos whose adjusted interval holds the truth, and the variance that adjusting saves."""
    where = f"WHERE experiment = 'assignments' AND segment = '{EVERYBODY}' AND metric = 'profit_cents'"
    rows = read_rows(run / "lake" / LIFT.path, LIFT.names, where)
    true = truths(run)
    promos = [row for row in rows if row["contrast"] == "arm" and row["method"] == "cuped"]
    held = [row["low"] <= true[row["bucket"], row["arm"]] <= row["high"] for row in promos]
    programme = [row for row in rows if row["contrast"] == "programme"]
    return {"promos": len(promos), "held": sum(held), "saved": _saved(rows, "arm"), "programme": [_told(row) for row in programme],
            "programme_saved": _saved(rows, "programme")}  # fmt: skip


def _saved(rows: list[Row], contrast: str) -> float:
    """Share of the variance that adjusting saves, over all comparisons of a kind."""
    squares = {
        method: sum(r["error"] ** 2 for r in rows if (r["contrast"], r["method"]) == (contrast, method)) for method in ("plain", "cuped")
    }
    return float(1.0 - squares["cuped"] / squares["plain"])


def _told(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in ("bucket", "method", "effect", "low", "high")}


def sentence(found: dict[str, Any]) -> str:
    """The figures as docs/review.md prints them."""
    one = {row["method"]: row for row in found["programme"] if row["bucket"] == "uniform"}
    plain, cuped = (f"{row['effect']:.0f} cents a decision ({row['low']:.0f} to {row['high']:.0f})" for row in (one["plain"], one["cuped"]))
    held, of, saved, programme = found["held"], found["promos"], found["saved"], found["programme_saved"]
    return (
        f"On the demo's data, whose true effects are known, {held} of {of} intervals of a promo's profit hold the truth.\n"
        f"Adjusting saves {saved:.0%} of the variance of a promo's profit and {programme:.0%} of the programme's: bucket `uniform`\n"
        f"brings {plain} more than the holdout before, {cuped} after adjusting."
    )


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lift", description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("build/demo"), help="a run of `make demo` after `make lift` (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/lift.json"), help="where figures go (%(default)s)")
    parser.add_argument("--document", type=Path, help="also write them between the markers of this file (docs/review.md)")
    options = parser.parse_args()
    found = measure(options.run)
    write_json(options.out, found)
    if options.document:
        write_block(options.document, "lift", [sentence(found)])
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
