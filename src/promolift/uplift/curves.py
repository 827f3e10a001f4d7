"""One promo against no_promo, ranked by a score -> weighted sums at every depth, and the uplift and Qini curves as published.

Top k rows: nT, nC (weighted) rows of each arm, YT, YC their (weighted) outcomes; NT, NC those of all rows. Only the last row of each
distinct score is a point (ties collapsed), so the order of the rows cannot matter. These curves compare raw arms: they are unbiased
only where the shares of the two arms are the same for every row. A weight w counts as w rows.
"""

import math
from dataclasses import dataclass

import numpy as np

from promolift.errors import InputError
from promolift.uplift.clusters import Floats, Integers
from promolift.uplift.ranking import rank

ROUNDING = 1e-12
"""Share of the largest sum of outcomes below which a difference of such sums counts as zero."""


@dataclass(frozen=True)
class Depths:
    """Rows and outcomes of each arm in the top of the ranking, each [G + 1]: nothing, then the end of each of G distinct scores."""

    treated: Floats
    control: Floats
    treated_outcome: Floats
    control_outcome: Floats

    @property
    def rows(self) -> Floats:
        """k, the weighted rows at each depth."""
        return self.treated + self.control

    def over(self, value: float, whole: float) -> float:
        """`value / whole`; NaN where `whole` is zero but for the rounding of the sums that it was made from."""
        largest = max(float(np.abs(sums).max()) for sums in (self.treated_outcome, self.control_outcome))
        return value / whole if abs(whole) > ROUNDING * largest else math.nan


@dataclass(frozen=True)
class Rows:
    """Rows of a promo and no_promo: `outcome`, `treated` (0 or 1), `score`, `weights`, each [n]; all weights above zero.

    `place` [n] is the number of each row in the caller's arrays.
    """

    outcome: Floats
    treated: Integers
    score: Floats
    weights: Floats
    place: Integers

    @property
    def binary(self) -> bool:
        """Whether every outcome is 0 or 1."""
        return bool(np.all((self.outcome == 0) | (self.outcome == 1)))

    def need_binary(self, metric: str, instead: str) -> None:
        """Raise InputError, with the first row at fault, unless every outcome is 0 or 1."""
        wrong = np.flatnonzero((self.outcome != 0) & (self.outcome != 1))
        if len(wrong):
            value, place = self.outcome[wrong[0]], self.place[wrong[0]]
            raise InputError(f"{metric} needs an outcome of 0 or 1; row {place} is {value}. Use {instead} for amounts.")

    def depths(self, score: Floats | None = None) -> Depths:
        """Sums by depth under these scores, or under `score` [n] in their place."""
        ranking = rank(self.score if score is None else score)
        order = ranking.order
        return accumulate(self.outcome[order], self.treated[order], ranking.group, self.weights[order])


def check_rows(outcome: Floats, treated: Integers, score: Floats, weights: Floats | None = None) -> Rows:
    """The rows that weigh more than zero, after checks; all inputs [n].

    Raises InputError for lengths that differ, a treatment other than 0 or 1, numbers that are not finite, a negative weight, one arm.
    """
    given = np.ones(len(outcome)) if weights is None else np.asarray(weights, dtype=np.float64)
    sizes = {"outcome": len(outcome), "treated": len(treated), "score": len(score), "weights": len(given)}
    if len(set(sizes.values())) > 1:
        raise InputError(f"Outcome, treatment, score and weights must have one value for each row; their lengths are {sizes}.")
    _need(np.isfinite(outcome), "An outcome must be a finite number", outcome)
    _need(np.isfinite(score), "Scores must be finite numbers", score)
    _need((treated == 0) | (treated == 1), "A treatment must be 0 (no promo) or 1", treated)
    _need(np.isfinite(given) & (given >= 0), "A weight must be finite and not negative", given)
    kept = np.flatnonzero(given > 0)
    rows = Rows(outcome[kept].astype(np.float64), treated[kept].astype(np.int64), score[kept].astype(np.float64), given[kept], kept)
    _need_both_arms(int(rows.treated.sum()), len(rows.treated))
    return rows


