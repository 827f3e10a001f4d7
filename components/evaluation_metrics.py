"""Effects of the test split -> metrics.json: every number with its definition, standard error, interval and rows."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.trial_input import Decisions
from promolift.contracts.promos import NO_PROMO
from promolift.uplift import metrics, qini
from promolift.uplift.bootstrap import Estimate, half_samples
from promolift.uplift.clusters import Floats, mean_error
from promolift.uplift.effects import Effects, Judged
from promolift.uplift.metrics import Definition, metric
from promolift.uplift.off_policy import Options, all_estimates, chosen, difference
from promolift.uplift.value import Prediction


def model_metrics(name: str, effects: Effects, decisions: Decisions) -> dict[str, Any]:
    """One model's ranking, policy and calibration, with the off-policy value by self-normalised weights beside the doubly robust one."""
    judged = effects.models[name]
    outcome, unit = decisions.outcome
    named: list[tuple[Definition, Estimate]] = [
        (metrics.QINI.of(outcome, unit), judged.qini),
        (metrics.AUTOC.of(outcome, unit), judged.autoc),
        (metrics.VALUE.of(outcome, unit), judged.profit),
        (metrics.SPEND.of("promo cost", "cents per decision"), judged.spend),
        (metrics.OWN_SPEND.of("promo cost", "cents per decision"), judged.own_spend),
        (metrics.SLOPE.of(outcome, f"measured {unit} per predicted one"), judged.slope),
        (metrics.ECE.of(outcome, "share of the mean squared prediction"), judged.ece),
    ]
    records = {definition.id: _record(definition, estimate, decisions) for definition, estimate in named}
    return {"metrics": records, "policy": _policy(judged, decisions)}


def _record(definition: Definition, estimate: Estimate, decisions: Decisions) -> dict[str, Any]:
    """The metric with where its propensities come from; one of raw arms uses none."""
    sourced = replace(definition, propensity=decisions.propensities) if definition.propensity == "logged" else definition
    return metric(sourced, estimate, decisions.trial.rows).record()


def _policy(judged: Judged, decisions: Decisions) -> dict[str, Any]:
    arms, trial = decisions.card.arms, decisions.trial
    share = np.bincount(judged.arm, minlength=len(arms)) / len(judged.arm)
    targets = chosen(judged.arm, len(arms)), chosen(np.zeros_like(judged.arm), len(arms))
    outcome, unit = decisions.outcome
    snips = difference("snips", decisions.value, trial, targets, options=Options(outcome=outcome, unit=unit), policies=("policy", NO_PROMO))
    return {"price_of_a_cent": judged.price, "mix": dict(zip(arms, share.tolist(), strict=True)), "snips": snips.record()}


def off_policy_values(effects: Effects, decisions: Decisions, mean: Floats, single: str) -> dict[str, list[dict[str, Any]]]:
    """Value per decision of the chosen model's policy, of its mix dealt at random, and of `single`, by every estimator.

    Levels, not differences to no_promo. `mean` [n, K+1]: the outcome model's value of each arm; `single` was chosen on other rows.
    """
    arms, (outcome, unit) = decisions.card.arms, decisions.outcome
    target = chosen(effects.models[effects.chosen].arm, len(arms))
    options = Options(outcome=outcome, unit=unit, propensity=decisions.propensities)
    found = all_estimates(decisions.value, decisions.trial, target, mean, best=arms.index(single), options=options)
    return {policy: [value.record() for value in values] for policy, values in found.items()}


def arm_metrics(prediction: Prediction, decisions: Decisions, resamples: int, seed: int) -> dict[str, Any]:
    """Each promo against no_promo on the binary outcome: `qini/raw-local` and `qini/sklift` of this model's scores for that promo."""
    found = {}
    for index, promo in enumerate(decisions.card.arms[1:]):
        rows = np.isin(decisions.trial.arm, (0, index + 1))
        trial = decisions.trial.take(rows)
        samples = half_samples(trial.codes, trial.shoppers, resamples, seed)
        treated = (trial.arm > 0).astype(np.int64)
        estimates = qini.estimate(decisions.binary[rows], treated, prediction.value[rows, index], samples)
        units = ("outcomes times share of the rows", "share of the perfect order's area")
        definitions = [d.of(decisions.card.binary_outcome, u) for d, u in zip((metrics.RAW_LOCAL, metrics.SKLIFT), units, strict=True)]
        found[promo] = {d.id: metric(d, e, trial.rows).record() for d, e in zip(definitions, estimates, strict=True)}
    return found


def policy_metrics(effects: Effects, decisions: Decisions) -> dict[str, Any]:
    """Value of the policies that need no model, and the chosen model's paired difference to every other policy."""
    outcome, unit = decisions.outcome
    definition = metrics.VALUE.of(outcome, unit)
    values = {name: _record(definition, estimate, decisions) for name, estimate in effects.others.items()}
    mine = effects.profit(effects.chosen)
    rivals = [name for name in (*effects.models, *effects.others) if name != effects.chosen]
    differences = {name: _record(definition, mine.minus(effects.profit(name)), decisions) for name in rivals}
    return {"values": values, "chosen_less_other": differences}


def segment_metrics(effects: Effects) -> list[dict[str, Any]]:
    """Value of the chosen policy per decision in each predeclared segment, strongest sign of harm first."""
    return [
        {"segment": s.name, "rows": s.rows, "value": s.effect.value, "interval": list(s.effect.interval()), "holm_p_harm": s.p_harm}
        for s in effects.segments
    ]


def programme_effect(decisions: Decisions, held_out: NDArray[np.bool_]) -> dict[str, Any] | None:
    """Mean outcome of everybody in the experiment less that of the holdout, per decision; None without holdout rows."""
    if not held_out.any() or held_out.all():
        return None
    sides = [(decisions.value[rows], decisions.trial.take(rows)) for rows in (~held_out, held_out)]
    value = float(sides[0][0].mean() - sides[1][0].mean())
    error = math.hypot(*(mean_error(outcome, trial.codes, trial.shoppers) for outcome, trial in sides))
    return {
        "id": "programme/against-holdout", "value": value, "error": error, "interval": [value - 1.96 * error, value + 1.96 * error],
        "rows": int((~held_out).sum()), "holdout_rows": int(held_out.sum()), "unit": decisions.outcome[1],
    }  # fmt: skip


def finite(document: Any) -> Any:
    """The document with numbers that JSON has no word for (NaN, infinity) as null."""
    if isinstance(document, dict):
        return {key: finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document
