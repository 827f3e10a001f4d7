"""Model folders -> predicted value and cost of every decision and promo: from scores.parquet, or by running a champion's file."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.trial_input import Decisions
from promolift.contracts.artifacts import CANDIDATES, ModelManifest, read_manifest
from promolift.contracts.features import features_of
from promolift.contracts.promos import SourceCard
from promolift.errors import InputError
from promolift.uplift.clusters import Floats
from promolift.uplift.effects import CHAMPION
from promolift.uplift.value import Prediction


def read_candidates(models: Path, decisions: Decisions) -> dict[str, Prediction]:
    """Every candidate's scores for `decisions`, in their order. Raises InputError for a missing model, column, row or number."""
    return {name: read_scores(models / name / "scores.parquet", decisions) for name in candidate_names(models)}


def candidate_names(models: Path) -> tuple[str, ...]:
    """The candidates that every run has, then any other that was asked for."""
    others = sorted(manifest.parent.name for manifest in models.glob("*/manifest.json"))
    return (*CANDIDATES, *(name for name in others if name not in CANDIDATES))


def read_scores(path: Path, decisions: Decisions) -> Prediction:
    """Value and cost [n, K] of one model, looked up by exposure_id."""
    promos = decisions.card.arms[1:]
    names = [f"{kind}_{promo}" for kind in ("value", "cost") for promo in promos]
    table = _open(path, names)
    at = pc.index_in(decisions.table["exposure_id"], value_set=table["exposure_id"])
    if at.null_count:
        missing = decisions.table["exposure_id"].filter(pc.is_null(at))[0].as_py()
        raise InputError(f"'{path}' has no score for {at.null_count} decisions, '{missing}' for one; train again on this table.")
    rows = at.to_numpy()
    return Prediction(
        *(np.column_stack([_finite(table, n, path)[rows] for n in part]) for part in (names[: len(promos)], names[len(promos) :]))
    )


def _open(path: Path, names: list[str]) -> Any:
    try:
        return pq.read_table(path, columns=["exposure_id", *names]).combine_chunks()
    except (OSError, pa.ArrowException) as cause:
        raise InputError(f"Scores at '{path}' cannot be read ({cause}); train this candidate first.") from cause


def _finite(table: Any, name: str, path: Path) -> Floats:
    values: Floats = table[name].to_numpy().astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise InputError(f"Column '{name}' of '{path}' is {values[wrong[0]]} for '{table['exposure_id'][int(wrong[0])]}'; train again.")
    return values


def champion_note(folder: Path, manifest: ModelManifest, card: SourceCard) -> str:
    """Why the champion cannot be compared on these decisions, or an empty text when it can."""
    held = features_of(card).hash
    if manifest.features_hash != held:
        return (
            f"The champion '{manifest.name}' was trained with features {manifest.features_hash}, these decisions hold {held}: "
            "it cannot be scored here; compare the two on live traffic instead."
        )
    if manifest.objective != card.objective:
        return f"The champion '{manifest.name}' maximises {manifest.objective}, not {card.objective}: the two cannot be compared."
    found = hashlib.sha256((folder / "model.tflite").read_bytes()).hexdigest()
    if found != manifest.sha256:
        return (
            f"The champion's file has sha256 {found[:12]}, its manifest says {manifest.sha256[:12]}: it is not the model it claims to be."
        )
    return ""


def score_champion(folder: Path, manifest: ModelManifest, decisions: Decisions) -> Prediction:
    """Run the champion's exported model, as serving does, on every decision. A promo that it does not know is never given."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 (only when there is a champion)

    interpreter = Interpreter(model_path=str(folder / "model.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    run = interpreter.get_signature_runner()
    numeric = decisions.numeric(manifest.numeric)
    attributes = decisions.attributes({name: manifest.vocabularies[name] for name in manifest.attributes})
    answers = [run(numeric=numeric[i : i + 1], attributes=attributes[i : i + 1]) for i in range(len(numeric))]
    own = [p.promo_id for p in manifest.promos]
    value, cost = (np.concatenate([a[name] for a in answers]).astype(np.float64) for name in ("value", "cost"))
    return Prediction(_aligned(value, own, decisions, -1e12), _aligned(cost, own, decisions, 0.0))


def _aligned(table: Floats, own: list[str], decisions: Decisions, absent: float) -> Floats:
    columns = [table[:, own.index(p)] if p in own else np.full(len(table), absent) for p in decisions.card.arms[1:]]
    return np.column_stack(columns)


def read_champion(champion: str, decisions: Decisions) -> tuple[dict[str, Prediction], str]:
    """`{"champion": prediction}` and no note, or nothing and the note that says why it cannot be compared; no champion: neither.

    Raises InputError when the champion's folder has no manifest.
    """
    if not champion:
        return {}, ""
    folder = Path(champion)
    if not (folder / "manifest.json").exists():
        raise InputError(f"The champion's folder '{folder}' has no manifest.json; give a folder of a registered model, or none.")
    manifest = read_manifest(folder)
    note = champion_note(folder, manifest, decisions.card)
    return ({}, note) if note else ({CHAMPION: score_champion(folder, manifest, decisions)}, "")
