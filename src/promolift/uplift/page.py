"""Verdict document -> one self-contained HTML page, verdict first; it loads nothing and needs no script."""

import math
from pathlib import Path
from typing import Any

from promolift.uplift.libraries import library
from promolift.uplift.plots import calibration_plot, gain_plot, spend_plot

TEMPLATE = Path(__file__).with_name("page.html.j2")


def render(document: dict[str, Any]) -> str:
    """The page's text. Raises UnavailableError where jinja2 or matplotlib is not installed."""
    jinja2 = library("jinja2", "Writing report.html")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {"number": number, "count": lambda value: f"{int(value):,}", "percent": percent, "words": words}
    environment.filters |= filters
    plots = {"spend": spend_plot, "gain": gain_plot, "calibration": calibration_plot} if document["models"] else {}
    figures = {name: plot(document) for name, plot in plots.items()}
    return str(environment.get_template(TEMPLATE.name).render(d=document, figures=figures, order=_order(document)))


def _order(document: dict[str, Any]) -> list[str]:
    """Ids of the metrics in the order of the definitions."""
    measured = {name for model in document["models"].values() for name in model["metrics"]}
    return [definition["id"] for definition in document["definitions"] if definition["id"] in measured]


def number(value: Any) -> str:
    """A figure for reading: three significant digits below 100, whole numbers with commas from 1,000; a dash for none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if value == 0:
        return "0"  # of either sign
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.3g}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(value: float | None) -> str:
    """A share as a percentage with one digit."""
    return "–" if value is None else f"{100 * value:.1f} %"


def words(name: str) -> str:
    """The name of a check as words."""
    return name.replace("_", " ")
