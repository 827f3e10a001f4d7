"""A lake -> the drift reference: what serving makes of a request is what training's baskets were made into."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from components.fit_detector import fit_chosen, fit_model, training_rows
from promolift.contracts.artifacts import ModelManifest, Verdict, write_json
from promolift.contracts.decisions import BasketLine, Candidates, Envelope, Request, Scores, Shopper
from promolift.contracts.features import ATTRIBUTE_NAMES, NUMERIC_NAMES, RETAIL
from promolift.contracts.tables import EXAMPLES
from promolift.drift.columns import Columns, Rows, day_of, row_of
from promolift.drift.reference import read_reference
from promolift.errors import InputError
from tests.components.synthetic_examples import CARD, rows_of, table_of, write_lake

ROWS, SECONDS = 3_000, 1_000_000
PROMOS = tuple(promo.promo_id for promo in CARD.promos)
VOCABULARY = {name: ("unknown", "a", "b", "c") for name in ATTRIBUTE_NAMES}


def baskets(examples: dict[str, Any], rng: np.random.Generator) -> Any:
    """Three lines within five days after each of the first 600 examples, in one basket of two products; some of nobody known."""
    shopper, moment = np.repeat(examples["shopper_id"][:600], 3), np.repeat(examples["moment"][:600], 3)
    count = len(shopper)
    place = np.arange(count) // 3
    columns = {
        "event_id": [f"l{i}" for i in range(count)], "shopper_id": np.where(place % 10 == 9, "nobody", shopper),
        "store_id": [f"{i % 4}" for i in place], "basket_id": [f"b{i}" for i in place],
        "product_id": [("milk", "ham", "rare" + str(i))[0 if i % 3 == 0 else 1 if i % 40 else 2] for i in range(count)],
        "quantity": rng.integers(1, 4, count), "sales_cents": rng.integers(100, 900, count), "discount_cents": np.zeros(count, np.int64),
        "event_time": moment + (place % 5).astype("timedelta64[D]") + np.timedelta64(SECONDS, "us"), "arrived_at": moment,
        "category": np.where(np.arange(count) % 3 == 0, "grocery", "meat"), "margin_cents": np.ones(count, np.int64),
    }  # fmt: skip
    times = {name: pa.array(columns[name], pa.timestamp("us", "UTC")) for name in ("event_time", "arrived_at")}
    return pa.table({**{name: pa.array(values) for name, values in columns.items() if name not in times}, **times})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, ModelManifest, dict[str, Any], Any]:
    """Lake, model folder, its manifest, the examples and the POS lines."""
    folder = tmp_path_factory.mktemp("fit")
    examples = rows_of(1, ROWS)
    lake = write_lake(folder / "lake", table=table_of(examples))
    lines = baskets(examples, np.random.default_rng(2))
    write_deltalake(str(lake / "silver/purchases"), lines)
    model = folder / "models" / "net"
    model.mkdir(parents=True)
    manifest = ModelManifest(
        name="net", sha256="0" * 64, features_hash=RETAIL.hash, numeric=NUMERIC_NAMES, attributes=ATTRIBUTE_NAMES, vocabularies=VOCABULARY,
        promos=CARD.promos, objective="profit", harm_bound={promo: ((0.0, 0.0),) for promo in PROMOS}, tables={EXAMPLES.path: 0}, seed=1,
        created_at="2024-01-01T00:00:00+00:00",
    )  # fmt: skip
    write_json(model / "manifest.json", manifest)
    unseen = examples["split"] != "train"
    values = np.random.default_rng(3).normal(size=(unseen.sum(), len(PROMOS)))
    scores = {"exposure_id": examples["exposure_id"][unseen], **{f"value_{p}": values[:, i] for i, p in enumerate(PROMOS)}}
    pq.write_table(pa.table(scores), model / "scores.parquet")
    return lake, model, manifest, examples, lines


def by_shopper_and_time(columns: Columns, rows: Rows) -> dict[tuple[Any, ...], bytes]:
    lines = columns.numbers.index("basket_cents")
    return {(int(row["shopper"]), int(row["day"]), float(row["numbers"][lines])): row.tobytes() for row in rows}


def test_a_basket_of_training_is_the_row_that_serving_makes_of_its_request(made: tuple[Path, Path, ModelManifest, dict[str, Any], Any]):
    lake, model, manifest, examples, lines = made
    columns, rows = training_rows(model, manifest, lake)
    found = by_shopper_and_time(columns, rows)
    scored = pq.read_table(model / "scores.parquet").to_pylist()
    known = {row["exposure_id"]: tuple(row[f"value_{promo}"] for promo in PROMOS) for row in scored}
    compared = 0
    for basket, group in lines.to_pandas().groupby("basket_id"):
        shopper, moment = group["shopper_id"].iloc[0], group["event_time"].iloc[0]
        own = np.flatnonzero((examples["shopper_id"] == shopper) & (examples["moment"] <= np.datetime64(moment.tz_localize(None))))
        if not len(own):
            continue
        at = max(own, key=lambda i: (examples["moment"][i], i))
        request = Request(
            basket, shopper, moment.strftime("%Y-%m-%dT%H:%M:%SZ"), store_id=group["store_id"].iloc[0],
            basket=tuple(BasketLine(r.category, int(r.sales_cents), int(r.quantity), r.product_id) for r in group.itertuples()),
        )  # fmt: skip
        features = {name: float(examples[name][at]) for name in NUMERIC_NAMES} | {n: str(examples[n][at]) for n in ATTRIBUTE_NAMES}
        envelope = Envelope(request, Shopper(features, True), Candidates(PROMOS, {}, "r"))
        if (value := known.get(examples["exposure_id"][at])) is not None:
            envelope = replace(envelope, scores=Scores("net", value))
        row = np.frombuffer(row_of(columns, envelope, day_of(moment.timestamp())), columns.dtype)
        key = next(iter(by_shopper_and_time(columns, row)))
        same = np.frombuffer(found[key], columns.dtype)
        assert np.allclose(same["numbers"], row["numbers"], rtol=1e-4, equal_nan=True), basket
        assert (same["codes"] == row["codes"]).all(), basket
        compared += 1
    assert compared == len(rows) > 400


def test_the_reference_of_the_chosen_model_is_written_beside_it(
    made: tuple[Path, Path, ModelManifest, dict[str, Any], Any], tmp_path: Path
):
    lake, model, manifest, examples, _ = made
    write_json(tmp_path / "verdict.json", Verdict("net", True, (), ()))
    said = fit_chosen(str(model.parent), str(tmp_path), str(lake), 1)
    found = read_reference(model, manifest.version)
    assert found is not None and said["version"] == manifest.version and said["rows"] == found.rows and said["matched"]
    first, last = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in found.period)
    assert np.datetime64(first.date()) >= examples["moment"].min().astype("datetime64[D]") and first < last
    assert set(found.columns.prices) == {"milk", "ham"}
    assert (
        tuple(found.columns.attributes) == manifest.attributes == ATTRIBUTE_NAMES
    )  # not as JSON sorts them: the model takes them in order


def test_what_is_missing_is_one_sentence(made: tuple[Path, Path, ModelManifest, dict[str, Any], Any], tmp_path: Path):
    _, model, manifest, examples, _ = made
    lake = write_lake(tmp_path / "lake", table=table_of(examples))
    with pytest.raises(InputError, match="is at version 0, but net-000000000000 learnt from 7"):
        training_rows(model, replace(manifest, tables={EXAMPLES.path: 7}), lake)
    with pytest.raises(InputError, match=r"No baskets at .*purchases.*; ingest the source again"):
        training_rows(model, manifest, lake)
    (tmp_path / "empty").mkdir()
    write_json(tmp_path / "empty" / "manifest.json", manifest)
    with pytest.raises(InputError, match=r"scores.parquet' is missing"):
        fit_model(tmp_path / "empty", made[0], 1)
