"""Scores of the same candidates trained with other seeds -> how much of each figure is the seed's: its spread over the seeds."""

from pathlib import Path
from typing import Any

import numpy as np

from components.candidate_scores import read_scores
from components.export_model import SEEDS
from components.trial_input import Decisions
from promolift.uplift.bootstrap import half_samples
from promolift.uplift.effects import Measured, price_at
from promolift.uplift.ranking import rank, rate
from promolift.uplift.value import Prediction, assign, best_promo, contribution

Figures = dict[str, float]


def seed_spread(models: Path, name: str, own: Prediction, decisions: Decisions, measured: Measured) -> dict[str, Any]:
    """`n` seeds, and mean, standard deviation and values of rate/qini and value/aipw over them; empty for one seed.

    Every seed's policy is judged at the budget on the same decisions with the same pseudo-outcomes: nothing but the seed differs.
    """
    files = sorted((models / SEEDS / name).glob("*.parquet"))
    if not files:
        return {}
    found = [figures(p, measured, decisions.card.budget_cents) for p in (own, *(read_scores(file, decisions) for file in files))]
    return {"n": len(found), **{figure: _spread([row[figure] for row in found]) for figure in found[0]}}


def figures(prediction: Prediction, measured: Measured, budget: float) -> Figures:
    """rate/qini of the scores and value/aipw of the policy at `budget`, both per decision, without intervals."""
    promo, score = best_promo(prediction)
    effect = contribution(measured.value, promo)
    least = half_samples(measured.trial.codes, measured.trial.shoppers, 2, 1)
    arm = assign(prediction, price_at(measured, prediction, budget))
    value = float(contribution(measured.value, arm).mean())
    return {"rate/qini": rate(rank(score), effect, least)["qini"].value, "value/aipw": value}


def _spread(values: list[float]) -> dict[str, Any]:
    return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)), "values": values}
