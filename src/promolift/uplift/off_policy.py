"""Logged arms, outcomes and propensities of a trial -> what another policy would have earned, by seven estimators with intervals.

With w = target probability / logged propensity of the arm given, mu the outcome model, mu(target) its mean over the target's arms and
r = outcome - mu(arm given), the value per decision is

    ips     mean(w y), w capped at `clip`                    Horvitz and Thompson (1952)
    snips   mean(w y) / mean(w)                              Swaminathan and Joachims (2015)
    dm      mean(mu(target))                                 the model alone
    dr      mean(mu(target) + w r)                           Dudik, Langford and Li (2011)
    sndr    mean(mu(target)) + mean(w r) / mean(w)           Thomas and Brunskill (2016)
    switch  mean(mu(target) + w 1{w <= switch} r)            Wang, Agarwal and Dudik (2017)
    dros    mean(mu(target) + shrink w / (w^2 + shrink) r)   Su, Dimakopoulou, Krishnamurthy and Dudik (2020)

`mu` must be fitted on other shoppers. Standard errors come from influence functions, summed by shopper; those of ips, snips, dr and
sndr are consistent whatever `mu` is, that of dm ignores the error of `mu`, and clip, switch and shrink trade bias that no error shows.
Where propensities have no floor and outcomes are skewed, intervals are short until the effective sample size is in the thousands.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from promolift.errors import InputError
from promolift.uplift.clusters import Floats, Integers, mean_error
from promolift.uplift.distributions import normal_quantile
from promolift.uplift.metrics import Definition, Metric
from promolift.uplift.scores import SUM_TOLERANCE, Trial, faults

Method = Literal["snips", "ips", "dm", "dr", "sndr", "switch", "dros"]
METHODS: tuple[Method, ...] = get_args(Method)
WITHOUT_MODEL: tuple[Method, ...] = ("snips", "ips")
TARGET = "target policy"
SHUFFLED = "shuffled same mix"
BEST_SINGLE = "best single arm"
NO_SPREAD = 1e-12  # of the value: rounding, not spread


@dataclass(frozen=True)
class Options:
    """Settings of the estimators and the names that travel with their numbers.

    `clip` > 0 caps the weights of ips (infinity: no cap). `switch` >= 0 is the largest weight that switch trusts. `shrink` >= 0:
    dros halves a weight of its square root; the defaults of both say that a weight of 10 is a doubtful one.
    """

    clip: float = float("inf")
    switch: float = 10.0
    shrink: float = 100.0
    outcome: str = "outcome"
    unit: str = "per decision"
    propensity: str = "logged"


@dataclass(frozen=True)
class PolicyValue:
    """The value of a policy with everything that is needed to doubt it.

    `effective`: (sum w)^2 / sum w^2 of the weights as this method used them (0: the model alone speaks); `overlap`: the same of the
    unchanged weights. `matched`: rows with weight. `unsupported`: mean target probability on arms that the log could not give, of
    which no weight tells anything. `cannot_tell`: why there is no interval, or empty.
    """

    metric: Metric
    policy: str
    effective: float
    overlap: float
    matched: int
    unsupported: float
    shoppers: int
    cannot_tell: str

    def __str__(self) -> str:
        head = f"cannot tell: {self.cannot_tell} " if self.cannot_tell else ""
        return f"{head}{self.policy}: {self.metric}; effective sample size {self.effective:.1f} of {self.matched} matched rows"

    def record(self) -> dict[str, Any]:
        """Flat form for result.json."""
        return {**self.metric.record(), **{key: value for key, value in self.__dict__.items() if key != "metric"}}


@dataclass(frozen=True)
class _Log:
    """What is held against every target: the data, the outcome model and the settings."""

    method: Method
    outcome: Floats
    trial: Trial
    mu: Floats | None
    options: Options


@dataclass(frozen=True)
class _Parts:
    """Value, influence [n] (mean 0; its clustered spread is the error), the weights [n] as used and unchanged, and the overlap."""

    value: float
    influence: Floats
    used: Floats
    weight: Floats

    @property
    def overlap(self) -> float:
        return effective_size(self.weight)


def chosen(arm: Integers, arms: int) -> Floats:
    """A deterministic policy `arm` [n] as probabilities [n, arms]. Raises InputError on an arm outside 0..arms-1."""
    outside = np.flatnonzero((arm < 0) | (arm >= arms))
    if len(outside):
        raise InputError(f"The policy gives row {outside[0]} arm {arm[outside[0]]}; there are arms 0 to {arms - 1}.")
    return np.eye(arms)[arm]


def same_mix(target: Floats) -> Floats:
    """The target's mix of arms dealt at random, [n, K+1]: each row gets the target's mean probabilities."""
    return np.tile(target.mean(axis=0), (len(target), 1))


def best_arm(outcome: Floats, trial: Trial) -> int:
    """The single arm of highest SNIPS value. On the rows it is then judged on it looks better than it is: choose on other rows."""
    arms = trial.propensities.shape[1]
    values = [_weighted_mean(outcome, (trial.arm == arm) / trial.given) for arm in range(arms)]
    return int(np.nanargmax(values))


def estimate(
    method: Method, outcome: Floats, trial: Trial, target: Floats, mu: Floats | None = None, *,
    options: Options | None = None, policy: str = TARGET,
) -> PolicyValue:  # fmt: skip
    """Value per decision of `target` [n, K+1] from `outcome` [n], any unit; `mu` [n, K+1] is the mean outcome by arm.

    Raises InputError on data that cannot be used: one arm only, propensities, outcomes, `mu` or probabilities out of order, `mu`
    missing. Data that are sound but do not tell (no overlap, one row, one shopper) give a result that says so.
    """
    log = _Log(method, outcome, trial, mu, options or Options())
    parts = _parts(log, target)
    reason = _reason(trial, parts)
    metric = _metric(log, parts.value, parts.influence, reason)
    matched = int(np.count_nonzero(parts.weight))
    unsupported = float(np.where(trial.propensities > 0, 0.0, target).sum(axis=1).mean())
    return PolicyValue(metric, policy, effective_size(parts.used), parts.overlap, matched, unsupported, trial.shoppers, reason)


def difference(
    method: Method, outcome: Floats, trial: Trial, targets: tuple[Floats, Floats], mu: Floats | None = None, *,
    options: Options | None = None, policies: tuple[str, str] = (TARGET, SHUFFLED),
) -> PolicyValue:  # fmt: skip
    """Value of the first of two `targets`, each [n, K+1], less that of the second, with the paired error of the same rows.

    `effective`, `overlap`, `matched` and `unsupported` are those of the target with less overlap. Raises InputError as `estimate` does.
    """
    log = _Log(method, outcome, trial, mu, options or Options())
    singly = [estimate(method, outcome, trial, t, mu, options=options, policy=p) for t, p in zip(targets, policies, strict=True)]
    one, other = (_parts(log, target) for target in targets)
    weaker = min(singly, key=lambda result: result.overlap)
    reason = " ".join(f"{result.policy}: {result.cannot_tell}" for result in singly if result.cannot_tell)
    metric = _metric(log, one.value - other.value, one.influence - other.influence, reason)
    metric = replace(metric, definition=replace(metric.definition, id=f"value-difference/{method}"))
    return replace(weaker, metric=metric, policy=" less ".join(policies), cannot_tell=reason)


def all_estimates(
    outcome: Floats, trial: Trial, target: Floats, mu: Floats | None = None, *, best: int | None = None, options: Options | None = None,
) -> dict[str, tuple[PolicyValue, ...]]:  # fmt: skip
    """By policy (the target, the same mix shuffled, the best single arm) every estimate that can be made; without `mu` snips and ips.

    `best`: the single arm, chosen on other rows; None chooses it on these rows, and its name says so. Raises InputError as `estimate`.
    """
    _check(_Log("snips", outcome, trial, None, options or Options()), target)
    arm = best_arm(outcome, trial) if best is None else best
    single = chosen(np.full(trial.rows, arm), target.shape[1])
    where = "chosen on these rows" if best is None else "chosen on other rows"
    policies = {TARGET: target, SHUFFLED: same_mix(target), f"{BEST_SINGLE} ({arm}, {where})": single}
    methods = WITHOUT_MODEL if mu is None else METHODS
    return {
        name: tuple(estimate(method, outcome, trial, table, mu, options=options, policy=name) for method in methods)
        for name, table in policies.items()
    }


def effective_size(weight: Floats) -> float:
    """Kish's effective sample size (sum w)^2 / sum w^2 of `weight` [n]; 0 where all are 0."""
    square = float(np.sum(weight**2))
    return float(weight.sum()) ** 2 / square if square > 0 else 0.0