def _need(good: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], rule: str, values: Floats | Integers) -> None:
    wrong = np.flatnonzero(~good)
    if len(wrong):
        raise InputError(f"{rule}; row {wrong[0]} is {values[wrong[0]]} ({len(wrong)} of {len(values)} rows are at fault).")


def _need_both_arms(treated: int, rows: int) -> None:
    if not 0 < treated < rows:
        raise InputError(f"A Qini curve needs treated and control rows; {treated} of {rows} rows are treated.")


def accumulate(outcome: Floats, treated: Integers, group: Integers, weights: Floats) -> Depths:
    """Sums by depth of rows that are sorted already; `group` [n] ascends with the rank. Raises InputError with one arm only."""
    _need_both_arms(int(treated.sum()), len(treated))
    last = np.append(np.flatnonzero(np.diff(group)), len(group) - 1)
    arms = weights * treated, weights * (1 - treated)
    return Depths(*(np.concatenate([[0.0], np.cumsum(part)[last]]) for part in (*arms, arms[0] * outcome, arms[1] * outcome)))


def ratio(above: Floats, below: Floats) -> Floats:
    """`above / below`, 0 where `below` is 0."""
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below > 0), dtype=np.float64)


def local_qini(depths: Depths) -> Floats:
    """YT - YC nT/nC, second term 0 while nC = 0, [G + 1] outcomes of the treated (Gutierrez and Gerardy, 2017; scikit-uplift)."""
    return depths.treated_outcome - depths.control_outcome * ratio(depths.treated, depths.control)


def global_qini(depths: Depths) -> Floats:
    """YT - YC NT/NC, [G + 1] outcomes of the treated (Radcliffe, 2007)."""
    return depths.treated_outcome - depths.control_outcome * float(depths.treated[-1] / depths.control[-1])


def gain(depths: Depths) -> Floats:
    """(YT/nT - YC/nC) k, each mean 0 while it has no rows, [G + 1] outcomes (Gutierrez and Gerardy, 2017; scikit-uplift)."""
    means = ratio(depths.treated_outcome, depths.treated) - ratio(depths.control_outcome, depths.control)
    return means * depths.rows


def under(x: Floats, y: Floats) -> float:
    """Trapezoid area under a curve [G + 1]."""
    return 0.5 * float((y[1:] + y[:-1]) @ np.diff(x))


def over_diagonal(x: Floats, y: Floats) -> float:
    """Trapezoid area between a curve from (0, 0) and the straight line to its end, with x as a share of its last value."""
    return (under(x, y) - 0.5 * float(x[-1] * y[-1])) / float(x[-1])


def qini_curve(
    outcome: Floats, treated: Integers, score: Floats, weights: Floats | None = None, *, scaling: str = "local"
) -> tuple[Floats, Floats]:
    """Points (k, Q(k)), each [G + 1] from (0, 0). `scaling`: "local" is YT - YC nT/nC, "global" YT - YC NT/NC.

    Raises InputError as `check_rows` does, and for another scaling.
    """
    if scaling not in {"local", "global"}:
        raise InputError(f"The scaling of a Qini curve is 'local' or 'global', not {scaling!r}.")
    depths = check_rows(outcome, treated, score, weights).depths()
    return depths.rows, local_qini(depths) if scaling == "local" else global_qini(depths)


def uplift_curve(outcome: Floats, treated: Integers, score: Floats, weights: Floats | None = None) -> tuple[Floats, Floats]:
    """Points (k, (YT/nT - YC/nC) k), each [G + 1] from (0, 0). Raises InputError as `check_rows` does."""
    depths = check_rows(outcome, treated, score, weights).depths()
    return depths.rows, gain(depths)
