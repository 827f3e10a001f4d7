"""Effects at a budget -> which comparisons of policies say nothing about the scores: no budget at all, or scores too coarse to spend it."""

from dataclasses import dataclass

import numpy as np

from promolift.contracts.artifacts import Check
from promolift.uplift.effects import Effects

UNSPENT = 0.05
"""Share of the budget that a policy may leave unspent before the ties of its scores are held responsible."""
FEW_ROWS = 10.0
"""Promos that any budget may leave unspent: a budget is a number of cents, a policy a number of rows."""


@dataclass(frozen=True)
class Caveats:
    """`full`: models that give everybody a promo, for want of a budget; `ties`: models that cannot spend theirs, each with a sentence."""

    full: tuple[str, ...]
    ties: dict[str, str]

    @property
    def warnings(self) -> list[str]:
        """Sentences for the report."""
        if not self.full:
            return list(self.ties.values())
        return [
            f"Without --budget a promo goes to every row whose score is above 0, which is every row for {', '.join(self.full)}: what their "
            "policies earn then says nothing about the order of their scores. Give --budget to compare whom each would choose.",
            *self.ties.values(),
        ]


def caveats(effects: Effects, dearest: float) -> Caveats:
    """What to know before comparing the models' policies; `dearest`: highest mean cost of a promo, in the budget's unit per row."""
    limited = bool(np.isfinite(effects.budget))
    full = () if limited else tuple(name for name, model in effects.models.items() if np.all(model.arm > 0))
    slack = max(UNSPENT * effects.budget, FEW_ROWS * dearest / effects.rows)
    spends = {name: model.spend.value for name, model in effects.models.items() if limited and model.price > 0}
    ties = {
        name: f"Many rows share one score of {name} where its budget ends: it spends {spend:.3g} of {effects.budget:.3g}, and could earn "
        "more by drawing among them."
        for name, spend in spends.items()
        if effects.budget - spend > slack
    }
    return Caveats(full, ties)


def undecided(check: Check, effects: Effects, known: Caveats) -> Check:
    """The check, or "cannot tell" where two scores are compared by policies that say nothing of them.

    That is where both are equal for want of a budget, or where the check passes against a rival that ties keep from its budget.
    """
    chosen = effects.chosen
    rival = next((name for name in effects.models if check.name == f"profit_over_{name.replace(' ', '_')}"), chosen)
    if rival in known.ties and chosen not in known.ties and check.status == "passed":
        return Check(check.name, "cannot tell", None, None, known.ties[rival])
    if rival == chosen or not {rival, chosen} <= set(known.full):
        return check
    if not np.array_equal(effects.models[rival].arm, effects.models[chosen].arm):
        return check
    detail = f"Without --budget {chosen} and {rival} give every row the same arm, so profit cannot tell them apart; give --budget."
    return Check(check.name, "cannot tell", None, None, detail)
