"""A small run folder made of real parts: a TFLite model, a gold table of features, Feast's registry, a Redis with them online."""

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import uvicorn
from deltalake import write_deltalake

from promolift.contracts.artifacts import ModelManifest, write_json
from promolift.contracts.features import ATTRIBUTE_NAMES, NUMERIC_NAMES, RETAIL
from promolift.contracts.promos import Promo, SourceCard
from promolift.contracts.tables import FEATURES
from promolift.redis_server import redis_server
from serving.kserve.listen import bind

HEAVY = [
    pytest.mark.slow,  # TensorFlow makes the model, Feast the store
    # TensorFlow 2.21 and Feast 0.67 use what numpy, protobuf, pydantic and pkg_resources call outdated
    *(
        pytest.mark.filterwarnings(f"ignore::{kind}")
        for kind in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning", "UserWarning", "RuntimeWarning")
    ),
]
"""Marks of the tests that read the small run folder."""
MOMENT = datetime(2017, 12, 1, tzinfo=UTC)
PROMOS = (Promo("meat_20", "meat", 0.2, 500), Promo("deli_10", "deli", 0.1, 300, contact_cents=5), Promo("bakery_5", "bakery", 0.05, 100))
KNOTS = ((-10.0, -12.0), (0.0, -1.0), (10.0, 5.0))


def write_model(folder: Path) -> Path:
    """A model whose values are (baskets_7d, 20, -10): linear in the first feature, so every expected score is known."""
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    import tensorflow as tf

    count, first = len(PROMOS), NUMERIC_NAMES.index("baskets_7d")
    weights = np.zeros((len(NUMERIC_NAMES), count), np.float32)
    weights[first, 0] = 1.0

    def run(numeric: tf.Tensor, attributes: tf.Tensor) -> dict[str, tf.Tensor]:
        shift = tf.cast(tf.reduce_sum(attributes, axis=1, keepdims=True), tf.float32)
        value = tf.matmul(numeric, weights) + tf.constant([[0.0, 20.0, -10.0]]) + 0.0 * shift
        return {"value": value, "cost": tf.ones_like(value) * 7.0}

    specs = [
        tf.TensorSpec([1, len(NUMERIC_NAMES)], tf.float32, "numeric"),
        tf.TensorSpec([1, len(ATTRIBUTE_NAMES)], tf.int32, "attributes"),
    ]
    function = tf.function(run, input_signature=specs).get_concrete_function()
    # Only with an owner does the converter keep the names of inputs and outputs.
    content = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module()).convert()
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(content)
    manifest = ModelManifest(
        name="linear", sha256=hashlib.sha256(content).hexdigest(), features_hash=RETAIL.hash, numeric=NUMERIC_NAMES,
        attributes=ATTRIBUTE_NAMES, vocabularies={name: ("unknown", "a", "b") for name in ATTRIBUTE_NAMES}, promos=PROMOS,
        objective="profit", harm_bound={p.promo_id: KNOTS for p in PROMOS}, tables={"gold/examples": 0}, seed=1,
        created_at="2017-12-01T00:00:00+00:00", support={"baskets_7d": (0.0, 50.0)},
        prior={"*": {p.promo_id: (2.0, 1.0, 7.0) for p in PROMOS}, "area=a": {p.promo_id: (3.0, 2.0, 8.0) for p in PROMOS}},
    )  # fmt: skip
    write_json(folder / "manifest.json", manifest)
    return folder


def write_features(lake: Path) -> None:
    """Shoppers 0..9; baskets_7d of shopper i is i."""
    shoppers = [str(i) for i in range(10)]
    columns: dict[str, pa.Array] = {
        "shopper_id": pa.array(shoppers), "moment": pa.array([MOMENT] * 10, pa.timestamp("us", tz="UTC"))
    }  # fmt: skip
    columns |= {name: pa.array(np.full(10, 2.5, np.float32)) for name in NUMERIC_NAMES}
    columns |= {"baskets_7d": pa.array(np.arange(10, dtype=np.float32))}
    columns |= {name: pa.array(["a"] * 10) for name in ATTRIBUTE_NAMES}
    write_deltalake(str(lake / FEATURES.path), pa.table(columns))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the linear model."""
    return write_model(tmp_path_factory.mktemp("model") / "linear")


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A finished run as `serve` expects it: features online in the dump of redis/, the model in serving_model/."""
    from feature_repo.store import materialize

    folder = tmp_path_factory.mktemp("run")
    write_features(folder / "lake")
    card = SourceCard("test", "nothing", "all", "profit", "converted", 1.0, MOMENT.isoformat(), PROMOS, has_truth=False)
    write_json(folder / "lake" / "landing" / "source.json", card)
    (folder / "serving_model").symlink_to(model_folder)
    with redis_server(folder / "redis") as url:
        materialize(folder / "lake", url, folder / "registry.db")
    return folder


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty Redis for one test module."""
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@contextmanager
def listening(application: Any) -> Iterator[str]:
    """The URL of an ASGI application that a thread serves until the block ends."""
    listener = bind("127.0.0.1:0")
    server = uvicorn.Server(uvicorn.Config(application, lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
