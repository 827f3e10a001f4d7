"""The truth of a simulated experiment and the candidates' scores -> how near each candidate comes to the oracle: truth.json.

The only stage besides landing that may read the truth; nothing it writes is read by training or by the gate.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from components.candidate_scores import read_candidates
from components.trial_input import Decisions, read_decisions
from promolift.contracts.artifacts import ModelManifest, read_manifest, write_json
from promolift.contracts.decisions import Candidates, Request, Scores
from promolift.errors import InputError
from promolift.policy.constraints import Policy, Standing, choose, harmless
from promolift.policy.rules import read_rules
from promolift.storage import delta_options
from promolift.uplift.calibration import PromoBounds, coverage, lower_at
from promolift.uplift.clusters import Floats, Integers
from promolift.uplift.ranking import rank, tie_means
from promolift.uplift.scores import no_overlap
from promolift.uplift.value import Prediction, affordable_share, assign, mean_given, price_for
from promolift.yaml_file import YamlFile

SERVED = Policy(lambda_cost=0.0, explore_share=0.0, holdout_share=0.0, hash_salt="", do_no_harm=True)
"""The rule that serving applies by default, without the shares that it keeps for exploration and for the holdout."""


def measure(truth: str, lake: str, models: str, out: str) -> dict[str, Any]:
    """Compare every candidate with the truth on the test split (holdout left out) and write <out>/truth.json.

    Profit and spend are true expectations in cents per decision. Every policy spends the source's budget by true cost, so none gains
    by underrating costs; `share_of_oracle` divides by the policy that knows every effect. `served` is the rule of the endpoint, which
    has no price on a cent of budget and gives nothing below the manifest's harm bound; its oracle may spend as much as it does.
    Neither the shop's rules and caps nor the ledger are in it. Raises InputError when the truth is missing or lacks a decision.
    """
    decisions = read_decisions(lake)[0]
    rows = decisions.take(decisions.rows_of("test") & ~no_overlap(decisions.trial))
    known = _read_truth(truth, rows)
    budget = rows.card.budget_cents
    oracle = _policy(known, known, budget)
    predictions = read_candidates(Path(models), rows)
    found = {name: _policy(p, known, budget) | _agreement(p, known, rows) for name, p in predictions.items()}
    for name, judged in found.items():
        judged["served"] = _served(predictions[name], read_manifest(Path(models) / name), known, rows)
        judged["harm_bound"] = bound_coverage(predictions[name], read_manifest(Path(models) / name), known, rows.card.arms[1:])
        judged["share_of_oracle"] = _ratio(judged["profit"], oracle["profit"])
        judged["share_of_lightgbm"] = _ratio(judged["profit"], found["lightgbm"]["profit"])
    document = {
        "decisions": rows.trial.rows, "shoppers": rows.trial.shoppers, "budget_cents": budget, "unit": "true cents per decision",
        "oracle": oracle, "models": found, "single_promos": _singles(known, rows, budget),
    }  # fmt: skip
    write_json(Path(out) / "truth.json", document)
    return document


def _read_truth(path: str, rows: Decisions) -> Prediction:
    """True profit and cost [n, K] of the decisions, as a prediction that is always right."""
    try:
        columns = ["exposure_id", "promo_id", "profit_cents", "cost_cents"]
        table = DeltaTable(path, storage_options=delta_options()).to_pyarrow_dataset().to_table(columns=columns).combine_chunks()
    except (DeltaError, OSError) as cause:
        raise InputError(f"No truth at '{path}' ({str(cause).splitlines()[0]}); only simulated sources have one.") from cause
    parts = [_of_promo(table.filter(pc.equal(table["promo_id"], promo)), promo, rows) for promo in rows.card.arms[1:]]
    return Prediction(*(np.column_stack([part[i] for part in parts]) for i in (0, 1)))


def _of_promo(table: Any, promo: str, rows: Decisions) -> tuple[Floats, Floats]:
    text = pa.string()
    at = pc.index_in(rows.table["exposure_id"].cast(text), value_set=table["exposure_id"].cast(text))
    if at.null_count:
        raise InputError(f"The truth of promo '{promo}' lacks {at.null_count} of {len(at)} test decisions; land the source again.")
    found = [table[name].to_numpy().astype(np.float64)[at.to_numpy()] for name in ("profit_cents", "cost_cents")]
    return found[0], found[1]


def _policy(prediction: Prediction, known: Prediction, budget: float) -> dict[str, Any]:
    return _worth(assign(prediction, price_for(prediction, budget, known.cost)), known)


def _worth(arm: Integers, known: Prediction) -> dict[str, Any]:
    return {"profit": mean_given(known.value, arm), "spend": mean_given(known.cost, arm), "given": float(np.mean(arm > 0))}


def _served(prediction: Prediction, manifest: ModelManifest, known: Prediction, rows: Decisions) -> dict[str, Any]:
    worth = _worth(served_arms(prediction, manifest, rows.card.arms), known)
    return worth | {"share_of_oracle": _ratio(worth["profit"], _policy(known, known, worth["spend"])["profit"])}


def bound_coverage(prediction: Prediction, manifest: ModelManifest, known: Prediction, promos: tuple[str, ...]) -> dict[str, Any]:
    """How often the truth lies above the bound of do-no-harm: shares of (bin, promo) cells and of (decision, promo) pairs."""
    found = coverage(PromoBounds(manifest.harm_bound, ()), prediction.value, known.value, promos)
    return {"cells_above": found.cells, "cells": found.counted, "pairs_above": found.pairs}


def served_arms(prediction: Prediction, manifest: ModelManifest, arms: tuple[str, ...]) -> Integers:
    """Arm [n] that the endpoint's own code chooses under SERVED for each decision's predicted value and cost [n, K] in cents."""
    promos = arms[1:]
    lower = np.column_stack([lower_at(manifest.harm_bound[promo], prediction.value[:, k]) for k, promo in enumerate(promos)])
    asked = Request("truth", "truth", "2000-01-01T00:00:00Z")  # nothing is drawn by its ids, since SERVED explores nothing
    candidates, place = Candidates(promos, {}, ""), {arm: index for index, arm in enumerate(arms)}
    scored = zip(prediction.value.tolist(), lower.tolist(), prediction.cost.tolist(), strict=True)
    found = (Scores(manifest.name, tuple(value), tuple(bound), tuple(cost)) for value, bound, cost in scored)
    rules = read_rules(YamlFile("no rules", {}), manifest.promos)
    chosen = (choose(asked, harmless(candidates, scores, rules, SERVED), Standing(), rules, SERVED).promo_id for scores in found)
    return np.fromiter((place[promo] for promo in chosen), np.int64, len(prediction.value))


def _agreement(prediction: Prediction, known: Prediction, rows: Decisions) -> dict[str, Any]:
    each = {p: spearman(prediction.value[:, k], known.value[:, k]) for k, p in enumerate(rows.card.arms[1:])}
    return {"rank_correlation": {"all": spearman(prediction.value.ravel(), known.value.ravel()), **each}}


def spearman(one: Floats, two: Floats) -> float | None:
    """Spearman's rank correlation of two samples [n], equal values sharing their mean rank; None when one is constant."""
    first, second = _ranks(one), _ranks(two)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Floats) -> Floats:
    order = rank(values)
    ranks = np.empty(len(values))
    ranks[order.order] = tie_means(np.arange(len(values), 0, -1, dtype=np.float64), order.group)
    return ranks


def _singles(known: Prediction, rows: Decisions, budget: float) -> dict[str, dict[str, float]]:
    means = zip(rows.card.arms[1:], known.value.mean(axis=0).tolist(), known.cost.mean(axis=0).tolist(), strict=True)
    return {
        promo: {"profit_to_everybody": profit, "spend_to_everybody": cost, "profit_at_budget": profit * affordable_share(cost, budget)}
        for promo, profit, cost in means
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
