"""The predictor on 50 promos and 100 features, with our own network's structure and sizes at untrained weights."""

import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from components.export_model import Candidate, interpreter_of, to_tflite
from components.uplift_model import NetConfig, NetSpec, load_layers
from promolift.contracts.artifacts import ModelManifest, write_json
from promolift.contracts.decisions import Candidates, Envelope, Shopper, read_request
from promolift.contracts.features import features_of
from promolift.contracts.promos import Covariate, Promo, SourceCard
from serving.kserve.predictor import Predictor

PROMOS, NUMERICS, CALLS = 50, 100, 5_000
CARD = SourceCard(
    "benchmark", "nothing", "everything", "profit", "converted", 50.0, "2017-12-01T00:00:00+00:00",
    tuple(Promo(f"promo_{n}", f"promo_{n}", 0.2, 500) for n in range(PROMOS)), has_truth=False,
    covariates=(*(Covariate(f"number_{n}", "number") for n in range(NUMERICS)), Covariate("area", "text")),
)  # fmt: skip


def measure() -> dict[str, Any]:
    """Microseconds of one call, p50 and p99: of the model alone, and of the whole box from envelope to envelope."""
    with tempfile.TemporaryDirectory() as folder:
        content = _model()
        box, envelope = Predictor(_written(Path(folder), content)), _envelope()
        run, numeric, attributes = interpreter_of(content), np.zeros((1, NUMERICS), np.float32), np.zeros((1, 1), np.int32)
        if (scores := box(envelope).scores) is None or scores.error:
            raise AssertionError(f"The predictor did not score: {scores}")
        whole = _quantiles(lambda: box(envelope))
        alone = _quantiles(lambda: run(numeric=numeric, attributes=attributes))
    return {"promos": PROMOS, "features": NUMERICS, "members": NetConfig().members, "model_us": alone, "box_us": whole}


def _model() -> bytes:
    """The flat buffer."""
    load_layers()
    import tensorflow as tf  # noqa: PLC0415 (after load_layers)

    from components.uplift_net import UpliftNet  # noqa: PLC0415

    spec = NetSpec(CARD, (3,), NetConfig())
    model = UpliftNet(spec)
    model.normalisation.build([None, NUMERICS])
    model.normalisation.finalize_state()
    model.score(tf.zeros([1, NUMERICS]), tf.zeros([1, 1], tf.int32))
    return to_tflite(Candidate("benchmark", model.score, lambda _: (np.zeros(0), np.zeros(0)), model, 1), features_of(CARD))


def _written(folder: Path, content: bytes) -> Path:
    (folder / "model.tflite").write_bytes(content)
    features = features_of(CARD)
    write_json(folder / "manifest.json", ModelManifest(
        name="benchmark", sha256=hashlib.sha256(content).hexdigest(), features_hash=features.hash, numeric=features.numeric_names,
        attributes=features.attribute_names, vocabularies={"area": ("unknown", "a", "b")}, promos=CARD.promos, objective="profit",
        harm_bound={p.promo_id: tuple((float(k), k - 1.0) for k in range(-10, 10)) for p in CARD.promos}, tables={}, seed=1, created_at="",
    ))  # fmt: skip
    return folder


def _envelope() -> Envelope:
    request = read_request({"request_id": "r", "shopper_id": "1", "moment": "2017-12-01T00:00:00Z"})
    features: dict[str, float | str] = {f"number_{n}": 0.5 for n in range(NUMERICS)} | {"area": "a"}
    return Envelope(
        request, shopper=Shopper(features, found=True, age_s=60.0), candidates=Candidates(tuple(p.promo_id for p in CARD.promos), {}, "v")
    )  # fmt: skip


def _quantiles(call: Callable[[], Any]) -> dict[str, float]:
    took = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    p50, p99 = np.percentile(np.array(took) * 1e6, [50, 99])
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}
