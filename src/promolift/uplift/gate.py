"""Audit and effects of the test split -> Verdict: every check a name, a number, a limit, an answer and a sentence.

Order matters: when the propensities are incomplete or the arm counts contradict them, no effect can be trusted and every other
answer is "cannot tell". Every test is signed and one-sided at `GateLimits.alpha`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from promolift.contracts.artifacts import Check, Status, Verdict
from promolift.uplift.audit import Audit
from promolift.uplift.bootstrap import Estimate
from promolift.uplift.distributions import normal_quantile
from promolift.uplift.effects import BEST_SINGLE, CHAMPION, SHUFFLED, Effects, Judged

WEIGHTS = "propensity_weights"
WITHOUT_MODEL: tuple[str, ...] = (SHUFFLED, BEST_SINGLE)
BASELINES: tuple[str, ...] = (*WITHOUT_MODEL, "response", "lightgbm")
"""Policies that the chosen model must not lose to: what needs no model, and the models that every training run makes."""


def effect_checks(baselines: tuple[str, ...] = BASELINES) -> tuple[str, ...]:
    """Names of the checks that need effects, in the order of the verdict; the champion's, where there is one, follows the baselines'."""
    over = (_over_name(baseline) for baseline in baselines)
    first = ("qini_positive", "autoc_not_harmful", "profit_over_no_promo")
    return (*first, *over, "spend_within_budget", "calibration_slope", "calibration_error", "no_harmed_segment")


def _over_name(policy: str) -> str:
    return f"profit_over_{policy.replace(' ', '_')}"


EFFECT_CHECKS: tuple[str, ...] = effect_checks()


@dataclass(frozen=True)
class GateLimits:
    """Every limit of the gate, with its meaning; a verdict is reproducible from these, the data and the seed."""

    alpha: float = 0.05
    """Level of each one-sided test."""
    champion_margin: float = 0.10
    """Non-inferiority: the profit that may be lost against the champion, as a share of the champion's profit."""
    baseline_margin: float = 0.25
    """The same against the other models: wider, since refusing a model takes a champion nowhere, yet far from a model that is worse.
    Policies that need no model must be beaten outright."""
    sample_ratio_p: float = 0.001
    """Least p-value of the tests of arm counts and of weights against the logged propensities."""
    overspend: float = 0.10
    """Measured spend over the budget that is tolerated, as a share of the budget; a hard cap is the ledger's task."""
    slope: tuple[float, float] = (0.5, 1.5)
    """Range of a tolerable calibration slope."""
    ece_squared: float = 0.25
    """Largest tolerable squared calibration error as a share of the mean squared prediction (effects 50 % off)."""
    gain: float = 0.10
    """The gain whose proof the power line sizes."""
    power: float = 0.80
    """Power of that proof."""


DEFAULT_LIMITS = GateLimits()


def judge(
    audit: Audit, effects: Effects | None, limits: GateLimits = DEFAULT_LIMITS, champion_note: str = "",
    baselines: tuple[str, ...] = BASELINES,
) -> Verdict:  # fmt: skip
    """The gate's answer. `effects` is None when the audit forbade to compute them.

    `champion_note`: why a champion that exists could not be compared; its check is then "cannot tell". Without note and without a
    model named "champion" in `effects` there is no champion, and no check about one. `baselines`: policies of `effects` to compare with.
    """
    trusted = trust(audit, limits)
    sound = all(check.status == "passed" for check in trusted)
    rest = tuple(_effect_checks(effects, limits, champion_note, baselines)) if sound and effects else _unanswered(trusted, baselines)
    checks = trusted + rest
    reasons = [f"{check.name}: {check.detail}" for check in checks if check.status != "passed"]
    if sound and effects:
        reasons.append(power_line(effects, limits))
    chosen = effects.chosen if effects else ""
    return Verdict(chosen, all(check.status == "passed" for check in checks), checks, tuple(reasons))


def trust(audit: Audit, limits: GateLimits = DEFAULT_LIMITS) -> tuple[Check, ...]:
    """The checks that come first; unless all pass, no effect of this trial can be trusted."""
    return _completeness(audit), _sample_ratio(audit, limits), _weights(audit, limits)


def _completeness(audit: Audit) -> Check:
    detail = audit.fault or f"All {audit.rows} decisions log a probability for every arm, above 0 for the arm given."
    return Check("propensity_completeness", "failed" if audit.fault else "passed", audit.sound, 1.0, detail)


