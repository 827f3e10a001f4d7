"""Suites derived from the contracts: a lake that keeps them passes, one broken row stops the run and is named."""

import datetime as dt
import json
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from promolift.contracts.artifacts import write_json
from promolift.contracts.promos import Promo, SourceCard
from promolift.contracts.tables import EXAMPLES, EXPOSURES, RETAIL_SCHEMA, SILVER, Column, Table
from promolift.errors import ExpectationError, InputError

with warnings.catch_warnings():
    # Importing Great Expectations 1.24 touches sre_constants and google.api_core, which both warn.
    warnings.simplefilter("ignore")
    from components import expectations
    from components.validate_data import LAYERS, validate

CARD = SourceCard("tiny", "", "", "profit", "converted", 1.0, "2020-01-01T00:00:00Z", (Promo("a", "deli", 0.2, 100),), False)
START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
VALUES: dict[str, Any] = {"int64": 5, "float32": 0.5, "float64": 0.5, "bool": True, "list<float64>": [0.5, 0.5]}


def value(column: Column, row: int) -> Any:
    if column.allowed:
        return column.allowed[0]
    if column.dtype == "timestamp":
        return START + dt.timedelta(days=row + (7 if column.name == "window_end" else 0))
    if column.name == "promo_id":
        return CARD.arms[row % 2]
    return VALUES.get(column.dtype, f"{column.name}-{row}")


def rows_of(table: Table, count: int = 6) -> pa.Table:
    schema = pa.schema([(c.name, expectations.ARROW_TYPES[c.dtype]) for c in table.columns])
    return pa.Table.from_pylist([{c.name: value(c, row) for c in table.columns} for row in range(count)], schema=schema)


def with_value(rows: pa.Table, name: str, row: int, new: Any) -> pa.Table:
    column = rows[name].to_pylist()
    column[row] = new
    return rows.set_column(rows.column_names.index(name), name, pa.array(column, rows.schema.field(name).type))


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    root = tmp_path / "lake"
    write_json(root / "landing" / "source.json", CARD)
    for table in (t for layer in LAYERS.values() for t in layer(RETAIL_SCHEMA)):
        write_deltalake(root / table.path, rows_of(table))
    return root


def replaced(lake: Path, table: Table, rows: pa.Table) -> Path:
    write_deltalake(lake / table.path, rows, mode="overwrite", schema_mode="overwrite")
    return lake


@pytest.mark.parametrize("layer", LAYERS)
def test_a_lake_that_keeps_the_contracts_passes(lake: Path, tmp_path: Path, layer: str):
    result = validate(str(lake), layer, str(tmp_path / "docs"))

    assert set(result["tables"]) == {f"{t.layer}.{t.name}" for t in LAYERS[layer](RETAIL_SCHEMA)}
    assert result["failed"] == 0
    assert result["expectations"] > 10 * len(LAYERS[layer](RETAIL_SCHEMA))
    assert json.loads((tmp_path / "docs" / "result.json").read_text()) == result
    assert "silver.purchases" in (tmp_path / "docs" / "index.html").read_text() or layer != "silver"


def purchases() -> pa.Table:
    return rows_of(SILVER[2])


BROKEN = {
    "a negative price": (SILVER[2], lambda r: with_value(r, "sales_cents", 3, -5), ["sales_cents", "1 of 6 rows", "-5"]),
    "a null in the key": (SILVER[2], lambda r: with_value(r, "shopper_id", 0, None), ["not_be_null", "shopper_id", "1 of 6"]),
    "an illegal category": (SILVER[2], lambda r: with_value(r, "category", 0, "toys"), ["be_in_set", "toys"]),
    "a key twice": (SILVER[2], lambda r: with_value(r, "event_id", 0, "event_id-1"), ["be_unique", "2 of 6", "event_id-1"]),
    "a missing column": (SILVER[2], lambda r: r.drop_columns(["quantity"]), ["quantity missing", "quantity int64"]),
    "a wrong type": (SILVER[2], lambda r: r.set_column(5, "quantity", pc.cast(r["quantity"], pa.int32())), ["quantity int32"]),
    "an empty table": (SILVER[2], lambda r: r.slice(0, 0), ["row_count", "found 0"]),
    "propensities that do not sum to 1": (SILVER[4], lambda r: with_value(r, "propensities", 2, [0.5, 0.4]), ["total", "0.9"]),
    "an arm nobody knows": (SILVER[4], lambda r: with_value(r, "promo_id", 2, "zzz"), ["of_arm", "not_be_null"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_one_broken_row_stops_the_run_and_is_named(lake: Path, tmp_path: Path, case: str):
    table, spoil, words = BROKEN[case]
    replaced(lake, table, spoil(rows_of(table)))

    with pytest.raises(ExpectationError) as caught:
        validate(str(lake), "silver", str(tmp_path / "docs"))

    assert all(word in str(caught.value) for word in [f"silver.{table.name}", *words]), str(caught.value)
    assert (tmp_path / "docs" / "index.html").exists()


def test_facts_across_columns_are_held(lake: Path, tmp_path: Path):
    early = with_value(rows_of(EXPOSURES), "window_end", 1, START - dt.timedelta(days=1))
    replaced(lake, EXPOSURES, with_value(early, "propensity", 4, 0.25))

    with pytest.raises(ExpectationError, match=r"2 expectations failed.*window_end.*gap.*0\.25"):
        validate(str(lake), "gold", str(tmp_path / "docs"))


def test_a_feature_that_is_not_a_number_counts_as_missing(lake: Path, tmp_path: Path):
    replaced(lake, EXAMPLES, with_value(rows_of(EXAMPLES), "baskets_7d", 0, float("nan")))

    with pytest.raises(ExpectationError, match=r"not_be_null \(column baskets_7d.*1 of 6 rows"):
        validate(str(lake), "training", str(tmp_path / "docs"))


def test_what_is_not_there_is_said_in_a_sentence(lake: Path, tmp_path: Path):
    with pytest.raises(InputError, match="no layer 'bronze'"):
        validate(str(lake), "bronze", str(tmp_path))
    (lake / "silver" / "visits").rename(lake / "silver" / "gone")
    with pytest.raises(InputError, match=r"no Delta table silver\.visits"):
        validate(str(lake), "silver", str(tmp_path / "docs"))


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=1, max_size=20), st.data())
def test_the_entry_of_the_arm_is_found_in_vectors_of_any_length(vectors: list[list[float]], data: st.DataObject):
    arms = ("no_promo", "a", "b")
    given_arms = data.draw(st.lists(st.sampled_from([*arms, "zzz"]), min_size=len(vectors), max_size=len(vectors)))
    rows = pa.table({"exposure_id": [str(i) for i in range(len(vectors))], "promo_id": given_arms, "propensities": vectors})

    facts = expectations.fact_rows(rows, arms)

    assert facts is not None
    for vector, arm, fact in zip(vectors, given_arms, facts.to_pylist(), strict=True):
        index = arms.index(arm) if arm in arms else len(vector)
        assert fact["of_arm"] == (vector[index] if index < len(vector) else None)
        assert fact["total"] == pytest.approx(sum(vector))
