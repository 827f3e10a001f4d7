"""One promo against no_promo: outcomes, treatment and scores -> the Qini curve with local arm ratio, and its area.

Q(k) = YT(k) - YC(k) nT(k) / nC(k) over the top k rows (second term 0 while nC = 0); only the last row of each distinct score is a
point of the curve (ties collapsed), and (0, 0) is put before. This is the curve of Gutierrez and Gerardy (2017) as scikit-uplift
draws it. It compares raw arms: it is unbiased only where the shares of the two arms are the same for every row.
"""

import numpy as np

from promolift.errors import InputError
from promolift.uplift.bootstrap import Estimate, HalfSamples
from promolift.uplift.clusters import Floats, Integers
from promolift.uplift.ranking import rank


def qini_curve(outcome: Floats, treated: Integers, score: Floats) -> tuple[Floats, Floats]:
    """Points (k, Q(k)) from (0, 0): `outcome` [n], `treated` [n] of 0 or 1, `score` [n]. Raises InputError with one arm only."""
    if not 0 < int(treated.sum()) < len(treated):
        raise InputError(f"A Qini curve needs treated and control rows; {int(treated.sum())} of {len(treated)} rows are treated.")
    ranking = rank(score)
    return _curve(outcome[ranking.order], treated[ranking.order], ranking.group)


def _curve(outcome: Floats, treated: Integers, group: Integers) -> tuple[Floats, Floats]:
    last = np.append(np.flatnonzero(np.diff(group)), len(group) - 1)
    n_treated = np.cumsum(treated)[last].astype(np.float64)
    n_control = last + 1.0 - n_treated
    y_treated, y_all = np.cumsum(outcome * treated)[last], np.cumsum(outcome)[last]
    ratio = np.divide(n_treated, n_control, out=np.zeros_like(n_treated), where=n_control > 0)
    return np.concatenate([[0.0], last + 1.0]), np.concatenate([[0.0], y_treated - (y_all - y_treated) * ratio])


def _area(x: Floats, y: Floats) -> float:
    """Trapezoid area between the curve and the straight line to its end, with x as a share of the rows."""
    under = 0.5 * float((y[1:] + y[:-1]) @ np.diff(x))
    return (under - 0.5 * float(x[-1] * y[-1])) / float(x[-1])


def raw_local(outcome: Floats, treated: Integers, score: Floats) -> float:
    """`qini/raw-local`: area between curve and diagonal in outcome units times share of the rows."""
    return _area(*qini_curve(outcome, treated, score))


def perfect_score(outcome: Floats, treated: Integers) -> Floats:
    """The order of scikit-uplift's perfect curve: treated responders, then everybody without outcome, then control responders."""
    return outcome * (2.0 * treated - 1.0)


def sklift(outcome: Floats, treated: Integers, score: Floats) -> float:
    """`qini/sklift`: `raw_local` over that of the perfect order (scikit-uplift's `qini_auc_score`). NaN when that is zero.

    Raises InputError for an outcome that is not 0 or 1: the perfect order is defined for those only.
    """
    wrong = np.flatnonzero((outcome != 0) & (outcome != 1))
    if len(wrong):
        raise InputError(f"qini/sklift needs an outcome of 0 or 1; row {wrong[0]} is {outcome[wrong[0]]}. Use qini/raw-local for amounts.")
    perfect = raw_local(outcome, treated, perfect_score(outcome, treated))
    return raw_local(outcome, treated, score) / perfect if perfect else float("nan")


def estimate(outcome: Floats, treated: Integers, score: Floats, samples: HalfSamples) -> tuple[Estimate, Estimate]:
    """`raw_local` and `sklift` with half-sample draws. Raw areas of half samples are scaled to the full number of rows."""
    n = len(outcome)
    draws = []
    for rows in samples.rows():
        part = outcome[rows], treated[rows]
        raw = raw_local(*part, score[rows])
        perfect = raw_local(*part, perfect_score(*part))
        draws.append((raw * n / int(rows.sum()), raw / perfect if perfect else 0.0))
    raw_draws, normal_draws = np.array(draws).T
    return (
        Estimate(raw_local(outcome, treated, score), raw_draws),
        Estimate(sklift(outcome, treated, score), normal_draws),
    )
