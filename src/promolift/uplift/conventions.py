"""One promo against no_promo: outcomes, treatment and scores -> every published summary number of the uplift and Qini curves, by id.

The numbers differ up to tenfold on the same rows, so each has an id and a Definition, and none of them is "the Qini".
All are independent of the order of the rows; where a package's own number is not (causalml on tied scores), ours equals it when no two
scores are equal, and otherwise goes straight between the ends of the ties. Every weight w counts as w rows.
"""

import math

import numpy as np

from promolift.errors import InputError
from promolift.uplift import metrics
from promolift.uplift.clusters import Floats, Integers
from promolift.uplift.curves import Depths, Rows, check_rows, gain, global_qini, local_qini, over_diagonal, under
from promolift.uplift.qini import raw_local_of, sklift_of

SHARE = 0.3
DEFINITIONS = {
    definition.id: definition
    for definition in (
        metrics.RADCLIFFE,
        metrics.RAW_LOCAL,
        metrics.SKLIFT,
        metrics.CAUSALML,
        metrics.CAUSALML_RAW,
        metrics.AUUC_SKLIFT,
        metrics.AUUC_CAUSALML,
        metrics.AUUC_CAUSALML_RAW,
        metrics.UPLIFT_OVERALL,
        metrics.UPLIFT_BY_ARM,
    )
}
"""Of every id that `all_conventions` gives; `.of(outcome, unit)` completes it."""


def all_conventions(outcome: Floats, treated: Integers, score: Floats, weights: Floats | None = None) -> dict[str, float]:
    """Every number by id: `outcome` [n], `treated` [n] of 0 or 1, `score` [n], `weights` [n] not negative (default 1).

    qini/sklift and auuc/sklift are there only if all outcomes are 0 or 1. NaN where a normaliser or an arm at the cut is empty.
    Raises InputError as `curves.check_rows` does.
    """
    rows = check_rows(outcome, treated, score, weights)
    depths = rows.depths()
    found = {
        "qini/radcliffe": over_diagonal(depths.rows, global_qini(depths)),
        "qini/raw-local": raw_local_of(rows),
        **({"qini/sklift": sklift_of(rows), "auuc/sklift": _auuc_sklift(rows)} if rows.binary else {}),
        **_causalml(depths),
        **_at_share(rows, SHARE, f"uplift@{SHARE:.0%}"),
    }
    return {name: found[name] for name in DEFINITIONS if name in found}


def qini_radcliffe(outcome: Floats, treated: Integers, score: Floats, weights: Floats | None = None) -> float:
    """`qini/radcliffe`: trapezoid area of YT - YC NT/NC over the diagonal, x as share of the rows (Radcliffe, 2007).

    Unit: outcomes of the treated times share of the rows. Over NT it is `rate/qini` on IPW effects with propensity NT/N.
    Raises InputError as `curves.check_rows` does.
    """
    depths = check_rows(outcome, treated, score, weights).depths()
    return over_diagonal(depths.rows, global_qini(depths))


def qini_causalml(outcome: Floats, treated: Integers, score: Floats, weights: Floats | None = None, *, normalised: bool = True) -> float:
    """`qini/causalml` (normalised, causalml's default) or `qini/causalml-raw`, as causalml 0.18 `qini_score`.

    The mean over depths 0..N of (curve - straight line to its end), over |curve(N)| if normalised: NaN when that is 0. Unit: none, or
    outcomes of the treated. Raises InputError as `curves.check_rows` does.
    """
    return _causalml(check_rows(outcome, treated, score, weights).depths())[f"qini/causalml{'' if normalised else '-raw'}"]


def auuc_causalml(outcome: Floats, treated: Integers, score: Floats, weights: Floats | None = None, *, normalised: bool = True) -> float:
    """`auuc/causalml` (normalised, causalml's default) or `auuc/causalml-raw`, as causalml 0.18 `auuc_score`.

    The mean over depths 0..N of the gain curve, over |gain(N)| if normalised: NaN when that is 0. Random scores are near 0.5, not 0.
    Unit: none, or outcomes of all rows. Raises InputError as `curves.check_rows` does.
    """
    return _causalml(check_rows(outcome, treated, score, weights).depths())[f"auuc/causalml{'' if normalised else '-raw'}"]


