"""Envelope with candidates -> envelope with their scores from a LiteRT model, or from what is known of the segment; never a failure."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from promolift.contracts.artifacts import ModelManifest
from promolift.contracts.decisions import Degraded, Envelope, Scores, Shopper
from promolift.errors import InputError
from serving.kserve.model_folder import load_manifest, load_model, need_features
from serving.kserve.stamp import stamped

UNUSABLE: tuple[Degraded, ...] = ("expired_features", "no_features", "features_unavailable")
"""What forbids asking the model: its bound was measured on shoppers whose features were known."""


class Predictor:
    """The third box: one model on one thread (a second thread costs more than this model takes)."""

    name = "predictor"

    def __init__(self, folder: Path) -> None:
        self._manifest = load_manifest(folder)
        self._run = _signature(load_model(folder, self._manifest), self._manifest, folder)
        self._version = self._manifest.version
        self._codes = [_codes(self._manifest, name) for name in self._manifest.attributes]
        self._column = {promo.promo_id: index for index, promo in enumerate(self._manifest.promos)}
        self._knots = [_columns(self._manifest.harm_bound[promo.promo_id]) for promo in self._manifest.promos]
        unbounded = (-np.inf, np.inf)
        self._low, self._high = np.array([self._manifest.support.get(name, unbounded) for name in self._manifest.numeric]).T

    def __call__(self, envelope: Envelope) -> Envelope:
        """The envelope with `scores`, aligned with its candidates; every failure is a sentence in `scores.error`."""
        started = perf_counter()
        degraded: tuple[Degraded, ...] = ()
        try:
            scores, degraded = self._scores(envelope)
        # Whatever goes wrong in a model must cost this decision its promo, not the shopper an answer.
        except Exception as problem:
            scores = self._prior(envelope, f"The model could not score ({type(problem).__name__}: {problem}).")
            degraded = ("model_error",)
        if scores.evidence == "segment_prior":
            degraded = (*degraded, "segment_prior")
        return stamped(envelope, self.name, self._version, started, scores=scores, degraded=(*envelope.degraded, *degraded))

    def values(self, numeric: NDArray[np.float32], attributes: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Value and lower bound [n, P] of every promo for features [n, N] and codes of attributes [n, A], unguarded."""
        value = np.concatenate([
            self._run(numeric=numeric[i : i + 1], attributes=attributes[i : i + 1])["value"].reshape(1, -1) for i in range(len(numeric))
        ]).astype(np.float64)  # fmt: skip
        lower = [[lower_of(knots, score) for knots, score in zip(self._knots, row, strict=True)] for row in value]
        return value, np.array(lower)

    def _scores(self, envelope: Envelope) -> tuple[Scores, tuple[Degraded, ...]]:
        if envelope.shopper is None or envelope.candidates is None:
            raise InputError("the envelope has no shopper or no candidates; the steps before this one have not run")
        if served := envelope.versions.get("transformer"):
            need_features(self._manifest, served.split()[0])
        if not envelope.candidates.promo_ids:
            return Scores(self._version), ()
        unusable = [reason for reason in envelope.degraded if reason in UNUSABLE]
        if unusable:
            return self._prior(envelope, f"The model was not asked: {unusable[0].replace('_', ' ')}."), ()
        numeric = self._numeric(envelope.shopper)
        outside = np.flatnonzero((numeric[0] < self._low) | (numeric[0] > self._high))
        if len(outside):
            why = f"it saw no shopper with {self._manifest.numeric[outside[0]]} {numeric[0, outside[0]]:g}"
            return self._prior(envelope, f"The model was not asked: {why}."), ("out_of_support",)
        return self._modelled(envelope.candidates.promo_ids, numeric, self._attributes(envelope.shopper)), ()

    def _modelled(self, promo_ids: tuple[str, ...], numeric: NDArray[np.float32], attributes: NDArray[np.int32]) -> Scores:
        columns = [self._column[promo_id] for promo_id in promo_ids]
        answer = self._run(numeric=numeric, attributes=attributes)
        values, costs = (answer[name].ravel().tolist() for name in ("value", "cost"))
        value, cost = (tuple(row[column] for column in columns) for row in (values, costs))
        if not all(map(math.isfinite, (*value, *cost))):
            raise InputError("its output is not finite")
        lower = tuple(lower_of(self._knots[column], score) for column, score in zip(columns, value, strict=True))
        return Scores(self._version, value, lower, cost)

    def _prior(self, envelope: Envelope, error: str) -> Scores:
        """What validation rows say of the shopper's segment on average; without a prior in the manifest only the error."""
        promo_ids = envelope.candidates.promo_ids if envelope.candidates else ()
        found = self._segment(envelope)
        if not promo_ids or any(promo_id not in found for promo_id in promo_ids):
            return Scores(self._version, error=error, evidence="none")
        value, lower, cost = zip(*(found[promo_id] for promo_id in promo_ids), strict=True)
        return Scores(self._version, value, lower, cost, error=error, evidence="segment_prior")

    def _segment(self, envelope: Envelope) -> Mapping[str, tuple[float, float, float]]:
        known = envelope.shopper.features if envelope.shopper and envelope.shopper.found else envelope.request.context
        for segment, found in self._manifest.prior.items():
            name, _, value = segment.partition("=")
            if value and str(known.get(name)) == value:
                return found
        return self._manifest.prior.get("*", {})

    def _numeric(self, shopper: Shopper) -> NDArray[np.float32]:
        row = np.array([[shopper.features[name] for name in self._manifest.numeric]], dtype=np.float32)
        if not np.isfinite(row).all():
            names = [name for name, finite in zip(self._manifest.numeric, np.isfinite(row[0]), strict=True) if not finite]
            raise InputError(f"feature {names[0]} is not a finite number")
        return row

    def _attributes(self, shopper: Shopper) -> NDArray[np.int32]:
        pairs = zip(self._manifest.attributes, self._codes, strict=True)
        return np.array([[codes.get(str(shopper.features[name]), 0) for name, codes in pairs]], dtype=np.int32)


