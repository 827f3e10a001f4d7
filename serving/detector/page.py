"""A version's looks -> what its page shows: alarms by what they cost, each column's distribution beside training's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from promolift.drift.columns import Rows
from promolift.drift.look import kind_of
from promolift.drift.reference import Reference
from promolift.drift.sketch import BINS, column_names, day_of_rows, numeric_count, together, width

SHOWN_DAYS = 7
GROUPS = 16
"""Bars of a number's distribution: bins of equal shares in training, so training's bars are level."""


def page_of(reference: Reference, answer: Mapping[str, Any], looks: Sequence[Mapping[str, Any]], rows: Sequence[Rows]) -> dict[str, Any]:
    """What the template fills in. `rows`: those of the last days, newest last."""
    shown = [own for own in rows if len(own)]
    drawn = _drawn(reference, shown) if shown else {}
    first = [finding["column"] for finding in answer.get("findings", ())] + [finding["column"] for finding in answer.get("nearest", ())]
    order = [*dict.fromkeys(first), *(name for name in drawn if name not in first)]
    return {
        "answer": answer, "looks": looks[-31:][::-1], "period": reference.period, "days": len(shown),
        "columns": [{"name": name, "kind": kind_of(reference.columns, name), **drawn[name]} for name in order if name in drawn],
    }  # fmt: skip


def _drawn(reference: Reference, rows: Sequence[Rows]) -> dict[str, dict[str, Any]]:
    names = column_names(reference.columns)
    window = together([day_of_rows(reference, own) for own in rows], width(reference.columns)).counts
    training = reference.weekday.sum(axis=0)
    return {name: _bars(reference, name, place, training[place], window[place]) for place, name in enumerate(names) if window[place].any()}


def _bars(reference: Reference, name: str, place: int, training: Any, window: Any) -> dict[str, Any]:
    if place < numeric_count(reference.columns):
        there, here = (part[:BINS].reshape(GROUPS, -1).sum(axis=1) for part in (training, window))
        ends = reference.edges[place][BINS // GROUPS - 1 :: BINS // GROUPS]
        labels = [*(f"up to {end:.4g}" for end in ends), "more"]
    else:
        values = (*reference.columns.texts.get(name, ("no", "yes")), "never seen")
        there, here, labels = training[: len(values)], window[: len(values)], list(values)
    there, here = there / max(there.sum(), 1), here / max(here.sum(), 1)
    top = float(np.max([there, here], initial=1e-9))
    return {"bars": [
        {"label": label, "training": round(100 * a / top, 1), "now": round(100 * b / top, 1), "told": f"{label}: {a:.1%}, now {b:.1%}"}
        for label, a, b in zip(labels, there, here, strict=True) if a or b
    ]}  # fmt: skip
