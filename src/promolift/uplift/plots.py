"""Curves of the verdict document -> inline SVG: Okabe and Ito's colours, a line style of its own for every model, ink as on the page.

Text and axes are drawn in `currentColor`, so the same figure is read on a light and on a dark page; no file, font or script is loaded.
"""

import html
import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from promolift.uplift.libraries import library

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
INK = "#010203"
"""Stands for the page's text colour; replaced by `currentColor` in the finished SVG."""
LONGEST = 28
Z = 1.96
Draw = Callable[[Any], None]


def gain_plot(document: dict[str, Any]) -> str:
    """`curve/gain` of every model with its pointwise 95 % band."""

    def draw(axes: Any) -> None:
        for index, (name, model) in enumerate(document["models"].items()):
            curve = model["gain_curve"]
            _band(axes, index, _label(document, name), curve["share"], curve["gain"], error=curve["error"])
        axes.set_xlabel("share of rows, best score first")
        axes.set_ylabel(f"gain over random, {document['unit']}")

    return _svg("gain", "Gain over giving the same share of rows a promo at random, by share of rows, one line a model", draw)


def spend_plot(document: dict[str, Any]) -> str:
    """`curve/value-against-spend` of every model with its pointwise 95 % band, and the budget where there is one."""
    spend = "spend, cents per row" if document["has_cost"] else "share of rows that get a promo"

    def draw(axes: Any) -> None:
        for index, (name, model) in enumerate(document["models"].items()):
            curve = model["spend_curve"]
            _band(axes, index, _label(document, name), curve["spend"], curve["value"], error=curve["error"])
        budget = document["settings"]["budget"]
        if budget is not None and budget <= axes.get_xlim()[1]:  # a budget out of reach would squeeze the curves
            axes.axvline(budget, color=INK, linestyle=":", linewidth=1)
            axes.annotate("budget", (budget, 1), xycoords=("data", "axes fraction"), xytext=(3, -10), textcoords="offset points", color=INK)
        axes.set_xlabel(spend)
        axes.set_ylabel(f"value over nothing, {document['unit']}")

    return _svg("spend", "Measured value against measured spend per row, one line a model", draw)


def calibration_plot(document: dict[str, Any]) -> str:
    """`calibration/bins` of the candidate: measured against predicted effect with 95 % intervals; calibrated points lie on the line."""
    name = document["scores"][document["candidate"]]
    bins = document["models"][name]["calibration"]

    def draw(axes: Any) -> None:
        x, y, error = (np.asarray(bins[part], dtype=np.float64) for part in ("predicted", "measured", "error"))
        axes.errorbar(x, y, yerr=Z * np.nan_to_num(error), fmt="o", color=COLOURS[0], capsize=3, label="bins of equal count")
        ends = np.array([x.min(), x.max()])
        low, high = float(np.min(y - Z * error)), float(np.max(y + Z * error))
        if ends[1] > low and ends[0] < high:  # the line crosses the plot
            axes.plot(ends, ends, color=INK, linewidth=1, linestyle="--", label="calibrated")
            if ends[1] - ends[0] > 3 * (high - low):  # scores on another scale must not flatten the bins
                axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
        axes.set_xlabel(f"score '{_short(document['candidate'])}', mean of the bin")
        axes.set_ylabel(f"measured effect, {document['unit']}")

    return _svg("calibration", "Measured effect against predicted effect in bins of equal count, with 95 % intervals", draw)


def _label(document: dict[str, Any], name: str) -> str:
    score = next((score for score, key in document["scores"].items() if key == name), name)
    return f"{_short(score)} (champion)" if score == document["champion"] else _short(score)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _band(axes: Any, index: int, label: str, x: list[float], y: list[float], *, error: list[float]) -> None:
    order = np.argsort(x, kind="stable")
    across, middle, half = (np.asarray(part, dtype=np.float64)[order] for part in (x, y, error))
    colour, style = COLOURS[index % len(COLOURS)], LINES[index % len(LINES)]
    marker = MARKERS[index % len(MARKERS)] if len(x) < 3 else ""
    axes.plot(across, middle, color=colour, linestyle=style, marker=marker, linewidth=2, label=f" {label}")  # a label from "_" is dropped
    axes.fill_between(across, middle - Z * half, middle + Z * half, color=colour, alpha=0.15, linewidth=0)


def _svg(name: str, description: str, draw: Draw) -> str:
    """The figure as an <svg> element; `name` makes its ids differ from those of the page's other figures."""
    matplotlib = library("matplotlib", "Drawing the report's curves")
    figures = library("matplotlib.figure", "Drawing the report's curves")
    ink = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "legend.labelcolor"), INK)
    fixed = {"svg.fonttype": "none", "svg.hashsalt": name, "text.parse_math": False, "font.size": 10, "font.family": "sans-serif"}
    with matplotlib.rc_context(ink | fixed), io.StringIO() as text:
        figure = figures.Figure(figsize=(6.0, 3.9), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
        blank = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=blank)
        drawn = text.getvalue()
    return _inline(drawn, name, description)


def _inline(svg: str, name: str, description: str) -> str:
    """The element without XML head, with ids of its own, a spoken description and the page's ink."""
    element = svg[svg.index("<svg") :].replace(INK, "currentColor")
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'((?:xlink:)?href="|url\()#', rf"\1#{name}-", element)
    return element.replace("<svg ", f'<svg role="img" aria-label="{html.escape(description, quote=True)}" ', 1)
