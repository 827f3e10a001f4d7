"""Checked columns of a randomised experiment -> the verdict document that result.json holds and the page shows.

The gate of the training pipeline judges; only what a file cannot answer is left out, each with its reason, and never counted as passed.
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from promolift.errors import InputError
from promolift.uplift.audit import Audit, audit
from promolift.uplift.bootstrap import Mask
from promolift.uplift.clusters import Floats
from promolift.uplift.effects import Effects, Measured, choose, contribution_means, measure
from promolift.uplift.gate import DEFAULT_LIMITS, WEIGHTS, judge, trust
from promolift.uplift.judge_answer import answer, dropped, left_out, muted, power, propensity_line, silence
from promolift.uplift.judge_budget import Caveats, caveats, undecided
from promolift.uplift.judge_curves import arm_means
from promolift.uplift.judge_input import Columns
from promolift.uplift.judge_options import Options, Roles, assign_roles, check_options, has_cost
from promolift.uplift.judge_records import measured_records
from promolift.uplift.scores import Trial, aipw, make_trial, no_overlap, overlap
from promolift.uplift.segments import quantile_masks
from promolift.uplift.value import Prediction

LEAST_CLUSTERS = 4
"""Clusters of every arm without which neither two folds nor a half sample can hold the arm."""
MANY_VALUES = 12
"""Distinct numbers from which a segment column is cut into four parts."""


def document(columns: Columns, outcome: str, options: Options) -> dict[str, Any]:
    """The whole verdict, with numbers unrounded. `outcome`: its column's name. Raises InputError as `check_options` and `aipw` do."""
    check_options(columns, options)
    roles = assign_roles(columns, options)
    trial = make_trial(columns.arm, columns.propensities, columns.clusters)
    _enough(columns, trial)
    found, possible = audit(trial), ~no_overlap(trial)
    wrong = (check.detail for check in trust(found) if check.name == WEIGHTS and check.status == "failed")
    silent = silence(columns, roles, possible) or next(wrong, "")
    records: dict[str, Any] = {"models": {}, "definitions": []}
    effects, known = None, Caveats((), {})
    if _answerable(found, columns, possible):
        measured = _measured(columns, trial, possible, options)
        effects, predictions = _effects(columns, roles, measured, possible, options)
        known = caveats(effects, float(contribution_means(measured.cost).max()))
        records = measured_records(effects, measured, predictions, columns, outcome)
    unasked = left_out(columns)
    verdict = judge(found, effects, baselines=roles.baselines)
    asked = (undecided(c, effects, known) if effects else c for c in verdict.checks if c.name not in unasked)
    checks = tuple(muted(check, silent, roles) for check in asked)
    return {
        **answer(checks, roles), "checks": [asdict(check) for check in checks], "left_out": unasked,
        "propensities": propensity_line(columns), "estimated": columns.estimated, "power": "" if silent else power(effects),
        "warnings": [*columns.warnings, *known.warnings], "notes": [*columns.notes, *dropped(possible)],
        "scores": roles.key, "candidate": roles.candidate, "champion": roles.champion, "outcome": outcome, "unit": f"{outcome} per row",
        "has_cost": has_cost(columns), "file": columns.facts, "audit": asdict(found), "overlap": asdict(overlap(trial)),
        "clusters": trial.shoppers, "simulated": options.simulated, "settings": asdict(options) | {"limits": asdict(DEFAULT_LIMITS)},
        **records,
    }  # fmt: skip


def _answerable(found: Audit, columns: Columns, possible: Mask) -> bool:
    """Whether effects can be computed: propensities that pass, rows where every arm was possible, an outcome that varies."""
    trusted = all(check.status == "passed" for check in trust(found))
    return trusted and bool(possible.any()) and float(np.ptp(columns.outcome[possible])) > 0


def _enough(columns: Columns, trial: Trial) -> None:
    for index, name in enumerate(columns.arms):
        rows = np.flatnonzero(trial.arm == index)
        clusters = len(np.unique(trial.codes[rows]))
        if clusters < LEAST_CLUSTERS:
            where = f", row {rows[0] + 1} of those judged for one" if len(rows) else ""
            raise InputError(
                f"Arm '{name}' has {len(rows)} of {trial.rows} rows from {clusters} randomised units{where}; cross-fitting and half "
                f"samples need {LEAST_CLUSTERS} units or more of every arm."
            )


def _measured(columns: Columns, trial: Trial, possible: Mask, options: Options) -> Measured:
    """Doubly robust pseudo-outcomes of outcome and cost; without costs a promo counts as 1, so that spend is the share of rows."""
    kept = trial.take(possible)
    folds = np.random.default_rng(options.seed).permutation(kept.shoppers)[kept.codes] % 2
    weights = np.where(kept.arm[:, None] == np.arange(len(columns.arms)), 1.0 / kept.given[:, None], 0.0)

    def gamma(values: Floats) -> Floats:
        return aipw(values, kept, arm_means(values, weights, folds))

    counted = np.tile((np.arange(len(columns.arms)) > 0).astype(np.float64), (kept.rows, 1))
    cost = gamma(columns.cost[possible]) if columns.cost is not None and has_cost(columns) else counted
    return Measured(kept, gamma(columns.outcome[possible]), cost, columns.arms)


def _effects(
    columns: Columns, roles: Roles, measured: Measured, possible: Mask, options: Options
) -> tuple[Effects, dict[str, Prediction]]:  # fmt: skip
    """The scores come without predicted costs, so each promo is taken to cost what it cost on average, but not less than nothing."""
    paid = np.tile(np.maximum(contribution_means(measured.cost), 0.0), (measured.trial.rows, 1))
    predictions = {roles.key[name]: Prediction(table[possible], paid) for name, table in columns.scores.items()}
    budget = np.inf if options.budget is None else options.budget
    candidate = roles.key[roles.candidate]
    # The best single promo is chosen on the judged rows themselves, which flatters this rival of the candidate and never the candidate.
    choice = choose(measured, {candidate: predictions[candidate]}, budget)
    masks = _segments(columns, possible)
    effects = measure(measured, predictions, choice, budget=budget, segments=masks, resamples=options.resamples, seed=options.seed)
    return effects, predictions


def _segments(columns: Columns, possible: Mask) -> dict[str, Any]:
    types = {column["name"]: column["type"] for column in columns.facts["columns"]}
    masks: dict[str, Any] = {}
    for name, (codes, values) in columns.segments.items():
        part = codes[possible]
        if len(values) > MANY_VALUES and types[name] in ("number", "whole number"):
            masks |= quantile_masks(name, part.astype(np.float64))
        else:
            masks |= {f"{name} = {text}": part == code for code, text in enumerate(values) if (part == code).any()}
    return masks
