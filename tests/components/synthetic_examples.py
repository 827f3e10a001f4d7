"""Seed and size -> a lake with gold/examples and landing/source.json whose uplift is known (small, for tests of training)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake
from numpy.typing import NDArray

from promolift.contracts.artifacts import write_json
from promolift.contracts.features import ATTRIBUTE_NAMES, NUMERIC_NAMES
from promolift.contracts.promos import Promo, SourceCard
from promolift.contracts.tables import EXAMPLES

CARD = SourceCard(
    name="synthetic",
    real="nothing",
    simulated="everything",
    objective="profit",
    binary_outcome="converted",
    budget_cents=100.0,
    as_of="2024-01-01T00:00:00+00:00",
    promos=(Promo("meat_20", "meat", 0.2, 500), Promo("deli_40", "deli", 0.4, 800, 300), Promo("bakery_10", "bakery", 0.1, 200, 0, 5)),
    has_truth=True,
)


def _features(rng: np.random.Generator, rows: int) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {}
    for name in NUMERIC_NAMES:
        if "share" in name:
            columns[name] = rng.beta(1, 4, rows)
        elif "cents" in name:
            columns[name] = rng.lognormal(8, 1, rows)
        else:
            columns[name] = rng.gamma(2, 10, rows)
    texts = {name: rng.choice(["unknown", "a", "b", "c"], rows) for name in ATTRIBUTE_NAMES}
    return {**{name: values.astype(np.float32) for name, values in columns.items()}, **texts}


def effects(columns: dict[str, NDArray[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Known margin uplift and cost of each promo [rows, 3] in cents: large where the shopper buys the category, negative elsewhere."""
    margin, cost = [], []
    for promo in CARD.promos:
        share = columns[f"share_{promo.category}_84d"].astype(np.float64)
        margin.append(800 * (share - 0.15))
        cost.append(promo.contact_cents + 300 * promo.depth * share)
    return np.stack(margin, 1), np.stack(cost, 1)


def rows_of(seed: int, rows: int) -> dict[str, Any]:
    """Columns of gold/examples by name."""
    rng = np.random.default_rng(seed)
    features = _features(rng, rows)
    margin, cost = effects(features)
    shopper = rng.integers(0, max(rows // 10, 3), rows)
    tenth = shopper // 5 % 10  # the split goes by the remainder of 5
    bucket = np.where(tenth == 0, "holdout", np.where(tenth < 7, "uniform", "skewed"))
    chances = {"holdout": [1.0, 0, 0, 0], "uniform": [0.25] * 4, "skewed": [0.4, 0.3, 0.2, 0.1]}
    propensities = np.array([chances[name] for name in bucket])
    arm = (rng.random(rows)[:, None] > propensities.cumsum(1)).sum(1).clip(0, 3)
    given = np.arange(rows), np.maximum(arm - 1, 0)
    base = 400 + 200 * np.log1p(features["baskets_28d"])
    noisy = rng.normal(base + np.where(arm > 0, margin[given], 0), 200)
    converted = rng.random(rows) < 0.9
    moment = np.datetime64("2024-01-01", "us") + rng.integers(0, 300, rows).astype("timedelta64[D]")
    return {
        "exposure_id": np.array([f"e{i:06d}" for i in range(rows)]), "shopper_id": np.array([f"s{i}" for i in shopper]),
        "moment": moment, "bucket": bucket, "promo_id": np.array(CARD.arms)[arm], "propensities": list(propensities),
        "propensity": propensities[np.arange(rows), arm],
        "split": np.array(["train", "train", "train", "validation", "test"])[shopper % 5],
        "window_end": moment + np.timedelta64(7, "D"), **features, "visited": converted, "converted": converted,
        "spend_cents": (np.maximum(noisy, 0) * 4 * converted).astype(np.int64),
        "margin_cents": (np.maximum(noisy, 0) * converted).astype(np.int64),
        "cost_cents": np.where(arm > 0, rng.poisson(cost[given]), 0).astype(np.int64),
    }  # fmt: skip


_ARROW = {
    "string": pa.string(), "int64": pa.int64(), "float32": pa.float32(), "float64": pa.float64(), "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", "UTC"), "list<float64>": pa.list_(pa.float64()),
}  # fmt: skip


def table_of(columns: dict[str, Any]) -> Any:
    """An Arrow table with the contract's columns and types."""
    fields = [pa.field(c.name, _ARROW[c.dtype]) for c in EXAMPLES.columns]
    return pa.table([pa.array(columns[f.name], f.type) for f in fields], schema=pa.schema(fields))


def write_lake(lake: Path, *, seed: int = 0, rows: int = 6_000, objective: str = "profit", table: Any = None) -> Path:
    """A lake with examples of the synthetic card (`table` replaces them) and its source card."""
    card = CARD if objective == "profit" else replace(CARD, objective="visited", binary_outcome="visited")
    write_json(lake / "landing" / "source.json", card)
    write_deltalake(str(lake / EXAMPLES.path), table_of(rows_of(seed, rows)) if table is None else table, mode="overwrite")
    return lake
