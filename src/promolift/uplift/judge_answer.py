"""Columns, checks and effects -> the answer in words: what is muted, what is left out, what to be warned of, and the verdict's sentence."""

from typing import Any

import numpy as np

from promolift.contracts.artifacts import Check
from promolift.uplift.bootstrap import Mask
from promolift.uplift.effects import BEST_SINGLE, CHAMPION, Effects
from promolift.uplift.gate import effect_checks, power_line
from promolift.uplift.judge_input import Columns
from promolift.uplift.judge_options import Roles, has_cost


def silence(columns: Columns, roles: Roles, possible: Mask) -> str:
    """Why no check about effects can be answered; empty when they can."""
    if not possible.any():
        return f"All {len(possible)} rows lack some arm as a possibility (propensity 0): no row can inform an effect."
    outcome = columns.outcome[possible]
    if np.ptp(outcome) == 0:
        return f"The outcome is {outcome[0]:g} in all {len(outcome)} rows: no policy can be told from any other."
    if np.ptp(columns.scores[roles.candidate]) == 0:
        value = columns.scores[roles.candidate].flat[0]
        return f"Score '{roles.candidate}' is {value:g} in all {len(outcome)} rows: it orders nobody, so there is nothing to judge."
    return ""


def muted(check: Check, silent: str, roles: Roles) -> Check:
    """The check, or "cannot tell" with the sentence `silent` where that is given and the check is about effects."""
    about = (*effect_checks(roles.baselines), "profit_over_champion")
    return Check(check.name, "cannot tell", None, None, silent) if silent and check.name in about else check


def left_out(columns: Columns) -> dict[str, str]:
    """Checks that the file cannot answer and that are therefore not asked, each with its reason."""
    found = {}
    if columns.estimated:
        found["propensity_completeness"] = "The file logs no propensities that could be incomplete."
        found["sample_ratio"] = "The propensities are the file's own arm shares, which cannot contradict its arm counts."
        found["propensity_weights"] = "Weights made of the file's own arm shares average 1 by construction."
    if not has_cost(columns):
        why = "All costs are zero" if columns.cost is not None else "No cost column was given"
        found["spend_within_budget"] = f"{why}: a promo counts as 1, and spend is the share of rows that get one, which is known."
    if not columns.segments:
        found["no_harmed_segment"] = "No segment was declared (--segment), so harm to a part of the rows was not looked for."
    return found


def answer(checks: tuple[Check, ...], roles: Roles) -> dict[str, Any]:
    """`answer` passed, not passed or cannot tell, its `sentence`, and the reasons, failures first."""
    failed = [check for check in checks if check.status == "failed"]
    unsure = [check for check in checks if check.status == "cannot tell"]
    name, total = f"'{roles.candidate}'", len(checks)
    if failed:
        found, text = "not passed", f"{name} does not pass: {len(failed)} of {total} checks failed ({_names(failed)})."
    elif unsure:
        found = "cannot tell"
        text = f"These data cannot tell if {name} is good enough: no answer to {len(unsure)} of {total} checks ({_names(unsure)})."
    else:
        instead = f", and it may replace '{roles.champion}'" if roles.champion else ""
        found, text = "passed", f"{name} passes all {total} checks{instead}."
    return {"answer": found, "sentence": text, "reasons": [f"{c.name}: {c.detail}" for c in (*failed, *unsure)]}


def _names(checks: list[Check]) -> str:
    shown = [check.name.replace("_", " ") for check in checks[:3]]
    return ", ".join(shown) + (f" and {len(checks) - 3} more" if len(checks) > 3 else "")


def propensity_line(columns: Columns) -> str:
    """Where the propensities come from; the report's first line when they were not logged."""
    if columns.estimated:
        return "Propensities were not logged: the arm shares of this file stand in for them, as if every row had had the same chances."
    return "Propensities are those that the file logs."


def power(effects: Effects | None) -> str:
    """The gate's power line, or why there is none."""
    if effects is None:
        return ""
    rival = CHAMPION if CHAMPION in effects.models else BEST_SINGLE
    if effects.profit(effects.chosen).minus(effects.profit(rival)).error == 0:
        hint = "" if np.isfinite(effects.budget) else "; set --budget"
        return f"Power: at this budget {effects.chosen} and {rival} give every row the same arm, so no gain can be sized{hint}."
    return power_line(effects)


def dropped(possible: Mask) -> list[str]:
    """A note about rows that inform no effect."""
    impossible = int((~possible).sum())
    return [f"{impossible:,} rows where some arm was impossible (propensity 0) inform no effect and are left out."] if impossible else []
