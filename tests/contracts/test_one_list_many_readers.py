"""Every table, feature and envelope is written once: what each room derives from the contracts is compared here, reader by reader."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from pydantic.fields import FieldInfo

with warnings.catch_warnings():
    # Importing Great Expectations 1.24 and Feast 0.67 touches modules that warn of their own next releases.
    warnings.simplefilter("ignore")
    from components import expectations
    from components.validate_data import LAYERS
    from feature_repo import definitions
from pyspark.sql import types as T
from pyspark.sql.pandas.types import to_arrow_type

from promolift.contracts import decisions, features, tables
from promolift.contracts.features import RETAIL, FeatureSet, features_of
from promolift.contracts.promos import Covariate, Promo, SourceCard
from promolift.contracts.tables import Schema, Table, schema_of
from spark_jobs.lake import SPARK_TYPES, struct_type

CARD = SourceCard(
    "table", "", "", "profit", "converted", 1.0, "2020-01-11T00:00:00Z", (Promo("offer", "other", 0.0, 0),), has_truth=False,
    covariates=(Covariate("age", "number", 40.0), Covariate("income", "amount"), Covariate("city", "text")),
)  # fmt: skip
SCHEMAS = (tables.RETAIL_SCHEMA, schema_of(CARD))
STORED = [t for schema in SCHEMAS for t in schema.stored]
VALIDATED = [t for schema in SCHEMAS for layer in LAYERS.values() for t in layer(schema)]
ids = {"ids": lambda t: t.path}
SQL = {
    "string": "string", "int64": "bigint", "float32": "float", "float64": "double", "bool": "boolean", "timestamp": "timestamp",
    "list<string>": "array<string>", "list<float64>": "array<double>",
}  # fmt: skip
"""Spark's own words for the contract's types, written out here so that no reader's table of types vouches for itself."""


@pytest.mark.parametrize("table", STORED, **ids)
def test_spark_writes_the_contracts_columns_types_and_nulls(table: Table):
    written = [(f.name, f.dataType.simpleString(), f.nullable) for f in struct_type(table)]
    assert written == [(c.name, SQL[c.dtype], c.nullable) for c in table.columns]


@pytest.mark.parametrize("dtype", tables.Dtype.__args__)
def test_spark_and_the_expectations_mean_the_same_by_every_type(dtype: tables.Dtype):
    spark, arrow = SPARK_TYPES[dtype], expectations.ARROW_TYPES[dtype]
    if isinstance(spark, T.TimestampType):
        assert arrow == pa.timestamp("us", "UTC")
    else:
        assert to_arrow_type(spark) in {arrow, pa.list_(pa.field("element", arrow.value_type)) if pa.types.is_list(arrow) else arrow}


@pytest.mark.parametrize("table", VALIDATED, **ids)
def test_the_expectations_ask_for_all_that_the_contract_says(table: Table):
    asked = [(type(e).__name__, e) for e in expectations.for_rows(table)]
    of = {kind: [e for k, e in asked if k == kind] for kind, _ in asked}
    assert of["ExpectTableColumnsToMatchOrderedList"][0].column_list == list(table.names)
    assert {e.column for e in of["ExpectColumnValuesToNotBeNull"]} == {c.name for c in table.columns if not c.nullable}
    limited = {(e.column, e.min_value, e.max_value) for e in of.get("ExpectColumnValuesToBeBetween", [])}
    assert limited == {(c.name, c.minimum, c.maximum) for c in table.columns if (c.minimum, c.maximum) != (None, None)}
    legal = {e.column: tuple(e.value_set) for e in of.get("ExpectColumnValuesToBeInSet", [])}
    assert legal == {c.name: c.allowed for c in table.columns if c.allowed}
    assert of["ExpectTableRowCountToBeBetween"][0].min_value == (0 if table.may_be_empty else 1)
    keys = [tuple(e.column_list) for e in of.get("ExpectCompoundColumnsToBeUnique", [])]
    assert keys + [(e.column,) for e in of.get("ExpectColumnValuesToBeUnique", [])] == [table.key]