def _sample_ratio(audit: Audit, limits: GateLimits) -> Check:
    p = audit.p_value
    if p is None:
        return Check("sample_ratio", "cannot tell", None, limits.sample_ratio_p, "The propensities leave nothing to chance: no experiment.")
    counts = ", ".join(f"{n} given for {e:.1f} expected" for n, e in zip(audit.counts, audit.expected, strict=True))
    verb = "agree with" if p >= limits.sample_ratio_p else "contradict"
    detail = f"Arm counts {verb} the logged propensities (p = {p:.3g}): {counts}."
    return Check("sample_ratio", "passed" if p >= limits.sample_ratio_p else "failed", p, limits.sample_ratio_p, detail)


def _weights(audit: Audit, limits: GateLimits) -> Check:
    if audit.odd_p is None:
        return Check(WEIGHTS, "cannot tell", None, limits.sample_ratio_p, "The propensities leave nothing to chance: no experiment.")
    fits = audit.odd_p >= limits.sample_ratio_p
    verb = "fit" if fits else "do not fit"
    mean = (
        f"weights 1 / propensity of arm {audit.odd_arm} (0 is no promo) average {audit.odd_mean:.3g} per row for 1 (p = {audit.odd_p:.3g})"
    )
    return Check(
        WEIGHTS, "passed" if fits else "failed", audit.odd_p, limits.sample_ratio_p, f"The propensities {verb} the arms given: {mean}."
    )


def _unanswered(trusted: tuple[Check, ...], baselines: tuple[str, ...]) -> tuple[Check, ...]:
    broken = " and ".join(check.name for check in trusted if check.status != "passed") or "the data"
    sentence = f"Not answered, because {broken} did not pass: no effect can be estimated without trusted propensities."
    return tuple(Check(name, "cannot tell", None, None, sentence) for name in effect_checks(baselines))


def _effect_checks(effects: Effects, limits: GateLimits, champion_note: str, baselines: tuple[str, ...]) -> Iterator[Check]:
    model = effects.models[effects.chosen]
    yield _qini(effects.chosen, model, limits)
    yield _autoc(effects.chosen, model, limits)
    yield _over_nothing(effects.chosen, model, limits)
    for other in baselines:
        yield _over(effects, other, 0.0 if other in WITHOUT_MODEL else limits.baseline_margin, limits)
    if champion_note:
        yield Check("profit_over_champion", "cannot tell", None, None, champion_note)
    elif CHAMPION in effects.models:
        yield _over(effects, CHAMPION, limits.champion_margin, limits)
    yield _spend(effects, model, limits)
    yield _slope(effects.chosen, model, limits)
    yield _calibration_error(effects.chosen, model, limits)
    yield _segments(effects, limits)


def _span(estimate: Estimate) -> str:
    low, high = estimate.interval()
    return f"{estimate.value:.4g} (95 % interval {low:.4g} to {high:.4g})"


def _qini(name: str, model: Judged, limits: GateLimits) -> Check:
    lower = model.qini.bound(limits.alpha)
    verb = "orders shoppers better than chance" if lower > 0 else "is not shown to order shoppers better than chance"
    return Check("qini_positive", "passed" if lower > 0 else "failed", lower, 0.0, f"{name} {verb}: rate/qini {_span(model.qini)}.")


def _autoc(name: str, model: Judged, limits: GateLimits) -> Check:
    upper = model.autoc.bound(1 - limits.alpha)
    verb = "does not put the wrong shoppers first" if upper >= 0 else "puts the wrong shoppers first"
    return Check("autoc_not_harmful", "passed" if upper >= 0 else "failed", upper, 0.0, f"{name} {verb}: rate/autoc {_span(model.autoc)}.")


def _over_nothing(name: str, model: Judged, limits: GateLimits) -> Check:
    lower = model.profit.bound(limits.alpha)
    verb = "earns more" if lower > 0 else "is not shown to earn more"
    detail = f"At the budget {name} {verb} than giving nothing: {_span(model.profit)} per decision."
    return Check("profit_over_no_promo", "passed" if lower > 0 else "failed", lower, 0.0, detail)


