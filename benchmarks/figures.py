"""`python -m benchmarks.figures`: build/demo/summary.json and build/bench.json -> the figures between README's two markers."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.document import write_block


def _truth(truth: Mapping[str, Any]) -> list[str]:
    oracle = truth["oracle"]["profit"]
    name, profit = max(((n, p["profit_at_budget"]) for n, p in truth["single_promos"].items()), key=lambda item: item[1])
    rows = ["| policy | true profit, cents a decision | share of the oracle's | rank correlation with true uplift |", "|---|---|---|---|"]
    for candidate, model in truth["models"].items():
        rank = model["rank_correlation"]["all"]
        rows.append(f"| {candidate} | {model['profit']:.0f} | {model['share_of_oracle']:.1%} | {rank:.2f} |")
        served = model["served"]
        rows.append(f"| {candidate}, by the served rule | {served['profit']:.0f} | {served['share_of_oracle']:.1%} | |")
    return [*rows, f"| best single promo ({name}) | {profit:.0f} | {profit / oracle:.1%} | |", f"| oracle | {oracle:.0f} | 100.0% | |"]


def _lines(summary: Mapping[str, Any], bench: Mapping[str, Any]) -> list[str]:
    decisions, data, latency = summary["decisions"], bench["dataset"], summary["decisions"]["latency_ms"]
    metrics, (step, most) = bench["uplift_metrics"], max(summary["peak_gib"].items(), key=lambda item: item[1])
    peaks, network = data["peak_gib"], bench["dragonnet"]["ratio"]
    made = bench["decisions"]
    one, http, graph = made["fused"], made["http_fused"], made["http_graph"]
    examples = summary["tables"]["gold/examples"]["rows"]
    refused = summary["tables"]["silver/purchases"]["quarantined"]
    return [
        f"`make demo`, test shoppers, {truth_rows(summary):,} decisions, simulated effects on real histories:",
        "",
        *_truth(summary["truth"]),
        "",
        f"- {examples:,} examples; {refused:,} purchase lines in quarantine (products that the real data's own catalogue lacks).",
        f"- {decisions['count']} decisions over HTTP, {decisions['errors']} errors, p50 {latency['p50']} ms, p95 {latency['p95']} ms, "
        f"{decisions['share_no_promo']:.0%} no_promo.",
        f"- Most memory of any step{' that ran anew' if summary['reused'] else ''}: {most:.1f} GiB ({step}; proportional set size of all "
        "its processes).",
        f"- `make bench`, a decision in one process: p50 {one['p50_ms']:.2f} ms, p99 {one['p99_ms']:.2f} ms, {one['per_s']:,} a second; "
        f"four callers of the engine over HTTP: p95 {http['p95_ms']:.0f} ms with the boxes in its process, {graph['p95_ms']:.0f} ms behind "
        f"the graph; reservations: {made['ledger']['ratio']:.0%} of what the bare script gives the same 20 clients.",
        f"- `make bench`: data set build {data['spark_seconds']:.0f} s in one Spark process, start-up included, "
        f"{data['duckdb_seconds']:.1f} s in DuckDB on the same joins and windows (ratio {data['spark_over_duckdb']:.0f}); "
        f"{data['cells_that_differ']} cells differ; peak memory {peaks['spark']:.1f} GiB against {peaks['duckdb']:.1f} GiB.",
        f"- QINI and AUTOC of two models with paired intervals from {metrics['resamples']:,} half samples of {metrics['rows']:,} rows: "
        f"{metrics['ratio_scikit_uplift']:.0f} times faster than scikit-uplift, {metrics['ratio_causalml']:.0f} times than causalml, "
        f"peak memory {metrics['peak_gib']:.1f} GiB.",
        f"- Training rows a second of DragonNet, same widths, batch and epochs on the CPU: {network['warm']:.1f} times causalml's from the "
        f"second fit on, {network['steady']:.1f} times an epoch, {network['cold']:.1f} times where libraries are loaded and graphs built.",
    ]  # fmt: skip


def truth_rows(summary: Mapping[str, Any]) -> int:
    """Decisions that the truth was measured on."""
    return int(summary["truth"]["decisions"])


def main() -> None:
    """Rewrite README between the markers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures", description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("build/demo"), help="folder of a finished demo")
    parser.add_argument("--bench", type=Path, default=Path("build/bench.json"), help="result of make bench")
    options = parser.parse_args()
    lines = _lines(json.loads((options.run / "summary.json").read_text()), json.loads(options.bench.read_text()))
    readme = Path("README.md")
    write_block(readme, "python -m benchmarks.figures", ["", *lines, ""])


if __name__ == "__main__":
    main()