def shrunk(weight: Floats, shrink: float) -> Floats:
    """The weight of DRos, shrink w / (w^2 + shrink): w as `shrink` grows, 0 at 0."""
    if np.isinf(shrink):
        return weight
    return np.divide(shrink * weight, weight**2 + shrink, out=np.zeros_like(weight), where=weight > 0)


def _weights(trial: Trial, target: Floats) -> Floats:
    """Target probability over logged propensity of the arm given, [n]."""
    return np.asarray(target[np.arange(trial.rows), trial.arm] / trial.given, dtype=np.float64)


def _weighted_mean(values: Floats, weight: Floats) -> float:
    total = float(weight.sum())
    return float(weight @ values) / total if total > 0 else float("nan")


def _parts(log: _Log, target: Floats) -> _Parts:
    _check(log, target)
    weight = _weights(log.trial, target)
    used = _used(log.method, weight, log.options)
    rows, rest, model = np.arange(log.trial.rows), log.outcome, np.zeros(log.trial.rows)
    if log.mu is not None and log.method not in WITHOUT_MODEL:
        model, rest = np.sum(target * log.mu, axis=1), log.outcome - log.mu[rows, log.trial.arm]
    if not np.any(weight):
        return _Parts(float("nan"), np.full(log.trial.rows, np.nan), used, weight)
    if log.method in ("snips", "sndr"):
        ratio = _weighted_mean(rest, used)
        influence = model - model.mean() + used * (rest - ratio) / used.mean()
        return _Parts(float(model.mean()) + ratio, influence, used, weight)
    terms = model + used * rest
    return _Parts(float(terms.mean()), terms - terms.mean(), used, weight)