def _over(effects: Effects, other: str, margin_share: float, limits: GateLimits) -> Check:
    name = _over_name(other)
    if other == effects.chosen:
        return Check(name, "passed", 0.0, 0.0, f"{other} is the chosen model itself.")
    if other not in effects.models and other not in effects.others:
        return Check(name, "cannot tell", None, None, f"The policy '{other}' was not measured.")
    difference = effects.profit(effects.chosen).minus(effects.profit(other))
    margin = margin_share * abs(effects.profit(other).value)
    lower, upper = difference.bound(limits.alpha), difference.bound(1 - limits.alpha)
    status: Status = "passed" if lower >= -margin else "failed" if upper < -margin else "cannot tell"
    return Check(name, status, lower, -margin, _comparison(effects.chosen, other, difference, margin))


def _comparison(chosen: str, other: str, difference: Estimate, margin: float) -> str:
    low, high = difference.interval()
    better, worse = (chosen, other) if difference.value >= 0 else (other, chosen)
    told = "the data can tell them apart" if low > 0 or high < 0 else "the data cannot tell them apart"
    return f"{better} is measured ahead of {worse}: difference {_span(difference)}; {told} (margin {margin:.4g})."


def _spend(effects: Effects, model: Judged, limits: GateLimits) -> Check:
    lower, most = model.own_spend.bound(limits.alpha), effects.budget * (1 + limits.overspend)
    verb = "keeps" if lower <= most else "breaks"
    policy = f"{effects.chosen}, going by its own costs, {verb} a budget of {effects.budget:.4g} cents per decision"
    detail = f"{policy}: measured spend {_span(model.own_spend)}."
    return Check("spend_within_budget", "passed" if lower <= most else "failed", model.own_spend.value, most, detail)


def _slope(name: str, model: Judged, limits: GateLimits) -> Check:
    low, high = model.slope.bound(limits.alpha), model.slope.bound(1 - limits.alpha)
    least, most = limits.slope
    status: Status = "passed"
    if not (math.isfinite(low) and low > 0):
        status = "failed" if high < least else "cannot tell"
    elif high < least or low > most:
        status = "failed"
    detail = f"One predicted unit of effect of {name} is worth {_span(model.slope)} measured ones; tolerable is {least} to {most}."
    return Check("calibration_slope", status, model.slope.value, least if model.slope.value < 1 else most, detail)


def _calibration_error(name: str, model: Judged, limits: GateLimits) -> Check:
    lower, value = model.ece.bound(limits.alpha), model.ece.value
    status: Status = "passed" if value <= limits.ece_squared else "failed" if lower > limits.ece_squared else "cannot tell"
    detail = f"Squared calibration error of {name} as a share of its mean squared prediction: {_span(model.ece)}."
    return Check("calibration_error", status, value, limits.ece_squared, detail)


def _segments(effects: Effects, limits: GateLimits) -> Check:
    if not effects.segments:
        return Check("no_harmed_segment", "cannot tell", None, limits.alpha, "No predeclared segment has 20 shoppers or more.")
    worst = effects.segments[0]
    harmed = worst.p_harm <= limits.alpha
    verb = "is harmed" if harmed else "shows the strongest sign of loss, which is within chance"
    detail = f"Of {len(effects.segments)} segments '{worst.name}' {verb}: {_span(worst.effect)} per decision (Holm p = {worst.p_harm:.3g})."
    return Check("no_harmed_segment", "failed" if harmed else "passed", worst.p_harm, limits.alpha, detail)


def power_line(effects: Effects, limits: GateLimits = DEFAULT_LIMITS) -> str:
    """How many decisions a gain of `limits.gain` over the reference policy would need, and the gain these rows can prove."""
    candidates = (CHAMPION, "lightgbm", "response")
    reference = next((c for c in candidates if c in effects.models and c != effects.chosen), BEST_SINGLE)
    base = abs(effects.profit(reference).value)
    error = effects.profit(effects.chosen).minus(effects.profit(reference)).error
    reach = (normal_quantile(1 - limits.alpha) + normal_quantile(limits.power)) * error
    if base == 0:
        return f"Power: {reference} earns nothing, so a relative gain over it has no size."
    rows = math.ceil(effects.rows * (reach / (limits.gain * base)) ** 2)
    return (
        f"Power: proving a {limits.gain:.0%} gain over {reference} at one-sided {limits.alpha:.0%} with {limits.power:.0%} power needs "
        f"about {rows:,} test decisions; these {effects.rows:,} can prove a gain of {reach / base:.0%}."
    )
