"""Simulated worlds -> how often the gate promotes, refuses and cannot tell, by quality and rows.

Every promise of the gate belongs to the model that is exactly as bad as the promise allows (its null), at which the gate may err in
at most `alpha` of worlds. Models are fixed before a world is drawn, so nothing is chosen on the rows that judge.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from promolift.contracts.artifacts import Verdict
from promolift.uplift.audit import audit
from promolift.uplift.bootstrap import Estimate, HalfSamples, half_samples
from promolift.uplift.effects import BEST_SINGLE, CHAMPION, SHUFFLED, Effects, Judged, measure_model, price_at, single_promos
from promolift.uplift.gate import DEFAULT_LIMITS, judge
from promolift.uplift.segments import judge_segments
from promolift.uplift.value import Prediction, assign, contribution, shuffled
from science.monte_carlo import Share, largest_usual, over_cores
from science.world_models import BUDGET, QUALITY, Model, Truth, find_truth, noise, predict, response, worse_than
from science.worlds import Design, World, draw_world

RESAMPLES = 200
TRUTH_SEED, FIRST_WORLD = 77, 1_000
ALIKE = 0.9
"""Correlation of a near copy's noise with the champion's: successive models of the same features err alike."""
GAINS = (0.10, 0.25)
NOTHING = "no effect"
BASELINES = (CHAMPION, "lightgbm")
ONLY_PROFIT = tuple(f"a quarter worse than {other}" for other in (SHUFFLED, BEST_SINGLE, "response", "lightgbm"))
WORSE, WORSE_ALIKE, EDGE = "worse than champion by the margin", "worse by the margin, alike", "twice too sure, a tenth over budget"


@dataclass(frozen=True)
class Promise:
    """The gate says `status` in check `check` ("" is the whole verdict, "promoted") of `model` in at most `alpha` of worlds."""

    model: str
    check: str
    status: str
    why: str


PROMISES = (
    Promise(NOTHING, "", "promoted", "promos earn exactly what they cost; no baseline asked"),
    Promise(NOTHING, "profit_over_no_promo", "passed", "every policy truly earns 0"),
    Promise(NOTHING, "qini_positive", "passed", "every ranking truly has QINI 0"),
    Promise("useless", "", "promoted", "scores are noise around each promo's mean effect"),
    Promise("useless", "qini_positive", "passed", "a ranking by noise has QINI 0"),
    Promise("harmful", "", "promoted", "wrong shoppers first"),
    Promise(WORSE, "profit_over_champion", "passed", "truly earns 10 % less, errors of its own"),
    Promise(WORSE, "", "promoted", "truly earns 10 % less, errors of its own"),
    Promise(WORSE_ALIKE, "profit_over_champion", "passed", "truly earns 10 % less, errors like the champion's"),
    Promise(WORSE_ALIKE, "", "promoted", "truly earns 10 % less, errors like the champion's"),
    *(
        Promise(model, f"profit_over_{other.replace(' ', '_')}", "passed", "truly earns 25 % less")
        for model, other in zip(ONLY_PROFIT, (SHUFFLED, BEST_SINGLE, "response", "lightgbm"), strict=True)
    ),
    Promise(NOTHING, "no_harmed_segment", "failed", "no segment is harmed: a false alarm"),
    Promise(NOTHING, "autoc_not_harmful", "failed", "AUTOC is 0: a false alarm"),
    Promise(EDGE, "calibration_slope", "failed", "true slope is 0.5, the least tolerable: a false alarm"),
    Promise(EDGE, "calibration_error", "failed", "true squared error is 0.25, the most tolerable: a false alarm"),
    Promise(EDGE, "spend_within_budget", "failed", "true spend is 10 % over, the most tolerable: a false alarm"),
    Promise("oracle", "propensity_completeness", "failed", "all logged: a false alarm"),
)


def models_of(truth: Truth) -> dict[str, Model]:
    """The models that stand before the gate, by name."""
    champion = truth.earns[CHAMPION]
    gains = {f"earns {gain:.0%} more": Model(truth.quality_for((1 + gain) * champion)) for gain in GAINS}
    nulls = zip(ONLY_PROFIT, (SHUFFLED, BEST_SINGLE, "response", "lightgbm"), strict=True)
    return {
        "oracle": Model(1.0), **gains, "same": Model(QUALITY[CHAMPION]), "same, alike": Model(QUALITY[CHAMPION], ALIKE),
        WORSE: worse_than(truth, CHAMPION, DEFAULT_LIMITS.champion_margin),
        WORSE_ALIKE: worse_than(truth, CHAMPION, DEFAULT_LIMITS.champion_margin, ALIKE),
        "useless": Model(0.0), "harmful": Model(-1.0), "overspending": Model(0.9, cost=0.5), EDGE: Model(1.0, scale=2.0, cost=1 / 1.1),
        **{name: worse_than(truth, other, DEFAULT_LIMITS.baseline_margin) for name, other in nulls},
    }  # fmt: skip


def true_gain(truth: Truth, model: Model) -> float:
    """What the model's policy earns over the champion's, as a share of the champion's."""
    known = truth.by_quality[model.shared]
    return float(np.interp(model.quality, list(known), list(known.values()))) / truth.earns[CHAMPION] - 1


