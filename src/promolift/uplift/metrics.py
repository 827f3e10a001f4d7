"""An estimate -> a metric that carries its whole definition, so that no bare "Qini" is ever printed or compared."""

from dataclasses import dataclass, replace
from typing import Any

from promolift.uplift.bootstrap import Estimate


@dataclass(frozen=True)
class Definition:
    """What a number means; `id` is the metric's name everywhere. Two numbers compare only if all of this is equal."""

    id: str
    scaling: str
    ties: str
    normaliser: str
    outcome: str
    propensity: str
    unit: str

    def of(self, outcome: str, unit: str) -> "Definition":
        """The same metric of a named outcome in a unit."""
        return replace(self, outcome=outcome, unit=unit)


@dataclass(frozen=True)
class Metric:
    """A number with its definition, rows, standard error and 95 % interval."""

    definition: Definition
    value: float
    error: float
    low: float
    high: float
    rows: int

    def __str__(self) -> str:
        d = self.definition
        return (
            f"{d.id} = {self.value:.6g} {d.unit} [{self.low:.6g}, {self.high:.6g}] ({d.outcome}; {d.scaling}; ties {d.ties}; "
            f"normaliser: {d.normaliser}; propensity: {d.propensity}; {self.rows} rows)"
        )

    def record(self) -> dict[str, Any]:
        """Flat form for metrics.json."""
        numbers = {"value": self.value, "error": self.error, "interval": [self.low, self.high], "rows": self.rows}
        return {**self.definition.__dict__, **numbers}


_AIPW = "doubly robust pseudo-outcomes of the model's best promo less no_promo"
_LOGGED = "logged"
_SHARES = "none: raw arms, unbiased only if the two arms' shares are the same for every row"

QINI = Definition("rate/qini", _AIPW, "averaged", "none (integral of q TOC(q) dq)", "", _LOGGED, "")
AUTOC = Definition("rate/autoc", _AIPW, "averaged", "none (integral of TOC(q) dq)", "", _LOGGED, "")
RAW_LOCAL = Definition(
    "qini/raw-local", "local ratio: YT - YC nT/nC in the top k", "collapsed", "none (area less diagonal)", "", _SHARES, ""
)
SKLIFT = Definition(
    "qini/sklift", "local ratio: YT - YC nT/nC in the top k", "collapsed", "area of scikit-uplift's perfect curve", "", _SHARES, ""
)
RADCLIFFE = Definition(
    "qini/radcliffe", "global ratio: YT - YC NT/NC in the top k", "collapsed", "none (area less diagonal)", "", _SHARES, ""
)
CAUSALML = Definition(
    "qini/causalml",
    "local ratio: YT - YC nT/nC in the top k, straight to the first row of no_promo, mean over 0..N rows less the diagonal's",
    "collapsed, straight between",
    "size of the curve's end",
    "",
    _SHARES,
    "",
)
CAUSALML_RAW = replace(CAUSALML, id="qini/causalml-raw", normaliser="none (mean height over the diagonal)")
AUUC_SKLIFT = Definition(
    "auuc/sklift",
    "local means: (YT/nT - YC/nC) k in the top k",
    "collapsed",
    "area of scikit-uplift's perfect uplift curve, both less the diagonal",
    "",
    _SHARES,
    "",
)
AUUC_CAUSALML = Definition(
    "auuc/causalml",
    "local means: (YT/nT - YC/nC) k in the top k, their difference straight from 0 until both arms have rows, mean over 0..N rows",
    "collapsed, straight between",
    "size of the curve's end; the diagonal is not taken off, random scores are near 0.5",
    "",
    _SHARES,
    "",
)
AUUC_CAUSALML_RAW = replace(AUUC_CAUSALML, id="auuc/causalml-raw", normaliser="none; the diagonal is not taken off (mean height)")
UPLIFT_OVERALL = Definition(
    "uplift@30%/overall", "YT/nT - YC/nC in the top 30 % of both arms together", "at the cut enter in part", "per row", "", _SHARES, ""
)
UPLIFT_BY_ARM = Definition(
    "uplift@30%/by-arm", "YT/nT - YC/nC, each in the top 30 % of its own arm", "at the cut enter in part", "per row", "", _SHARES, ""
)
VALUE = Definition("value/aipw", "doubly robust pseudo-outcomes of the policy's arm less no_promo", "none", "per decision", "", _LOGGED, "")
SPEND = Definition("spend/aipw", "doubly robust pseudo-outcomes of the policy's arm less no_promo", "none", "per decision", "", _LOGGED, "")
OWN_SPEND = Definition(
    "spend/aipw-own-costs",
    "doubly robust pseudo-outcomes of the arm less no_promo, budget kept by the model's own predicted cost",
    "none",
    "per decision",
    "",
    _LOGGED,
    "",
)
SLOPE = Definition(
    "calibration/blp-slope", "doubly robust effect on predicted effect, all promos", "none", "1 is calibrated", "", _LOGGED, ""
)
ECE = Definition(
    "calibration/ece-squared",
    "mean squared gap of measured and predicted effect in ten bins, less its sampling variance",
    "in one bin",
    "mean square of the predicted effect",
    "",
    _LOGGED,
    "",
)


def metric(definition: Definition, estimate: Estimate, rows: int) -> Metric:
    """The metric of an estimate over `rows` rows."""
    return Metric(definition, estimate.value, estimate.error, *estimate.interval(), rows)
