"""Effects on judged rows -> the numbers of result.json: every one with its id, interval and rows, and every id with its definition."""

from dataclasses import asdict, replace
from itertools import combinations
from typing import Any

import numpy as np

from promolift.uplift import metrics
from promolift.uplift.bootstrap import Estimate
from promolift.uplift.effects import Effects, Judged, Measured
from promolift.uplift.judge_curves import calibration_bins, gain_curve, spend_curve
from promolift.uplift.judge_input import Columns
from promolift.uplift.judge_options import has_cost
from promolift.uplift.metrics import Definition, metric
from promolift.uplift.value import Prediction

GAIN = replace(metrics.QINI, id="curve/gain", normaliser="per row: q TOC(q), the gain over giving the same share at random")
PATH = replace(metrics.VALUE, id="curve/value-against-spend", normaliser="per row, along the path of falling price of spend")
BINS = replace(
    metrics.ECE, id="calibration/bins", scaling="mean doubly robust effect in equal-count bins of the prediction", normaliser="none"
)
SEGMENT = replace(metrics.VALUE, id="segment/value-aipw", normaliser="per row of the segment; p of harm adjusted by Holm over segments")
Pair = tuple[Definition, Estimate]


def measured_records(
    effects: Effects, measured: Measured, predictions: dict[str, Prediction], columns: Columns, outcome: str
) -> dict[str, Any]:  # fmt: skip
    """Models, policies, paired differences and segments, and `definitions` of every id among them."""
    named = Names(columns, outcome)
    models = {name: _model(named, effects.models[name], predictions[name], measured) for name in predictions}
    value = named.define(metrics.VALUE)
    policies = {name: _record(value, estimate, effects.rows) for name, estimate in effects.others.items()}
    used = [definition for definition, _ in named.metrics(next(iter(effects.models.values())))]
    return {
        "rows_measured": effects.rows, "models": models, "policies": policies, "differences": _differences(named, effects),
        "segments": _segments(effects),
        "definitions": [asdict(d) for d in (*used, *(named.define(d) for d in (GAIN, PATH, BINS, SEGMENT)))],
    }  # fmt: skip


class Names:
    """What the numbers of one file are called: the outcome, the unit of spend and the source of the propensities."""

    def __init__(self, columns: Columns, outcome: str) -> None:
        self.outcome, self.unit, self.costs = outcome, f"{outcome} per row", has_cost(columns)
        self.propensity = "estimated: the arm shares of the file" if columns.estimated else "logged in the file"

    def define(self, definition: Definition, outcome: str = "", unit: str = "") -> Definition:
        """The definition for this file's outcome and propensities."""
        return replace(definition, outcome=outcome or self.outcome, unit=unit or self.unit, propensity=self.propensity)

    def metrics(self, model: Judged) -> list[Pair]:
        """Every metric of one model, in the order of the report."""
        spent = ("cost", "cents per row") if self.costs else ("promos given", "share of rows")
        found = [
            (self.define(metrics.VALUE), model.profit),
            (self.define(metrics.SPEND, *spent), model.spend),
            (self.define(metrics.QINI), model.qini),
            (self.define(metrics.AUTOC), model.autoc),
            (self.define(metrics.SLOPE, unit="measured effect per predicted one"), model.slope),
            (self.define(metrics.ECE, unit="share of the mean squared prediction"), model.ece),
        ]
        if self.costs:
            found.insert(2, (self.define(metrics.OWN_SPEND, *spent), model.own_spend))
        return found


def _record(definition: Definition, estimate: Estimate, rows: int) -> dict[str, Any]:
    found = metric(definition, estimate, rows)
    return {"id": definition.id, "value": found.value, "error": found.error, "interval": [found.low, found.high], "rows": rows}


def _model(named: Names, model: Judged, prediction: Prediction, measured: Measured) -> dict[str, Any]:
    constant = np.ptp(prediction.value) == 0
    pairs = [pair for pair in named.metrics(model) if not (constant and pair[0].id == metrics.SLOPE.id)]
    share = np.bincount(model.arm, minlength=len(measured.arms)) / len(model.arm)
    return {
        "metrics": {definition.id: _record(definition, estimate, measured.trial.rows) for definition, estimate in pairs},
        "price_of_spend": model.price, "mix": dict(zip(measured.arms, share.tolist(), strict=True)),
        "gain_curve": gain_curve(prediction, measured), "spend_curve": spend_curve(prediction, measured),
        "calibration": calibration_bins(prediction, measured),
    }  # fmt: skip


def _differences(named: Names, effects: Effects) -> list[dict[str, Any]]:
    """Each pair of models, and the candidate against each policy without a model, resample by resample."""
    parts = ((metrics.VALUE, "profit"), (metrics.QINI, "qini"), (metrics.AUTOC, "autoc"))
    found = []
    for one, other in combinations(effects.models, 2):
        left, right = effects.models[one], effects.models[other]
        for definition, part in parts:
            difference = getattr(left, part).minus(getattr(right, part))
            found.append({"of": one, "less": other, **_record(named.define(definition), difference, effects.rows)})
    mine, value = effects.profit(effects.chosen), named.define(metrics.VALUE)
    for policy, estimate in effects.others.items():
        found.append({"of": effects.chosen, "less": policy, **_record(value, mine.minus(estimate), effects.rows)})
    return found


def _segments(effects: Effects) -> list[dict[str, Any]]:
    return [
        {"segment": s.name, "rows": s.rows, "value": s.effect.value, "interval": list(s.effect.interval()), "holm_p_harm": s.p_harm}
        for s in effects.segments
    ]