@pytest.mark.parametrize("table", VALIDATED, **ids)
def test_what_spark_writes_is_what_the_schema_suite_accepts_and_nothing_else(table: Table):
    stored = pa.schema([(f.name, expectations.ARROW_TYPES[c.dtype]) for f, c in zip(struct_type(table), table.columns, strict=True)])
    accepted = expectations.schema_rows(table, stored)
    assert accepted["stored"] == accepted["contract"]
    for index, field in enumerate(stored):
        other = pa.int32() if field.type != pa.int32() else pa.int64()
        spoiled = expectations.schema_rows(table, stored.set(index, pa.field(field.name, other)))
        assert spoiled["stored"] != spoiled["contract"]


@pytest.mark.parametrize(("schema", "listed"), list(zip(SCHEMAS, (RETAIL, features_of(CARD)), strict=True)), ids=["events", "decisions"])
def test_feast_registers_the_features_of_the_gold_table(tmp_path: Path, schema: Schema, listed: FeatureSet):
    view = definitions.view(tmp_path, listed)
    kinds = {"float32": "Float32", "string": "String"}
    columns = [c for c in schema.features.columns if c.name not in tables.FEATURES.key]
    assert [(f.name, str(f.dtype)) for f in view.features] == [(c.name, kinds[c.dtype]) for c in columns]
    assert (*view.entities, view.batch_source.timestamp_field) == tables.FEATURES.key
    assert view.batch_source.path == (tmp_path / tables.FEATURES.path).as_posix()
    assert definitions.service(view, listed).tags == {"features_hash": listed.hash}
    assert {f.name: f.tags["default"] for f in view.features} == {name: str(value) for name, value in listed.defaults().items()}
    assert schema.examples.names == (*tables.EXPOSURES.names, *listed.names, *(c.name for c in tables.LABELS))


@pytest.mark.slow
def test_a_models_tensors_are_as_wide_as_the_feature_list():
    from components.examples_input import tensor_specs

    specs = tensor_specs(RETAIL)
    assert (specs["numeric"].shape, specs["numeric"].dtype.name) == ((1, len(features.NUMERIC_NAMES)), "float32")
    assert (specs["attributes"].shape, specs["attributes"].dtype.name) == ((1, len(features.ATTRIBUTE_NAMES)), "int32")
    assert (*features.NUMERIC_NAMES, *features.ATTRIBUTE_NAMES) == features.FEATURE_NAMES == tuple(features.RETAIL.defaults())


@pytest.mark.parametrize("name", ["Request", "Envelope", "Decision"])
def test_json_schemas_name_the_fields_of_the_classes_and_allow_no_other(name: str):
    schema = decisions.schema()[name]
    fields = dataclasses.fields(getattr(decisions, name))
    assert list(schema["properties"]) == [f.name for f in fields]
    assert schema["additionalProperties"] is False
    without_default = {f.name for f in fields if f.default_factory is dataclasses.MISSING and required(f.default)}
    assert set(schema["required"]) == without_default


def required(default: Any) -> bool:
    return default is dataclasses.MISSING or (isinstance(default, FieldInfo) and default.is_required())


def test_the_graph_names_the_nodes_of_the_contract_in_order():
    graph = Path(__file__).parents[2] / "serving" / "kserve" / "graph.yaml"
    steps = yaml.safe_load(graph.read_text())["spec"]["nodes"]["root"]["steps"]
    assert tuple(step["name"] for step in steps) == decisions.NODES


def test_a_source_without_covariates_is_one_of_events():
    assert schema_of(dataclasses.replace(CARD, covariates=())) is tables.RETAIL_SCHEMA
    assert schema_of(CARD).landing[0] == tables.table("landing", "assignments")
    assert [c.name for c in schema_of(CARD).landing[1].columns if c.nullable] == ["age", "income", "city"]
    numbers_only = dataclasses.replace(CARD, covariates=CARD.covariates[:1])
    assert features_of(numbers_only).names == ("age", "no_text")
    assert features_of(numbers_only).hash != features_of(dataclasses.replace(CARD, covariates=(Covariate("age", "number", 41.0),))).hash
