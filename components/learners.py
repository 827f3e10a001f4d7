"""Rows of both splits -> LightGBM candidates: T-, X- and DR-learner of each promo's effect, and the response model, which has no effect.

All learn from the same rows, labels and features; a promo's cost is another booster, the same for all.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.boosting import PARAMETERS, Column, Fit, Parameters, Rows, Splits, fit, kind_of, of_arm, outcome_of, predict, with_arm
from components.cross_fitting import with_scores
from components.examples_input import Batch, Examples
from components.export_model import Candidate, Scores
from components.harm_knots import features
from components.tree_export import forest_of, link, positive, walk, wide_row, with_arms


def t_learner(examples: Examples, splits: Splits, cost: list[Any], seed: int, changed: Parameters = PARAMETERS) -> Candidate:
    """Outcome of each arm by its own booster; value is the difference to no_promo's."""
    kind, arms = kind_of(examples), range(len(examples.card.arms))
    outcome = [fit(splits, Fit(of_arm(arm), outcome_of(examples), kind), seed, changed) for arm in arms]
    forest = forest_of([*outcome, *cost])

    def score(batch: Batch) -> Scores:
        found = features(batch)
        mean = predict(outcome, found)
        return mean[:, 1:] - mean[:, :1], np.maximum(predict(cost, found), 0)

    def serve(numeric: Any, attributes: Any) -> dict[str, Any]:
        sums = walk(forest, wide_row(numeric, attributes))
        mean = link(sums[:, : len(arms)], kind)
        return {"value": mean[:, 1:] - mean[:, :1], "cost": positive(sums[:, len(arms) :])}

    return Candidate("lightgbm", serve, score, None, seed)


def x_learner(examples: Examples, splits: Splits, cost: list[Any], seed: int, changed: Parameters = PARAMETERS) -> Candidate:
    """X-learner (Künzel, Sekhon, Bickel and Yu 2019, section 2), each promo against no_promo.

    Treated rows teach y - mu_0(x), control rows mu_a(x) - y; no row is compared with a model that saw it. A served shopper has no
    logged propensity, so that the weight g of the control rows' effect is the mean of p_a / (p_0 + p_a), which the paper allows.
    """
    outcome, kind, promos = outcome_of(examples), kind_of(examples), range(1, len(examples.card.arms))
    first = [fit(splits, Fit(of_arm(arm), outcome, kind), seed, changed) for arm in (0, *promos)]

    def gap(arm: int, sign: float) -> Column:
        return lambda rows: sign * (outcome(rows) - predict([first[arm]], rows["features"])[:, 0])

    treated = [fit(splits, Fit(of_arm(arm), gap(0, 1.0)), seed, changed) for arm in promos]
    control = [fit(splits, Fit(of_arm(0), gap(arm, -1.0)), seed, changed) for arm in promos]
    return _of_effects("x_learner", treated, cost, seed, others=control, weight=control_weights(splits["train"]))


def control_weights(rows: Rows) -> NDArray[np.float32]:
    """[K] mean over rows of p_a / (p_0 + p_a), where either was possible."""
    p = rows["propensities"]
    either = p[:, :1] + p[:, 1:]
    possible = either > 0
    share = np.where(possible, p[:, 1:] / np.where(possible, either, 1.0), 0.0)
    return np.asarray(share.sum(axis=0) / np.maximum(possible.sum(axis=0), 1), dtype=np.float32)


def dr_learner(examples: Examples, splits: Splits, cost: list[Any], seed: int, changed: Parameters = PARAMETERS) -> Candidate:
    """DR-learner (Kennedy 2023, section 3): each promo's cross-fitted AIPW effect, learnt from every row that could be given both."""
    scored = with_scores(examples, splits, seed, changed)

    def effect(arm: int) -> Column:
        return lambda rows: rows["gamma"][:, arm] - rows["gamma"][:, 0]

    def possible(arm: int) -> Column:
        return lambda rows: (rows["propensities"][:, arm] > 0) & (rows["propensities"][:, 0] > 0)

    arms = range(1, len(examples.card.arms))
    effects = [fit(scored, Fit(possible(arm), effect(arm)), seed, changed) for arm in arms]
    return _of_effects("dr_learner", effects, cost, seed)


def _of_effects(
    name: str, effects: Sequence[Any], cost: list[Any], seed: int, *, others: Sequence[Any] = (), weight: Any = 0.0
) -> Candidate:  # fmt: skip
    """Value [P] is (1 - weight) x effects + weight x others (none: effects alone)."""
    count = len(effects)
    forest = forest_of([*effects, *others, *cost])

    def mixed(sums: Any) -> Any:
        return sums[:, :count] * (1 - weight) + sums[:, count : 2 * count] * weight if others else sums[:, :count]

    def score(batch: Batch) -> Scores:
        found = features(batch)
        return mixed(predict([*effects, *others], found)), np.maximum(predict(cost, found), 0)

    def serve(numeric: Any, attributes: Any) -> dict[str, Any]:
        sums = walk(forest, wide_row(numeric, attributes))
        return {"value": mixed(sums), "cost": positive(sums[:, count + len(others) :])}

    return Candidate(name, serve, score, None, seed)


def response(examples: Examples, splits: Splits, cost: list[Any], seed: int) -> Candidate:
    """One booster of the outcome of treated shoppers with the arm as a feature; value is that outcome, nothing subtracted."""
    kind, arms = kind_of(examples), np.arange(1, len(examples.card.arms))
    wanted = Fit(lambda rows: rows["arm"] > 0, outcome_of(examples), kind, lambda rows: with_arm(rows["features"], rows["arm"]))
    outcome = fit(splits, wanted, seed)
    outcome_forest, cost_forest = forest_of([outcome]), forest_of(cost)

    def score(batch: Batch) -> Scores:
        found = features(batch)
        value = [predict([outcome], with_arm(found, np.full(len(found), arm))) for arm in arms]
        return np.concatenate(value, axis=1), np.maximum(predict(cost, found), 0)

    def serve(numeric: Any, attributes: Any) -> dict[str, Any]:
        row = wide_row(numeric, attributes)
        value = link(walk(outcome_forest, with_arms(row, arms)), kind)
        return {"value": value[None, :, 0], "cost": positive(walk(cost_forest, row))}

    return Candidate("response", serve, score, None, seed)