def verdicts(world: World, truth: Truth, models: dict[str, Model], seed: int) -> Iterator[tuple[str, Verdict]]:
    """The gate's verdict on each model, all on the same half samples, beside the baselines that the gate asks for.

    Of the baselines and of the ONLY_PROFIT models just the profit is measured, which is all that the checks read of them; the other
    parts of their records are the first model's.
    """
    people, found = world.population, audit(world.trial)
    samples = half_samples(world.trial.codes, world.trial.shoppers, RESAMPLES, seed)
    noises = {name: noise(seed, key, people) for key, name in enumerate((*BASELINES, *models))}
    made = {n: predict(people, truth, Model(QUALITY[n]), noises[n], noises[n]) for n in BASELINES} | {"response": response(people)}
    others = single_promos(world.measured, BUDGET, samples)
    others[BEST_SINGLE] = others[truth.single]
    predictions = {name: predict(people, truth, model, noises[name], noises[CHAMPION]) for name, model in models.items()}
    judged = {name: measure_model(world.measured, p, BUDGET, samples) for name, p in predictions.items() if name not in ONLY_PROFIT}
    rest = next(iter(judged.values()))
    judged |= {name: _profit_only(world, predictions[name], samples, rest) for name in models if name in ONLY_PROFIT}
    rivals = {name: _profit_only(world, p, samples, rest) for name, p in made.items()}
    for name, one in judged.items():
        yield name, judge(found, _effects(world, name, one, samples, rivals=rivals, others=others))


def _profit_only(world: World, prediction: Prediction, samples: HalfSamples, rest: Judged) -> Judged:
    arm = assign(prediction, price_at(world.measured, prediction, BUDGET))
    return replace(rest, arm=arm, profit=samples.mean(contribution(world.measured.value, arm)))


def _effects(
    world: World, name: str, judged: Judged, samples: HalfSamples, *, rivals: dict[str, Judged], others: dict[str, Estimate]
) -> Effects:  # fmt: skip
    dealt = samples.mean(shuffled(world.measured.value, judged.arm))
    harmed = judge_segments(contribution(world.measured.value, judged.arm), world.segments, samples)
    trial = world.trial
    return Effects(name, trial.rows, trial.shoppers, BUDGET, rivals | {name: judged}, others | {SHUFFLED: dealt}, harmed)


