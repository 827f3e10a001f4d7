"""Trained candidates and gold/examples -> evaluation/{metrics.json, verdict.json, three figures} and the gate's answer.

The validation split chooses among the candidates, the test split alone judges the one chosen. Neither was trained on.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.candidate_scores import read_candidates, read_champion
from components.evaluation_figures import draw_calibration, draw_curves, draw_spend
from components.evaluation_metrics import (
    arm_metrics,
    finite,
    model_metrics,
    off_policy_values,
    policy_metrics,
    programme_effect,
    segment_metrics,
)
from components.evaluation_seeds import seed_spread
from components.evaluation_verdict import winner
from components.examples_input import Vocabularies
from components.outcome_models import pseudo_outcomes
from components.trial_input import Decisions, read_decisions, segments
from promolift.contracts.artifacts import Verdict, write_json
from promolift.contracts.tables import EXAMPLES
from promolift.uplift.audit import Audit, audit
from promolift.uplift.clusters import Floats
from promolift.uplift.effects import Choice, Effects, Measured, choose, contribution_means, measure
from promolift.uplift.gate import DEFAULT_LIMITS, judge, power_line, trust
from promolift.uplift.judge_curves import calibration_bins, gain_curve, spend_curve
from promolift.uplift.scores import faults, no_overlap, overlap
from promolift.uplift.value import Prediction

RESAMPLES = 400
ARM_RESAMPLES = 200


@dataclass(frozen=True)
class Judgement:
    """The test decisions where every arm was possible, what was measured on them, and how the model was chosen."""

    decisions: Decisions
    measured: Measured
    predictions: dict[str, Prediction]
    effects: Effects
    choice: Choice
    explained: dict[str, float]
    note: str
    seeds: dict[str, dict[str, Any]]
    mean: Floats


def evaluate(lake: str, models: str, champion: str, out: str, seed: int) -> bool:
    """Judge the candidates in `models` (and the champion's folder, "" for none). Returns whether the chosen one is promoted.

    Deterministic for a seed. Raises InputError for missing tables, scores or labels; unusable propensities and arm counts that
    contradict them are the gate's answer, not an error.
    """
    decisions, vocabulary = read_decisions(lake)
    test = decisions.take(decisions.rows_of("test"))
    found, folder = audit(test.trial), Path(out)
    judgement = None
    if all(check.status == "passed" for check in trust(found)):
        judgement = _judgement(decisions, vocabulary, Path(models), champion, seed)
    verdict = judge(found, judgement.effects if judgement else None, champion_note=judgement.note if judgement else "")
    document = _document(test, found, verdict, seed) | (_measured(judgement, seed) if judgement else {})
    write_json(folder / "metrics.json", finite(document))
    write_json(folder / "verdict.json", finite(asdict(verdict)))
    if judgement:
        draw_curves(document, folder / "curves.png")
        draw_spend(document, folder / "spend.png")
        draw_calibration(document, folder / "calibration.png")
    return verdict.promoted


def _judgement(decisions: Decisions, vocabulary: Vocabularies, models: Path, champion: str, seed: int) -> Judgement:
    sound = ~faults(decisions.trial)[0]
    possible = sound & ~no_overlap(decisions.trial)
    validation, test = (decisions.rows_of(split) & possible for split in ("validation", "test"))
    earlier, rows = decisions.take(validation), decisions.take(test)
    before, predictions = read_candidates(models, earlier), read_candidates(models, rows)
    rival, note = read_champion(champion, rows)
    pseudo = pseudo_outcomes(decisions, vocabulary, sound, validation | test, seed)
    budget, measured = decisions.card.budget_cents, pseudo.of(decisions, test)
    choice = choose(pseudo.of(decisions, validation), before, budget)
    predictions |= rival
    found = segments(rows)
    effects = measure(measured, predictions, choice, budget=budget, segments=found, resamples=RESAMPLES, seed=seed)
    seeds = {name: seed_spread(models, name, predictions[name], rows, measured) for name in before}
    return Judgement(rows, measured, predictions, effects, choice, pseudo.explained, note, seeds, pseudo.mean[test])


def _document(test: Decisions, found: Audit, verdict: Verdict, seed: int) -> dict[str, Any]:
    card, sound = test.card, ~faults(test.trial)[0]
    held_out = test.trial.propensities[:, 0] == 1
    programme = programme_effect(test.take(sound), held_out[sound]) if sound.any() else None
    return {
        "source": {"name": card.name, "real": card.real, "simulated": card.simulated, "objective": card.objective},
        "unit": test.outcome[1], "tables": {EXAMPLES.path: test.version}, "seed": seed, "resamples": RESAMPLES,
        "limits": asdict(DEFAULT_LIMITS), "chosen": verdict.chosen, "promoted": verdict.promoted, "budget_cents": card.budget_cents,
        "propensities": test.propensities, "audit": asdict(found), "programme_effect": programme,
        "test": {"decisions": test.trial.rows, "shoppers": test.trial.shoppers, "holdout_decisions": int(held_out.sum())},
    }  # fmt: skip


def _measured(judgement: Judgement, seed: int) -> dict[str, Any]:
    effects, rows = judgement.effects, judgement.decisions
    choice = {"by": "value/aipw at the budget on the validation split", "validation_value": judgement.choice.values}
    return {
        "choice": choice | {"chosen": effects.chosen, "best_single_promo": judgement.choice.single},
        "who_wins": winner(effects), "off_policy": off_policy_values(effects, rows, judgement.mean, judgement.choice.single),
        "judged": {"decisions": effects.rows, "shoppers": effects.shoppers}, "overlap": asdict(overlap(rows.trial)),
        "outcome_models": {"r_squared_out_of_fold": judgement.explained}, "power": power_line(effects),
        "models": {name: _model(name, judgement, seed) for name in judgement.predictions},
        "policies": policy_metrics(effects, rows), "segments": segment_metrics(effects), "single_promos": _singles(judgement.measured),
    }  # fmt: skip


def _model(name: str, judgement: Judgement, seed: int) -> dict[str, Any]:
    prediction = judgement.predictions[name]
    return {
        **model_metrics(name, judgement.effects, judgement.decisions),
        "arms": arm_metrics(prediction, judgement.decisions, ARM_RESAMPLES, seed),
        "seeds": judgement.seeds.get(name, {}),
        "gain_curve": gain_curve(prediction, judgement.measured),
        "spend_curve": spend_curve(prediction, judgement.measured),
        "calibration": calibration_bins(prediction, judgement.measured),
    }


def _singles(measured: Measured) -> dict[str, dict[str, float]]:
    """Each promo given to everybody, whatever it costs."""
    pairs = zip(contribution_means(measured.value).tolist(), contribution_means(measured.cost).tolist(), strict=True)
    return {promo: {"value": value, "spend": cost} for promo, (value, cost) in zip(measured.arms[1:], pairs, strict=True)}