def _used(method: Method, weight: Floats, settings: Options) -> Floats:
    if method == "ips":
        return np.minimum(weight, settings.clip)
    if method == "dm":
        return np.zeros_like(weight)
    if method == "switch":
        return np.where(weight <= settings.switch, weight, 0.0)
    return shrunk(weight, settings.shrink) if method == "dros" else weight


def _reason(trial: Trial, parts: _Parts) -> str:
    """Why the data cannot tell: no weight at all, one shopper's weight only, or no spread; empty where they can."""
    if parts.overlap == 0:
        return f"None of {trial.rows} logged rows was given an arm that the policy would give (effective sample size 0)."
    if len(np.unique(trial.codes[parts.weight > 0])) < 2:
        return "Only one shopper was given arms that the policy would give; an interval needs 2 or more."
    if np.abs(parts.influence).max() <= NO_SPREAD * abs(parts.value):
        return f"Every row says {parts.value:.6g}, without any spread, so that no error can be estimated."
    return ""


def _metric(log: _Log, value: float, influence: Floats, reason: str) -> Metric:
    """The number with its definition; error and interval are NaN where the data cannot tell."""
    error = float("nan") if reason else mean_error(influence, log.trial.codes, log.trial.shoppers)
    reach = normal_quantile(0.975) * error
    return Metric(_definition(log.method, log.options), value, error, value - reach, value + reach, log.trial.rows)


def _definition(method: Method, settings: Options) -> Definition:
    form = {
        "ips": f"mean(w y), w capped at {settings.clip:g}",
        "snips": "mean(w y) / mean(w)",
        "dm": "mean(mu(target)); the error ignores that of mu",
        "dr": "mean(mu(target) + w r)",
        "sndr": "mean(mu(target)) + mean(w r) / mean(w)",
        "switch": f"mean(mu(target) + w r), w above {settings.switch:g} set to 0",
        "dros": f"mean(mu(target) + w r), w shrunk to {settings.shrink:g} w / (w^2 + {settings.shrink:g})",
    }[method]
    weights = "mean weight" if method in ("snips", "sndr") else "rows"
    return Definition(f"value/{method}", form, "none", weights, settings.outcome, settings.propensity, settings.unit)


def _check(log: _Log, target: Floats) -> None:
    method, trial, settings = log.method, log.trial, log.options
    if method not in METHODS:
        raise InputError(f"The estimator {method!r} is unknown; choose one of {', '.join(METHODS)}.")
    if not (settings.clip > 0 and settings.switch >= 0 and settings.shrink >= 0):
        raise InputError(f"Weights need clip > 0, switch >= 0 and shrink >= 0; got {settings.clip}, {settings.switch}, {settings.shrink}.")
    if trial.propensities.shape[1] < 2 or np.all(trial.arm == trial.arm[0]):
        raise InputError(f"All {trial.rows} rows were given arm {trial.arm[0]}; a policy can be valued only where arms were varied.")
    bad, sentence = faults(trial)
    if bad.any():
        raise InputError(sentence + " Log the probability of every arm where the decision is made, and drop rows without it.")
    _table("outcome", log.outcome, (trial.rows,))
    _table("target probability", target, trial.propensities.shape)
    wrong = np.flatnonzero(np.any(target < 0, axis=1) | (np.abs(target.sum(axis=1) - 1) > SUM_TOLERANCE))
    if len(wrong):
        row = np.round(target[wrong[0]], 6).tolist()
        raise InputError(f"The target's probabilities of row {wrong[0]} are {row}; each must be 0 or more and a row must sum to 1.")
    if method not in WITHOUT_MODEL:
        if log.mu is None:
            raise InputError(f"The estimator {method!r} needs `mu`, the mean outcome of every row and arm; only snips and ips do without.")
        _table("mu", log.mu, trial.propensities.shape)


def _table(name: str, values: Floats, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise InputError(f"The {name} has shape {values.shape}; the trial needs {shape}.")
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        raise InputError(f"The {name} of row {wrong[0][0]} is {values[tuple(wrong[0])]}; {len(wrong)} values are not finite.")
