"""summary.json and the evaluation -> report.html: one file that needs no other, to be read in five minutes."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from promolift.contracts.artifacts import CANDIDATES
from promolift.uplift.page import number, percent

TEMPLATES = Path(__file__).with_name("templates")
FIGURES = {
    "curves.png": "Gain over giving the same share of shoppers a promo at random, by share of shoppers, with clustered 95 % bands",
    "spend.png": "Measured value against measured spend per decision as the price of a cent of budget falls",
    "calibration.png": "Measured against predicted effect of the chosen model, bins of equal count with 95 % intervals",
}
FIRST = ("value/", "spend/", "rate/", "calibration/")
"""Order of the metrics: what the policy earns, what it spends, how well it orders shoppers, how true its sizes are."""
WIDTH = 420.0
"""Pixels between the ends of an interval plot's axis."""


def write_report(folder: Path, summary: dict[str, Any]) -> Path:
    """Write DIR/report.html from `summary` and DIR/evaluation; returns its path."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "count": lambda value: f"{int(value):,}", "percent": percent}
    measured = json.loads((folder / "evaluation" / "metrics.json").read_text(encoding="utf-8")) if summary["gate"] else {}
    text = environment.get_template("report.html.j2").render(
        summary=summary, measured=measured, figures=_figures(folder / "evaluation"), forest=forest(measured),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), longest=max(_tasks(summary).values(), default=1.0) or 1.0,
        tasks=_tasks(summary), models=_ordered_models(measured), metrics=_ordered_metrics(measured),
    )  # fmt: skip
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


def _tasks(summary: dict[str, Any]) -> dict[str, float]:
    return {name: seconds for name, seconds in summary["seconds"].items() if name != "total"}


def _ordered_models(measured: dict[str, Any]) -> dict[str, Any]:
    """The candidates in their usual order, then any other model, such as the champion."""
    found = measured.get("models", {})
    return {name: found[name] for name in (*CANDIDATES, *found) if name in found}


def _ordered_metrics(measured: dict[str, Any]) -> list[str]:
    """Ids of the metrics that every model has."""
    ids: dict[str, Any] = next(iter(measured.get("models", {}).values()), {"metrics": {}})["metrics"]
    return sorted(ids, key=lambda name: next((i for i, prefix in enumerate(FIRST) if name.startswith(prefix)), len(FIRST)))


def _figures(evaluation: Path) -> list[dict[str, str]]:
    found = [(evaluation / name, text) for name, text in FIGURES.items() if (evaluation / name).exists()]
    return [{"data": base64.b64encode(path.read_bytes()).decode(), "text": text} for path, text in found]


def forest(measured: dict[str, Any]) -> dict[str, Any] | None:
    """Places (pixels) of the chosen model's paired differences to every other policy on one axis through zero; None without any."""
    rows = measured.get("policies", {}).get("chosen_less_other", {})
    known = {name: r for name, r in rows.items() if None not in (r["value"], *r["interval"])}
    if not known:
        return None
    low = min(0.0, *(r["interval"][0] for r in known.values()))
    high = max(0.0, *(r["interval"][1] for r in known.values()))

    def place(value: float) -> float:
        return round(float(WIDTH * (value - low) / ((high - low) or 1.0)), 1)

    bars = [
        {"name": name, "record": r, "from": place(r["interval"][0]), "to": place(r["interval"][1]), "at": place(r["value"])}
        for name, r in known.items()
    ]
    return {"zero": place(0.0), "width": WIDTH, "bars": bars}
