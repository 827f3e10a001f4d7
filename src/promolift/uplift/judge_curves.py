"""A model's scores and the measured effects -> the three curves of the report, each point with its clustered standard error."""

import numpy as np

from promolift.uplift.clusters import Floats, Integers, mean_error
from promolift.uplift.effects import Measured
from promolift.uplift.ranking import rank, toc_curve
from promolift.uplift.value import Prediction, best_promo, contribution, spend_path

POINTS = 50
BINS = 10
Curve = dict[str, list[float]]


def gain_curve(prediction: Prediction, measured: Measured) -> Curve:
    """Shares q from 0 and q TOC(q): the gain per row over giving the same share of rows the promo at random.

    The error is that of the influence function for a fixed order: mean of (effect - its mean) (1{in the top q} - q).
    """
    promo, score = best_promo(prediction)
    effect = contribution(measured.value, promo)
    ranking = rank(score)
    share, gain = toc_curve(ranking, effect, POINTS)
    place = np.empty(len(score))
    place[ranking.order] = (np.arange(len(score)) + 0.5) / len(score)
    codes, count = measured.trial.codes, measured.trial.shoppers
    error = [mean_error((effect - effect.mean()) * ((place <= q) - q), codes, count) for q in share]
    return {"share": [0.0, *share.tolist()], "gain": [0.0, *gain.tolist()], "error": [0.0, *error]}


def spend_curve(prediction: Prediction, measured: Measured) -> Curve:
    """Measured value against measured spend, both per row, as the price of a cent falls; it starts with giving nothing."""
    codes, count = measured.trial.codes, measured.trial.shoppers
    points = [(0.0, 0.0, 0.0)]
    for arm in spend_path(prediction):
        value, cost = contribution(measured.value, arm), contribution(measured.cost, arm)
        points.append((float(cost.mean()), float(value.mean()), mean_error(value, codes, count)))
    return dict(zip(("spend", "value", "error"), map(list, zip(*points, strict=True)), strict=True))


def calibration_bins(prediction: Prediction, measured: Measured, bins: int = BINS) -> Curve:
    """Mean predicted and mean measured effect of row-promo pairs in equal-count bins of the prediction; equal predictions share a bin."""
    promos = prediction.value.shape[1]
    predicted, effect = prediction.value.ravel(), (measured.value[:, 1:] - measured.value[:, :1]).ravel()
    codes, count = np.repeat(measured.trial.codes, promos), measured.trial.shoppers
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, bins + 1)[1:-1]))
    cells = np.searchsorted(edges, predicted, side="left")
    inside = [cells == cell for cell in np.unique(cells)]
    return {
        "predicted": [float(predicted[mask].mean()) for mask in inside],
        "measured": [float(effect[mask].mean()) for mask in inside],
        "error": [mean_error(effect[mask], codes[mask], count) for mask in inside],
        "pairs": [float(mask.sum()) for mask in inside],
    }


def arm_means(outcome: Floats, arm_weights: Floats, folds: Integers) -> Floats:
    """Mean outcome of every arm [n, K+1], taken from the rows of the other of two folds: the outcome model where there are no features.

    `arm_weights` [n, K+1]: 1 / propensity in the column of the arm given, else 0; `folds` [n]: 0 or 1, the same for a whole cluster.
    An arm without rows in the other fold gets that fold's mean over all arms.
    """
    mu = np.empty_like(arm_weights)
    for fold in (0, 1):
        other = folds != fold
        weight = arm_weights[other]
        total = weight.sum(axis=0)
        overall = float(weight.sum(axis=1) @ outcome[other] / total.sum()) if total.sum() > 0 else 0.0
        safe = np.where(total > 0, total, 1.0)
        mu[folds == fold] = np.where(total > 0, outcome[other] @ weight / safe, overall)
    return mu
