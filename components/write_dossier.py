"""Evaluation, model and lake -> dossier/: what a reviewer needs to approve a candidate or refuse it, every file hashed into one manifest.

dossier/
├── dossier.json      hash of every file below; its own hash names the dossier
├── verdict.json metrics.json curves.png spend.png calibration.png   as the gate wrote them
├── model.json        digest, tensors, features, promos, seed
├── versions.json     tables by Delta version, commit of the code, source
├── graph.diff        what the first canary changes in the graph
├── expected.json     spend, promo mix and profit, against no promo and against the champion, off-policy
├── weaknesses.json   what is known to be weak, in sentences
├── power.json        what a canary can detect, in days of the source's traffic
└── model_card.md     the same for people
"""

import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from components.register_model import code_commit
from promolift.contracts.artifacts import ModelManifest, Verdict, read_manifest, read_source_card, read_verdict, write_json
from promolift.contracts.promos import SourceCard
from promolift.contracts.tables import EXPOSURES
from promolift.delta_rows import read_rows
from promolift.promotion.dossier import seal
from promolift.promotion.graph_change import changed, diff
from promolift.promotion.guardrails import read_limits
from promolift.promotion.stages import BUCKETS, SHARE
from promolift.uplift.metrics import SPEND, VALUE

GRAPH = Path(__file__).parent.parent / "serving/kserve/graph.yaml"
COPIED = ("verdict.json", "metrics.json", "curves.png", "spend.png", "calibration.png")
Z = 1.645 + 0.842
"""One-sided 5 % with 80 % power."""
NARROW = 0.5
"""Effective rows below this share of the possible ones are a thin support."""


def write(models: str, evaluation: str, lake: str, to: str, author: str) -> str:
    """Write the dossier of the candidate that the gate chose into `to`; returns its hash. Raises InputError for missing evidence."""
    judged, folder = Path(evaluation), Path(to)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in COPIED:
        if (judged / name).exists():
            shutil.copyfile(judged / name, folder / name)
    verdict, metrics = read_verdict(judged / "verdict.json"), json.loads((judged / "metrics.json").read_text(encoding="utf-8"))
    manifest, card = read_manifest(Path(models) / verdict.chosen), read_source_card(lake)
    found: dict[str, Any] = {
        "model": _model(manifest), "versions": _versions(manifest, card), "expected": expected(metrics),
        "weaknesses": weaknesses(verdict, metrics), "power": power(metrics, _traffic(lake)),
    }  # fmt: skip
    for name, document in found.items():
        write_json(folder / f"{name}.json", document)
    graph = yaml.safe_load(GRAPH.read_text(encoding="utf-8"))
    (folder / "graph.diff").write_text(diff(graph, changed(graph, found["model"]["name"], "canary_10")), encoding="utf-8")
    (folder / "model_card.md").write_text(_card(manifest, card, author, found), encoding="utf-8")
    return seal(folder)


def expected(metrics: dict[str, Any]) -> dict[str, Any]:
    """Profit, spend and mix of the chosen policy at the budget, per decision, by the estimators of the evaluation."""
    chosen = metrics["models"][metrics["chosen"]]
    measured, paired = chosen["metrics"], metrics["policies"]["chosen_less_other"]
    return {
        "unit": metrics["unit"], "budget_cents": metrics["budget_cents"],
        "profit_over_no_promo": _told(measured[VALUE.id]), "snips": _told(chosen["policy"]["snips"]),
        "profit_over_champion": _told(paired["champion"]) if "champion" in paired else None,
        "spend": _told(measured[SPEND.id]),
        "mix": chosen["policy"]["mix"],
    }  # fmt: skip


def weaknesses(verdict: Verdict, metrics: dict[str, Any]) -> list[str]:
    """Sentences on what is weak: the tightest checks, the weakest segment, calibration, support, and rivals that were not told apart."""
    found = [check.detail for check in verdict.checks if check.status != "passed"]
    if metrics["segments"]:
        worst = min(metrics["segments"], key=lambda segment: segment["interval"][0])
        low, high = worst["interval"]
        found.append(f"Weakest segment: {worst['segment']}, {worst['value']:.4g} (95 % interval {low:.4g} to {high:.4g}) per decision.")
    found += [check.detail for check in verdict.checks if check.name.startswith("calibration")]
    overlap = metrics["overlap"]
    shares = [effective / count for effective, count in zip(overlap["effective"], overlap["counts"], strict=True) if count]
    if shares and min(shares) < NARROW:
        found.append(f"Thin support: the weights of the rarest arm leave {min(shares):.0%} of its decisions' worth.")
    paired = metrics["policies"]["chosen_less_other"]
    open_ = [name for name, record in paired.items() if record["interval"][0] is not None and record["interval"][0] <= 0]
    if open_:
        found.append(f"The data cannot tell it from {', '.join(open_)}.")
    return found


