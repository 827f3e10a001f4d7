"""Rows of both splits -> a candidate of one honest causal forest a promo, grown by econml and served as a sum over trees.

Athey, Tibshirani and Wager (2019): at x the forest weighs the train rows, and the effect is their weighted regression of the outcome's
residual on the arm's. In a served file this is one division: both sums over the trees' leaves are exported.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.boosting import Rows, Splits, outcome_of, predict
from components.cross_fitting import with_scores
from components.examples_input import Batch, Examples
from components.export_model import Candidate, Scores
from components.harm_knots import features
from components.tree_export import Tree, forest_of, packed, positive, walk, wide_row

MOST_ROWS = 20_000
"""Rows, drawn by the seed, of those given the promo or no_promo that a forest is grown from: it bounds the time, not the memory."""
SETTINGS: dict[str, Any] = {
    "n_estimators": 100, "max_depth": 6, "min_samples_leaf": 50, "max_features": 0.4, "max_samples": 0.45, "honest": True,
    "inference": False, "fit_intercept": False, "n_jobs": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Moments:
    """n rows given the promo or no_promo: outcome's and arm's residuals [n] by cross-fitted means and logged propensities."""

    features: NDArray[np.float32]
    outcome: NDArray[np.float64]
    arm: NDArray[np.float64]


def causal_forest(examples: Examples, splits: Splits, cost: list[Any], seed: int) -> Candidate:
    """Effect of each promo against no_promo in the outcome's unit. The propensities are logged, so the arm's residual is exact."""
    scored = with_scores(examples, splits, seed)["train"]
    outcome = outcome_of(examples)(scored)
    grown = [_grow(moments(scored, outcome, arm, seed), seed) for arm in range(1, len(examples.card.arms))]
    above, below = (packed([_trees(forest, part) for forest in grown]) for part in ("precond", "jac"))
    cost_forest = forest_of(cost)

    def score(batch: Batch) -> Scores:
        found = features(batch)
        effects = [forest.predict(found)[:, 0] for forest in grown]
        return np.stack(effects, axis=1), np.maximum(predict(cost, found), 0)

    def serve(numeric: Any, attributes: Any) -> dict[str, Any]:
        row = wide_row(numeric, attributes)
        return {"value": walk(above, row) / walk(below, row), "cost": positive(walk(cost_forest, row))}

    return Candidate("causal_forest", serve, score, None, seed)


def moments(rows: Rows, outcome: NDArray[np.float64], arm: int, seed: int) -> Moments:
    """At most MOST_ROWS rows given `arm` or no_promo where both were possible; `rows` as cross_fitting.with_scores gives them.

    With e = p_a / (p_0 + p_a): the arm's residual is 1(arm = a) - e, the outcome's y - (1 - e) mu_0 - e mu_a. The first has mean 0
    given x by the design of the experiment, so that an error of mu does not bias the effect.
    """
    p = rows["propensities"]
    chosen = np.flatnonzero(np.isin(rows["arm"], (0, arm)) & (p[:, 0] > 0) & (p[:, arm] > 0))
    if len(chosen) > MOST_ROWS:
        chosen = np.sort(np.random.default_rng([seed, arm]).choice(chosen, MOST_ROWS, replace=False))
        print(f"causal_forest: promo {arm} learns from {MOST_ROWS} rows drawn from those of its two arms", flush=True)
    share = p[chosen, arm] / (p[chosen, 0] + p[chosen, arm])
    mean = (1 - share) * rows["mu"][chosen, 0] + share * rows["mu"][chosen, arm]
    return Moments(rows["features"][chosen], outcome[chosen] - mean, (rows["arm"][chosen] == arm) - share)


def _grow(found: Moments, seed: int) -> Any:
    from econml.grf import CausalForest  # noqa: PLC0415 (takes seconds; only where a forest was asked for)

    return CausalForest(**SETTINGS, random_state=seed).fit(found.features, found.arm[:, None], found.outcome)


def _trees(forest: Any, part: str) -> list[Tree]:
    """The forest's trees with the leaves' means of one part: `precond` (arm's residual x outcome's) or `jac` (arm's residual squared)."""
    return [_node(tree.tree_, getattr(tree.tree_, part).reshape(-1), 0) for tree in forest]


def _node(tree: Any, leaf: NDArray[np.float64], at: int) -> Tree:
    left, right = int(tree.children_left[at]), int(tree.children_right[at])
    if left < 0:
        return {"leaf_value": float(leaf[at])}
    children = {"left_child": _node(tree, leaf, left), "right_child": _node(tree, leaf, right)}
    rule = {"split_feature": int(tree.feature[at]), "threshold": float(tree.threshold[at]), "decision_type": "<=", "missing_type": "None"}
    return rule | children
