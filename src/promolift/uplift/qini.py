"""One promo against no_promo: outcomes, treatment and scores -> the Qini curve with local arm ratio, and its area.

Q(k) = YT(k) - YC(k) nT(k) / nC(k) over the top k rows (second term 0 while nC = 0); only the last row of each distinct score is a
point of the curve (ties collapsed), and (0, 0) is put before. This is the curve of Gutierrez and Gerardy (2017) as scikit-uplift
draws it. It compares raw arms: it is unbiased only where the shares of the two arms are the same for every row.
"""

from collections.abc import Iterator

import numpy as np

from promolift.uplift.bootstrap import Estimate, HalfSamples
from promolift.uplift.clusters import Floats, Integers
from promolift.uplift.curves import Rows, accumulate, check_rows, local_qini, over_diagonal, qini_curve
from promolift.uplift.ranking import rank

__all__ = ["estimate", "perfect_score", "qini_curve", "raw_local", "sklift"]


def raw_local(outcome: Floats, treated: Integers, score: Floats, weights: Floats | None = None) -> float:
    """`qini/raw-local`: area between curve and diagonal in outcome units times share of the rows. Raises InputError on unusable rows."""
    return raw_local_of(check_rows(outcome, treated, score, weights))


def raw_local_of(rows: Rows, score: Floats | None = None) -> float:
    """`raw_local` of checked rows, under `score` [n] in place of their own if given."""
    depths = rows.depths(score)
    return over_diagonal(depths.rows, local_qini(depths))


def perfect_score(outcome: Floats, treated: Integers) -> Floats:
    """The order of scikit-uplift's perfect curve: treated responders, then everybody without outcome, then control responders."""
    return outcome * (2.0 * treated - 1.0)


def sklift(outcome: Floats, treated: Integers, score: Floats, weights: Floats | None = None) -> float:
    """`qini/sklift`: `raw_local` over that of the perfect order (scikit-uplift's `qini_auc_score`). NaN when that is zero.

    Raises InputError for an outcome that is not 0 or 1: the perfect order is defined for those only.
    """
    return sklift_of(check_rows(outcome, treated, score, weights))


def sklift_of(rows: Rows) -> float:
    """`sklift` of checked rows."""
    rows.need_binary("qini/sklift", "qini/raw-local")
    perfect = raw_local_of(rows, perfect_score(rows.outcome, rows.treated))
    return rows.depths().over(raw_local_of(rows), perfect)


def estimate(outcome: Floats, treated: Integers, score: Floats, samples: HalfSamples) -> tuple[Estimate, Estimate]:
    """`raw_local` and `sklift` with half-sample draws. Raw areas of half samples are scaled to the full number of rows."""
    value = Estimate(raw_local(outcome, treated, score), np.array([*_areas(outcome, treated, score, samples)]))
    perfect = np.array([*_areas(outcome, treated, perfect_score(outcome, treated), samples)])
    share = np.divide(value.draws, perfect, out=np.zeros_like(perfect), where=perfect != 0)
    return value, Estimate(sklift(outcome, treated, score), share)


def _areas(outcome: Floats, treated: Integers, score: Floats, samples: HalfSamples) -> Iterator[float]:
    """Raw area of each half sample times n over its rows; the rows are sorted once."""
    ranking = rank(score)
    outcome, treated = outcome[ranking.order], treated[ranking.order]
    for rows in HalfSamples(samples.chosen, samples.codes[ranking.order]).rows():
        kept = np.flatnonzero(rows)
        depths = accumulate(outcome[kept], treated[kept], ranking.group[kept], np.ones(len(kept)))
        yield over_diagonal(depths.rows, local_qini(depths)) * len(outcome) / len(kept)