def power(metrics: dict[str, Any], daily: float) -> dict[str, Any]:
    """Days until a canary stage could show a gain of 10 % in profit, and a rise of each guarded share by its margin; fixed horizon."""
    record = metrics["models"][metrics["chosen"]]["metrics"][VALUE.id]
    spread, gain = record["error"] * math.sqrt(record["rows"]), 0.1 * abs(record["value"])
    margins = asdict(read_limits().margins)
    shares = {name: margins[name] for name in ("failed", "slow", "no_promo")}
    days = {
        stage: {
            "profit +10%": _days(spread**2, gain, part / BUCKETS, daily),
            **{f"{name} +{m:.0%}": _days(m * (1 - m), m, part / BUCKETS, daily) for name, m in shares.items()},
        }
        for stage, part in SHARE.items()
    }
    told = "A canary shows gross harm and technical failure; what a promo is worth it does not show in time."
    return {"decisions_a_day": daily, "days": days, "line": metrics.get("power", ""), "told": told}


def _days(variance: float, gap: float, share: float, daily: float) -> float:
    """Days of `daily` decisions until a difference `gap` of two means shows: (z_a + z_b)^2 variance (1 / s + 1 / (1 - s)) / gap^2."""
    days: float = round(Z**2 * variance * (1 / share + 1 / (1 - share)) / max(gap, 1e-9) ** 2 / max(daily, 1e-9), 2)
    return days


def _traffic(lake: str) -> float:
    """Decisions a day of the source's experiment."""
    (row,) = read_rows(f"{lake}/{EXPOSURES.path}", ("count(*) AS n", "min(moment) AS a", "max(moment) AS b"))
    days = max(1.0, float((row["b"] - row["a"]).total_seconds()) / 86_400)
    return float(row["n"] / days)


def _told(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("id", "value", "interval", "unit", "rows") if name in record}


def _model(manifest: ModelManifest) -> dict[str, Any]:
    promos = len(manifest.promos)
    tensors = {
        "numeric": ["float32", 1, len(manifest.numeric)], "attributes": ["int32", 1, len(manifest.attributes)],
        "value": ["float32", 1, promos], "cost": ["float32", 1, promos],
    }  # fmt: skip
    return {
        "name": manifest.version, "kind": manifest.name, "sha256": manifest.sha256, "signature": tensors,
        "features_hash": manifest.features_hash, "promos": [promo.promo_id for promo in manifest.promos],
        "objective": manifest.objective, "seed": manifest.seed, "created_at": manifest.created_at,
    }  # fmt: skip


def _versions(manifest: ModelManifest, card: SourceCard) -> dict[str, Any]:
    return {"tables": manifest.tables, "commit": code_commit(), "source": card.name, "real": card.real, "simulated": card.simulated}


def _card(manifest: ModelManifest, card: SourceCard, author: str, found: dict[str, Any]) -> str:
    profit = found["expected"]["profit_over_no_promo"]
    low, high = profit["interval"]
    weak = "\n".join(f"- {line}" for line in found["weaknesses"])
    return f"""# Model card: {found["model"]["name"]}

**What it does.** Predicts for one shopper the incremental {manifest.objective} of each of {len(manifest.promos)} promos against none.
**Trained by** {author} on {card.name}. Real: {card.real} Simulated: {card.simulated or "nothing."}
**Expected.** {profit["value"]:.4g} {profit["unit"]} more than no promo (95 % interval {low:.4g} to {high:.4g}; {profit["id"]}).
**Not for** shoppers outside the training data's range: they get the mean effect of their segment; other promos than those listed.

## Known weaknesses
{weak}

## What a canary can show
{found["power"]["told"]} {found["power"]["line"]}
"""
