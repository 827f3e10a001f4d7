"""A trained candidate -> models/<name>/: model.tflite, scores.parquet, manifest.json; the same form for every kind of model."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.examples_input import Batch, Examples, Vocabularies, batches, tensor_specs
from components.harm_knots import knots, measured, prior, support
from promolift.contracts.artifacts import ModelManifest, write_json
from promolift.contracts.features import FeatureSet
from promolift.contracts.tables import EXAMPLES
from promolift.errors import InputError

Scores = tuple[NDArray[np.float64], NDArray[np.float64]]
TOLERANCE = 1e-4
SEEDS = "seeds"
"""Folder beside the candidates for their scores with other seeds."""


@dataclass(frozen=True)
class Candidate:
    """A trained model, whatever its kind; `owner` keeps the variables that `serve` reads alive (None: it reads none).

    `serve`: (numeric [1, N], attributes [1, A]) tensors -> {"value", "cost"} tensors [1, P]. `score`: a batch -> both as arrays [n, P].
    """

    name: str
    serve: Callable[[Any, Any], dict[str, Any]]
    score: Callable[[Batch], Scores]
    owner: Any
    seed: int


def export(candidate: Candidate, examples: Examples, vocabulary: Vocabularies, out: Path) -> dict[str, Any]:
    """Write the candidate's folder, the manifest last, so that a folder with a manifest is whole. Returns what was written.

    `created_at` is the wall clock's time of writing; it is in the manifest only, so the model's bytes depend on data and seed alone.
    """
    folder = out / candidate.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    content = to_tflite(candidate, examples.features)
    (folder / "model.tflite").write_bytes(content)
    check_parity(candidate, content, next(batches(examples, vocabulary, "validation", rows=64)))
    rows = write_scores(candidate, examples, vocabulary, folder / "scores.parquet")
    scored = [candidate.score(b) for b in batches(examples, vocabulary, "validation")]
    value, cost = (np.concatenate([part[k] for part in scored]).astype(np.float64) for k in (0, 1))
    manifest = _manifest(candidate, examples, vocabulary, hashlib.sha256(content).hexdigest(), (value, cost))
    write_json(folder / "manifest.json", manifest)
    return {"folder": str(folder), "sha256": manifest.sha256, "bytes": len(content), "scored_rows": rows}


def _manifest(candidate: Candidate, examples: Examples, vocabulary: Vocabularies, sha256: str, scored: Scores) -> ModelManifest:
    """`scored`: value and cost [n, P] of the randomised validation rows."""
    rows = measured(examples, vocabulary, candidate.seed)
    return ModelManifest(
        name=candidate.name, sha256=sha256, features_hash=examples.features.hash,
        numeric=examples.features.numeric_names, attributes=examples.features.attribute_names,
        vocabularies=vocabulary, promos=examples.card.promos, objective=examples.card.objective,
        harm_bound=knots(rows, scored[0], examples.card.promos), support=support(examples, vocabulary),
        prior=prior(rows, scored[1], examples, vocabulary),
        tables={EXAMPLES.path: examples.version}, seed=candidate.seed, created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip


def to_tflite(candidate: Candidate, features: FeatureSet) -> bytes:
    """The serving function as a flat buffer with built-in operations only; the converter refuses any other."""
    import tensorflow as tf  # noqa: PLC0415 (takes seconds)

    specs = tensor_specs(features)
    signature = tf.function(candidate.serve, input_signature=[specs["numeric"], specs["attributes"]]).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([signature], candidate.owner or tf.Module())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    content: bytes = converter.convert()
    return content


def interpreter_of(content: bytes) -> Any:
    """The signature runner of a flat buffer, on one thread."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 (only where a model is run)

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter.get_signature_runner()


def check_parity(candidate: Candidate, content: bytes, batch: Batch) -> None:
    """Raises InputError when the exported file's answers are further than TOLERANCE (relative) from the model's own."""
    run = interpreter_of(content)
    served = [run(numeric=batch.numeric[i : i + 1], attributes=batch.attributes[i : i + 1]) for i in range(len(batch.arm))]
    for name, own in zip(("value", "cost"), candidate.score(batch), strict=True):
        found = np.concatenate([answer[name] for answer in served])
        gap = float(np.max(np.abs(found - own)) / max(1e-6, float(np.max(np.abs(own)))))
        if not gap <= TOLERANCE:
            raise InputError(f"Exported '{candidate.name}' differs from the trained model in {name} by {gap:.2g} of its range; not usable.")


def write_scores(candidate: Candidate, examples: Examples, vocabulary: Vocabularies, path: Path) -> int:
    """Value and cost of every promo on all validation and test rows, holdout too, batch by batch. Returns the rows."""
    promos = [p.promo_id for p in examples.card.promos]
    names = [f"{kind}_{promo}" for kind in ("value", "cost") for promo in promos]
    schema = pa.schema([("exposure_id", pa.string()), ("split", pa.string()), *((name, pa.float64()) for name in names)])
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for batch in _scored(examples, vocabulary):
            columns = np.concatenate(candidate.score(batch), axis=1).astype(np.float64).T
            writer.write_table(pa.table([pa.array(batch.exposure_id), pa.array(batch.split), *map(pa.array, columns)], schema=schema))
            count += len(batch.arm)
    return count


def write_seed(candidate: Candidate, examples: Examples, vocabulary: Vocabularies, out: Path) -> int:
    """Scores alone, as models/seeds/<name>/<seed>.parquet: of a candidate that was trained once more, with another seed."""
    path = out / SEEDS / candidate.name / f"{candidate.seed}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_scores(candidate, examples, vocabulary, path)


def _scored(examples: Examples, vocabulary: Vocabularies) -> Iterator[Batch]:
    return batches(examples, vocabulary, "validation", "test", randomised=False)
