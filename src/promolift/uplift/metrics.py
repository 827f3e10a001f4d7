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
