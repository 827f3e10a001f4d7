"""Envelope with candidates -> envelope with their scores from a LiteRT model; a failure of the model becomes `Scores.error`."""

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from promolift.contracts.artifacts import ModelManifest
from promolift.contracts.decisions import Envelope, Scores, Shopper
from promolift.errors import InputError
from promolift.uplift.calibration import lower_at
from serving.kserve.model_folder import load_manifest, load_model, model_version, need_features
from serving.kserve.stamp import stamped


class Predictor:
    """The third box: one model on one thread (a second thread costs more than this model takes)."""

    name = "predictor"

    def __init__(self, folder: Path) -> None:
        self._manifest = load_manifest(folder)
        self._run = _signature(load_model(folder, self._manifest), folder)
        self._version = model_version(self._manifest)
        self._codes = [_codes(self._manifest, name) for name in self._manifest.attributes]
        self._column = {promo.promo_id: index for index, promo in enumerate(self._manifest.promos)}

    def __call__(self, envelope: Envelope) -> Envelope:
        """The envelope with `scores`, aligned with its candidates; every failure is a sentence in `scores.error`."""
        started = perf_counter()
        try:
            scores = self._scores(envelope)
        # Whatever goes wrong in a model must cost this decision its promo, not the shopper an answer.
        except Exception as problem:
            scores = Scores(self._version, error=f"The model could not score ({type(problem).__name__}: {problem}).")
        return stamped(envelope, self.name, self._version, started, scores=scores)

    def _scores(self, envelope: Envelope) -> Scores:
        if envelope.shopper is None or envelope.candidates is None:
            raise InputError("the envelope has no shopper or no candidates; the steps before this one have not run")
        if served := envelope.versions.get("transformer"):
            need_features(self._manifest, served.split()[0])
        columns = [self._column[promo_id] for promo_id in envelope.candidates.promo_ids]
        if not columns:
            return Scores(self._version)
        answer = self._run(numeric=self._numeric(envelope.shopper), attributes=self._attributes(envelope.shopper))
        value, cost = (np.asarray(answer[name], dtype=np.float64).ravel()[columns] for name in ("value", "cost"))
        if not (np.isfinite(value).all() and np.isfinite(cost).all()):
            raise InputError("its output is not finite")
        knots = [self._manifest.harm_bound[promo_id] for promo_id in envelope.candidates.promo_ids]
        lower = tuple(float(lower_at(own, score)) for own, score in zip(knots, value, strict=True))
        return Scores(self._version, tuple(value.tolist()), lower, tuple(cost.tolist()))

    def _numeric(self, shopper: Shopper) -> NDArray[np.float32]:
        row = np.array([[float(shopper.features[name]) for name in self._manifest.numeric]], dtype=np.float32)
        if not np.isfinite(row).all():
            names = [name for name, finite in zip(self._manifest.numeric, np.isfinite(row[0]), strict=True) if not finite]
            raise InputError(f"feature {names[0]} is not a finite number")
        return row

    def _attributes(self, shopper: Shopper) -> NDArray[np.int32]:
        pairs = zip(self._manifest.attributes, self._codes, strict=True)
        return np.array([[codes.get(str(shopper.features[name]), 0) for name, codes in pairs]], dtype=np.int32)


def _codes(manifest: ModelManifest, name: str) -> dict[str, int]:
    return {text: index for index, text in enumerate(manifest.vocabularies[name])}


def _signature(content: bytes, folder: Path) -> Any:
    try:
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
        return interpreter.get_signature_runner()
    except (RuntimeError, ValueError) as problem:
        raise InputError(f"{folder / 'model.tflite'} cannot be run ({problem}); export the model again.") from problem