def lower_of(knots: tuple[list[float], list[float]], score: float) -> float:
    """`uplift.calibration.lower_at` for one score: numpy's own calls take longer than the arithmetic."""
    at, bound = knots
    place = bisect_right(at, score)
    if place == 0:
        return bound[0] + score - at[0]
    if place == len(at):
        return bound[-1]
    left, right = at[place - 1], at[place]
    return bound[place - 1] + (bound[place] - bound[place - 1]) / (right - left) * (score - left)


def _columns(knots: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [at for at, _ in knots], [bound for _, bound in knots]


def _codes(manifest: ModelManifest, name: str) -> dict[str, int]:
    return {text: index for index, text in enumerate(manifest.vocabularies[name])}


def _signature(content: bytes, manifest: ModelManifest, folder: Path) -> Any:
    """The model as a function. Raises InputError for a file that cannot be run, or takes or gives other tensors than its manifest says."""
    try:
        interpreter = Interpreter(model_content=content, num_threads=1)
        interpreter.allocate_tensors()
        run = interpreter.get_signature_runner()
    except (RuntimeError, ValueError) as problem:
        raise InputError(f"{folder / 'model.tflite'} cannot be run ({problem}); export the model again.") from problem
    promos = [1, len(manifest.promos)]
    said = {"numeric": [1, len(manifest.numeric)], "attributes": [1, len(manifest.attributes)], "value": promos, "cost": promos}
    found = {name: detail["shape"].tolist() for name, detail in (run.get_input_details() | run.get_output_details()).items()}
    if found != said:
        raise InputError(f"{folder / 'model.tflite'} has the signature {found}, but its manifest says {said}; export the model again.")
    return run
