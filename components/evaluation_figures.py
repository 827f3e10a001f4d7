"""Curves of metrics.json -> curves.png and spend.png. Colours are Okabe and Ito's, line styles differ too; no display is needed."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_STYLES = {
    "uplift_net": ("#0072B2", "-"), "lightgbm": ("#D55E00", "--"), "response": ("#009E73", "-."), "champion": ("#CC79A7", ":"),
}  # fmt: skip
_OTHERS = ("#E69F00", "#56B4E9", "#F0E442", "#000000")
"""Colours of the candidates beyond those, in turn; their lines differ by dashes of growing length."""


def style(name: str, others: list[str]) -> tuple[str, Any]:
    """Colour and line of a model; `others`: all names without a style of their own, in order."""
    if name in _STYLES:
        return _STYLES[name]
    number = others.index(name)
    return _OTHERS[number % len(_OTHERS)], (0, (2 + 2 * number, 2))


def draw_curves(document: dict[str, Any], path: Path) -> None:
    """Gain over random targeting against the share of decisions, one line a model with its pointwise 95 % band."""
    figure, axes = _figure()
    for name, model in document["models"].items():
        curve = model["gain_curve"]
        _band(axes, (name, document["models"]), curve["share"], curve["gain"], curve["error"])
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("share of decisions, best predicted first")
    axes.set_ylabel(f"q TOC(q), {document['unit']}")
    axes.set_title(f"rate/qini is the area under each line ({document['source']['name']}, test split)")
    _save(figure, axes, path)


def draw_spend(document: dict[str, Any], path: Path) -> None:
    """Measured value against measured spend, one line a model, the single promos as points, the budget (where reached) a vertical line."""
    figure, axes = _figure()
    for name, model in document["models"].items():
        curve = model["spend_curve"]
        _band(axes, (name, document["models"]), curve["spend"], curve["value"], curve["error"])
    most = max((point["spend"] for point in document["single_promos"].values()), default=0.0)
    for promo, point in document["single_promos"].items():
        left, side = (-3, "right") if point["spend"] > 0.8 * most else (3, "left")  # a name at the edge would be cut off
        axes.plot(point["spend"], point["value"], "k.", markersize=6)
        axes.annotate(promo, (point["spend"], point["value"]), fontsize=7, xytext=(left, 3), textcoords="offset points", ha=side)
    reached = axes.get_xlim()[1]
    if document["budget_cents"] <= reached:  # else the line alone would squeeze the curves
        axes.axvline(document["budget_cents"], color="grey", linestyle=":", linewidth=1, label="budget")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("spend, cents per decision")
    axes.set_ylabel(f"value over giving nothing, {document['unit']}")
    axes.set_title("value/aipw against spend/aipw; points: one promo to everybody")
    _save(figure, axes, path)


def draw_calibration(document: dict[str, Any], path: Path) -> None:
    """Measured against predicted effect of the chosen model in bins of equal count, with 95 % intervals; calibrated: on the line."""
    figure, axes = _figure()
    bins = document["models"][document["chosen"]]["calibration"]
    predicted, measured, error = (np.asarray(bins[name]) for name in ("predicted", "measured", "error"))
    axes.errorbar(predicted, measured, yerr=1.96 * error, fmt="o", color=_STYLES["uplift_net"][0], capsize=3, label=document["chosen"])
    ends = [float(predicted.min()), float(predicted.max())]
    axes.plot(ends, ends, color="grey", linestyle=":", linewidth=1, label="measured = predicted")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel(f"predicted effect of a promo, {document['unit']}")
    axes.set_ylabel(f"measured effect, {document['unit']}")
    axes.set_title("calibration of the effects: all promos, bins of equal count")
    _save(figure, axes, path)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.5, 4.5), dpi=110, layout="constrained")
    return figure, figure.subplots()


def _band(axes: Axes, model: tuple[str, Any], x: list[float], y: list[float], error: list[float]) -> None:
    name, models = model
    colour, line = style(name, [other for other in models if other not in _STYLES])
    order = np.argsort(x, kind="stable")
    across, middle, half = (np.asarray(part)[order] for part in (x, y, error))
    axes.plot(across, middle, color=colour, linestyle=line, linewidth=1.8, label=name)
    axes.fill_between(across, middle - 1.96 * half, middle + 1.96 * half, color=colour, alpha=0.12, linewidth=0)


def _save(figure: Figure, axes: Axes, path: Path) -> None:
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Software": None})
