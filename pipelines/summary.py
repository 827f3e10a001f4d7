"""A finished run's folder and tasks -> summary.json: what went in, what came out, what was decided, how long it took."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.register_model import code_commit
from pipelines.local_runner import Task
from promolift.contracts.artifacts import CANDIDATES, read_source_card

LAYERS = ("silver", "gold", "training")


def summarise(folder: Path, tasks: Mapping[str, Task], seconds: float) -> dict[str, Any]:
    """Everything that the report shows, by the keys of summary.json; a part that the pipeline does not have is null or empty."""
    return {
        "sources": _sources(folder),
        "commit": code_commit(),
        "tables": _tables(folder / "lake" / "lineage"),
        "expectations": {layer: _read(folder / "docs" / layer / "result.json") for layer in LAYERS},
        "online": _read(folder / "lake" / "lineage" / "materialize_features.json"),
        "training": _training(folder, tasks),
        "gate": _gate(folder / "evaluation") if "evaluate-uplift" in tasks else None,
        "truth": _said(folder, tasks, "measure-truth"),
        "registry": _said(folder, tasks, "register-model"),
        "seconds": {**{t.name: round(t.seconds or 0.0, 1) for t in tasks.values()}, "total": round(seconds, 1)},
        "peak_gib": {t.name: round(t.peak_gib, 2) for t in tasks.values() if t.peak_gib},
        "reused": [t.name for t in tasks.values() if t.reused],
    }


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _said(folder: Path, tasks: Mapping[str, Task], stage: str) -> Any:
    """What a stage recorded of its work; None when this run did not have it."""
    return _read(folder / "stages" / f"{stage}.json") if stage in tasks else None


def _sources(folder: Path) -> dict[str, Any]:
    card = read_source_card(folder / "lake")
    told = ("name", "real", "simulated", "objective", "as_of", "estimated_propensities")
    return {**{name: getattr(card, name) for name in told}, "covariates": {c.name: c.kind for c in card.covariates}}


def _tables(lineage: Path) -> dict[str, dict[str, Any]]:
    """{path: rows, Delta version, rows quarantined on the way in} of every table that a Spark job wrote."""
    records = [r for r in map(_read, sorted(lineage.glob("*.json"))) if "writes" in r]
    refused = {f"silver/{t}": c for r in records for t, c in r.get("counters", {}).get("tables", {}).items()}
    written = {path: w for r in records for path, w in r["writes"].items()}
    return {
        path: {
            "rows": w["rows"], "version": w["version"], "quarantined": refused.get(path, {}).get("quarantined", 0),
            "duplicates": refused.get(path, {}).get("duplicates", 0), "reasons": refused.get(path, {}).get("reasons", {}),
        }
        for path, w in sorted(written.items(), key=lambda item: _order(item[0]))
    }  # fmt: skip


def _order(path: str) -> tuple[int, str]:
    layers = ("bronze", "silver", "gold")
    layer = path.split("/", maxsplit=1)[0]
    return (layers.index(layer) if layer in layers else len(layers), path)


def _training(folder: Path, tasks: Mapping[str, Task]) -> dict[str, dict[str, Any]]:
    """Rows, seconds, device and hash of each candidate."""
    network, baselines = (_said(folder, tasks, f"train-{name}") or {} for name in ("uplift", "baselines"))
    others = [name for name, value in baselines.items() if isinstance(value, dict) and "sha256" in value and name not in CANDIDATES]
    said = {name: network if name in network else baselines for name in (*CANDIDATES, *others) if name in {*network, *baselines}}
    return {
        name: {
            "rows": int(how["rows"]), "seconds": how["seconds"], "device": how["device"], "sha256": how[name]["sha256"],
            "kilobytes": round(how[name]["bytes"] / 1024), "epochs": int(how["epochs"]) if "epochs" in how else None,
        }
        for name, how in said.items()
    }  # fmt: skip


def _gate(evaluation: Path) -> dict[str, Any]:
    verdict, measured = _read(evaluation / "verdict.json"), _read(evaluation / "metrics.json")
    models = {name: {i: _brief(m) for i, m in model["metrics"].items()} for name, model in measured.get("models", {}).items()}
    return {
        "chosen": verdict["chosen"], "verdict": "promoted" if verdict["promoted"] else "refused", "reasons": verdict["reasons"],
        "checks": verdict["checks"], "metrics": models, "who_wins": measured.get("who_wins", ""),
        "seeds": {name: model["seeds"] for name, model in measured.get("models", {}).items() if model.get("seeds")},
    }  # fmt: skip


def _brief(metric: Mapping[str, Any]) -> dict[str, Any]:
    return {key: metric[key] for key in ("value", "interval", "unit", "rows")}