def nothing_verdict(seed: int, shoppers: int, design: Design, truth: Truth) -> Verdict:
    """The gate on noise where every promo earns exactly what it costs; no baseline is asked, which only makes it easier to pass."""
    world = draw_world(seed, shoppers, design, strength=0.0)
    samples = half_samples(world.trial.codes, world.trial.shoppers, RESAMPLES, seed)
    value = truth.spread * noise(seed, 0, world.population)
    judged = measure_model(world.measured, Prediction(value, world.population.extra_cost), BUDGET, samples)
    singles = single_promos(world.measured, BUDGET, samples)
    effects = _effects(world, NOTHING, judged, samples, rivals={}, others={BEST_SINGLE: singles[truth.single]})
    return judge(audit(world.trial), effects, baselines=())


@dataclass
class Tally:
    """Answers counted by model: the whole verdict under "", and each check."""

    answers: dict[str, dict[str, Counter[str]]]
    worlds: int = 0
    rows: int = 0

    def add(self, name: str, verdict: Verdict) -> None:
        """Count one verdict."""
        found = {check.status for check in verdict.checks}
        self.answers[name][""]["promoted" if verdict.promoted else "refused" if "failed" in found else "cannot tell"] += 1
        for check in verdict.checks:
            self.answers[name][check.name][check.status] += 1


def run(worlds: int, shoppers: int, design: Design, truth: Truth, models: dict[str, Model]) -> Tally:
    """Draw and judge `worlds` worlds."""
    tally = Tally(defaultdict(lambda: defaultdict(Counter)))
    judged = over_cores(partial(_of_world, shoppers, design, truth, models), range(worlds), f"operating curve, {shoppers} shoppers")
    for rows, found in judged:
        tally.worlds, tally.rows = tally.worlds + 1, tally.rows + rows
        for name, verdict in found.items():
            tally.add(name, verdict)
    return tally


def _of_world(shoppers: int, design: Design, truth: Truth, models: dict[str, Model], number: int) -> tuple[int, dict[str, Verdict]]:
    """Decisions of one world and the verdict on every model."""
    seed = FIRST_WORLD + number
    world = draw_world(seed, shoppers, design)
    found = dict(verdicts(world, truth, models, seed))
    return world.trial.rows, found | {NOTHING: nothing_verdict(seed, shoppers, design, truth)}


def promises(tally: Tally, alpha: float) -> list[dict[str, Any]]:
    """Each promise with its rate, its exact interval, and whether the count is one that a rate of `alpha` would usually give."""
    limit = largest_usual(tally.worlds, alpha)
    rows = []
    for promise in PROMISES:
        count = tally.answers[promise.model][promise.check][promise.status]
        kept = {"alpha": alpha, "largest_usual": limit, "kept": count <= limit}
        rows.append({**promise.__dict__, "check": promise.check or "verdict", **Share(count, tally.worlds).record(), **kept})
    return rows


def record(tally: Tally, shoppers: int, design: Design, truth: Truth, models: dict[str, Model]) -> dict[str, Any]:
    """One setting's tables for JSON."""
    curve = []
    for name, model in models.items():
        if name not in ONLY_PROFIT:
            answers = tally.answers[name]
            shares = {a: Share(answers[""][a], tally.worlds).record() for a in ("promoted", "refused", "cannot tell")}
            passed = {check: n["passed"] / tally.worlds for check, n in answers.items() if check}
            curve.append({"model": name, "true_gain": round(true_gain(truth, model), 4), **shares, "passed": passed})
    found = promises(tally, DEFAULT_LIMITS.alpha)
    return {"shoppers": shoppers, "mean_rows": tally.rows / tally.worlds, "design": design, "curve": curve, "promises": found}


def measure(worlds: int = 500, shoppers: Sequence[int] = (400, 1_200), design: Design = "skewed") -> dict[str, Any]:
    """The operating curve and every promise for trials of so many `shoppers` (2.5 decisions each)."""
    truth = find_truth(TRUTH_SEED, (0.0, ALIKE))
    models = models_of(truth)
    settings = [record(run(worlds, size, design, truth, models), size, design, truth, models) for size in shoppers]
    earns = {name: round(value, 3) for name, value in truth.earns.items()}
    return {"worlds": worlds, "resamples": RESAMPLES, "budget_cents": BUDGET, "earns": earns, "settings": settings}