def auuc_sklift(outcome: Floats, treated: Integers, score: Floats, weights: Floats | None = None) -> float:
    """`auuc/sklift`: area of the gain curve over the diagonal, as a share of the perfect order's (scikit-uplift `uplift_auc_score`).

    NaN when the perfect order's area is zero. Raises InputError for an outcome that is not 0 or 1, and as `curves.check_rows` does.
    """
    return _auuc_sklift(check_rows(outcome, treated, score, weights))


def uplift_at(
    outcome: Floats, treated: Integers, score: Floats, weights: Floats | None = None, *, share: float = SHARE, by_arm: bool = False
) -> float:
    """`uplift@k`: mean outcome of treated less control rows in the top `share` of all rows, or of each arm (scikit-uplift `uplift_at_k`).

    With n rows (of both arms, or of one), the cut is at floor(n share)/n of their weight; rows tied at the cut enter in part, the mean
    over their orders. NaN with no row of an arm above the cut. Raises InputError for a share outside (0, 1) and as `curves.check_rows`.
    """
    if not 0 < share < 1:
        raise InputError(f"The share of rows for uplift@k must lie between 0 and 1; got {share}.")
    return _at_share(check_rows(outcome, treated, score, weights), share, "")["/by-arm" if by_arm else "/overall"]


def _causalml(depths: Depths) -> dict[str, float]:
    """Both numbers, normalised and not.

    causalml sums a point for each row; of a straight piece that sum is its trapezoid area plus half of its two ends, so the whole needs
    only the ends of the ties. Where the two arms' ratio is not defined yet, causalml goes straight from 0 to the first depth where it
    is: in the curve itself for Qini, in YT/nT - YC/nC for the gain.
    """
    rows, points = depths.rows, depths.rows[-1] + 1
    began = np.append(0, np.flatnonzero(depths.control[1:] > 0) + 1)
    curve = local_qini(depths)
    over = over_diagonal(rows[began], curve[began]) * rows[-1] / points
    height = _mean_gain(depths) / points
    return {
        "qini/causalml": depths.over(over, abs(float(curve[-1]))),
        "qini/causalml-raw": over,
        "auuc/causalml": depths.over(height, abs(float(gain(depths)[-1]))),
        "auuc/causalml-raw": height,
    }


def _mean_gain(depths: Depths) -> float:
    """Sum of causalml's gain curve over the depths 0..N."""
    k, curve = depths.rows, gain(depths)
    first = int(np.argmax((depths.treated > 0) & (depths.control > 0)))
    start, end = k[first], curve[first]
    before = end * (start + 1) * (2 * start + 1) / (6 * start)  # (end / start^2) times 1 + 4 + ... + start^2
    return float(before + under(k[first:], curve[first:]) + (curve[-1] - end) / 2)


def _auuc_sklift(rows: Rows) -> float:
    """The perfect order is scikit-uplift's: by agreement of outcome and treatment, then by the outcome or the treatment."""
    rows.need_binary("auuc/sklift", "auuc/causalml")
    agree, treated = rows.outcome == rows.treated, rows.treated == 1
    control_responders = rows.weights[~agree & ~treated].sum()
    treated_others = rows.weights[~agree & treated].sum()
    then = rows.outcome if control_responders > treated_others else rows.treated
    actual, perfect = rows.depths(), rows.depths(2.0 * agree + then)
    areas = [over_diagonal(depths.rows, gain(depths)) for depths in (actual, perfect)]
    return actual.over(*areas)


def _at_share(rows: Rows, share: float, name: str) -> dict[str, float]:
    depths = rows.depths()
    treated = int(rows.treated.sum())
    cut = _cut(len(rows.treated), depths.rows[-1], share)
    arms = [(depths.treated, depths.treated_outcome, treated), (depths.control, depths.control_outcome, len(rows.treated) - treated)]
    overall = [_mean(np.interp(cut, depths.rows, count), np.interp(cut, depths.rows, outcome)) for count, outcome, _ in arms]
    cuts = [_cut(number, count[-1], share) for count, _, number in arms]
    by_arm = [_mean(cut, np.interp(cut, count, outcome)) for cut, (count, outcome, _) in zip(cuts, arms, strict=True)]
    return {f"{name}/overall": overall[0] - overall[1], f"{name}/by-arm": by_arm[0] - by_arm[1]}


def _cut(rows: int, weight: float, share: float) -> float:
    """Depth in weight of the first floor(rows share) of `rows` rows."""
    return float(int(rows * share) / rows * weight)


def _mean(count: float, outcome: float) -> float:
    return float(outcome / count) if count > 0 else math.nan
