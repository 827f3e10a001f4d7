"""A served small run -> candidates registered for it, each with a sealed dossier, and a file of limits for a fast promotion."""

import hashlib
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from components.promotion_entry import enter
from components.register_model import register
from promolift.contracts.artifacts import Check, Verdict, read_manifest, write_json
from promolift.drift.reference import hand_on
from promolift.promotion.dossier import seal

CHECKS = (
    Check("qini_positive", "passed", 1.0, 0.0, "It orders shoppers better than chance."),
    Check("sample_ratio", "passed", 0.9, 0.001, "Arm counts agree with the logged propensities."),
)
RECORD = {"id": "value/aipw", "value": 12.0, "interval": [4.0, 20.0], "unit": "cents per decision", "rows": 1000}
FAST = """alpha: 0.05
first_look: 20
slow_ms: 5000
margins: {failed: 0.05, degraded: 0.05, slow: 0.05, no_promo: 0.3, mix: 0.15, spend: 500}
stages:
  shadow: {decisions: 10, hours: 0}
  canary_10: {decisions: 30, hours: 0}
  canary_50: {decisions: 60, hours: 0}
value: {decisions: 1000, looks: 2, alpha: 0.05}
"""


def write_dossier(folder: Path, model: str) -> Path:
    """A dossier of the form that components.write_dossier gives, with invented figures."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    days = {stage: {"profit +10%": 250.0, "failed +1%": 9.0} for stage in ("canary_10", "canary_50")}
    documents: dict[str, Any] = {
        "verdict": asdict(Verdict("linear", True, CHECKS)),
        "metrics": {"who_wins": "At the budget the linear model earns most."},
        "model": {"name": model}, "versions": {"commit": "unknown"},
        "expected": {
            "profit_over_no_promo": RECORD, "profit_over_champion": RECORD, "spend": {**RECORD, "unit": "cents"},
            "mix": {"meat_20": 0.4, "no_promo": 0.6},
        },
        "weaknesses": ["Weakest segment: area=b, -1 (95 % interval -4 to 2) per decision."],
        "power": {"told": "A canary shows gross harm.", "line": "", "decisions_a_day": 400.0, "days": days},
    }  # fmt: skip
    for name, document in documents.items():
        write_json(folder / f"{name}.json", document)
    (folder / "graph.diff").write_text("--- graph.yaml (now)\n+++ graph.yaml (then)\n")
    seal(folder)
    return folder


def add_candidate(run: Path, name: str, **changes: Any) -> str:
    """Register the model in service, by its own name, or one like it under another; its version. `changes`: fields of its manifest."""
    folder = run / "models" / name
    own = read_manifest(run / "serving_model").name
    shutil.copytree(run / "serving_model", folder)
    content = (folder / "model.tflite").read_bytes() + (b"" if name == own else name.encode())  # the format ignores what follows it
    (folder / "model.tflite").write_bytes(content)
    changes["sha256"] = hashlib.sha256(content).hexdigest()
    write_json(folder / "manifest.json", replace(read_manifest(folder), name=name, **changes))
    evaluation = run / "evaluation"
    write_json(evaluation / "verdict.json", Verdict(name, True, CHECKS))
    write_json(evaluation / "metrics.json", {"models": {}})
    manifest = read_manifest(folder)
    hand_on(folder, read_manifest(run / "serving_model").version, manifest.version)
    dossier = write_dossier(run / "dossier", f"{name}-{manifest.sha256[:12]}")
    found = register(
        str(run / "models"), str(evaluation), str(run / "lake"), f"sqlite:///{run}/mlflow.db", "promolift-uplift",
        dossier=str(dossier), author="ann",
    )  # fmt: skip
    enter(str(run / "lake"), found, str(dossier))
    return str(found["version"])


def fast_limits(folder: Path, canary: int = 30) -> Path:
    """Limits under which a canary of 10 % ends after so many decisions."""
    path = folder / "guardrails.yaml"
    path.write_text(FAST.replace("canary_10: {decisions: 30", f"canary_10: {{decisions: {canary}"))
    return path


def report(run: Path, name: str, version: str) -> dict[str, Any]:
    """What a promotion left of its newest look."""
    document: dict[str, Any] = json.loads((run / "rollout" / f"{name}-{version}.json").read_text())
    return document
