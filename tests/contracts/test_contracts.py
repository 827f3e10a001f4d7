import copy
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from promolift.contracts import decisions, features, tables
from promolift.contracts.artifacts import Check, ModelManifest, Verdict, read_manifest, read_verdict, write_json
from promolift.contracts.promos import CATEGORIES, CATEGORY_NAMES, Promo, category_of

REQUEST = {"request_id": "r-1", "shopper_id": "17", "moment": "2018-01-01T09:30:00Z"}


@pytest.mark.parametrize("table", tables.TABLES, ids=lambda t: t.path)
def test_a_table_has_unique_names_and_a_key_among_them(table: tables.Table) -> None:
    assert len(set(table.names)) == len(table.names)
    assert set(table.key) <= set(table.names)


def test_the_schema_hash_sees_types_and_nulls() -> None:
    changed = replace(tables.EXPOSURES, columns=tuple(replace(c, nullable=True) for c in tables.EXPOSURES.columns))
    assert changed.schema_hash != tables.EXPOSURES.schema_hash


def test_examples_hold_every_feature_and_label_once() -> None:
    names = tables.EXAMPLES.names
    assert all(names.count(name) == 1 for name in (*features.FEATURE_NAMES, *(c.name for c in tables.LABELS)))


def test_an_unknown_table_is_named() -> None:
    with pytest.raises(KeyError, match="No table 'sales' in layer 'gold'"):
        tables.table("gold", "sales")


def test_every_department_has_one_category_and_the_rest_is_other() -> None:
    departments = [d for c in CATEGORIES for d in c.departments]
    assert len(set(departments)) == len(departments)
    assert [category_of(d) for d in departments] == [c.name for c in CATEGORIES for _ in c.departments]
    assert category_of("FUEL") == category_of(None) == "other"


def test_features_of_a_category_exist_for_every_category() -> None:
    for name in CATEGORY_NAMES:
        assert {f"share_{name}_84d", f"basket_share_{name}_84d", f"recency_{name}_days"} <= set(features.NUMERIC_NAMES)


@given(st.text(min_size=1, max_size=20), st.lists(st.tuples(st.sampled_from(CATEGORY_NAMES), st.integers(0, 10**6)), max_size=5))
def test_an_envelope_survives_the_wire(shopper: str, lines: list[tuple[str, int]]) -> None:
    request = decisions.read_request({**REQUEST, "shopper_id": shopper, "basket": [{"category": c, "amount_cents": a} for c, a in lines]})
    envelope = decisions.Envelope(request=request, shopper=decisions.Shopper({"baskets_7d": 1.0, "area": "x"}, found=True))
    assert decisions.read_envelope(decisions.dump(envelope)) == envelope


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"moment": "yesterday"}, "moment"),
        ({"channel": "fax"}, "channel"),
        ({"basket": [{"category": "deli", "amount_cents": -1}]}, "amount_cents"),
        ({"basket": [{"category": "deli", "amount_cents": "5"}]}, "amount_cents"),
        ({"basket": [{"category": "deli", "amount_cents": 5, "quantity": True}]}, "quantity"),
        ({"basket": [{"category": "fish", "amount_cents": 5}]}, "it must be one of grocery, household"),
        ({"surprise": 1}, "surprise"),
        ({"request_id": ""}, "request_id"),
    ],
)
def test_a_malformed_request_names_the_field(change: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        decisions.read_request({**REQUEST, **change})


WHOLE = {**REQUEST, "store_id": "7", "channel": "app", "basket": [{"category": "deli", "amount_cents": 5, "quantity": 2}]}
OTHERS = (None, True, 7, 7.5, 7.0, "7", [], ["7"], {}, {"category": "deli"})


@pytest.mark.parametrize("path", [(name,) for name in WHOLE] + [("basket", 0, name) for name in ("category", "amount_cents", "quantity")])
@pytest.mark.parametrize("other", OTHERS, ids=repr)
def test_a_value_of_another_json_type_is_refused(path: tuple[Any, ...], other: object) -> None:
    document = copy.deepcopy(WHOLE)
    place: Any = document
    for key in path[:-1]:
        place = place[key]
    if type(place[path[-1]]) is type(other) and other != ["7"]:
        return  # another value of the same type is a matter of the field's own limits
    place[path[-1]] = other
    with pytest.raises(ValidationError):
        decisions.read_request(document)


def test_the_schema_of_a_category_lists_them() -> None:
    (line,) = (part for name, part in decisions.schema()["Request"]["$defs"].items() if name == "BasketLine")
    assert line["properties"]["category"]["enum"] == list(CATEGORY_NAMES)


def test_json_schemas_forbid_unknown_fields() -> None:
    schemas = decisions.schema()
    assert schemas["Request"]["additionalProperties"] is False
    assert set(schemas["Envelope"]["properties"]) >= {"request", "shopper", "candidates", "scores", "decision"}


def test_manifest_and_verdict_survive_the_disk(tmp_path: Path) -> None:
    promo = Promo("deli_30", "deli", 0.3, 500)
    manifest = ModelManifest(
        "lightgbm",
        "ab",
        "cd",
        ("a", "b"),
        ("c",),
        {"c": ("x",)},
        (promo,),
        "profit",
        {"deli_30": ((-1.0, -2.0), (3.0, 1.0))},
        {"gold/examples": 2},
        7,
        "now",
    )
    write_json(tmp_path / "manifest.json", manifest)
    assert read_manifest(tmp_path) == manifest
    verdict = Verdict("lightgbm", False, (Check("srm", "failed", 0.1, 0.2, "Because."),), ("Because.",))
    assert read_verdict(write_json(tmp_path / "verdict.json", verdict)) == verdict


def test_the_library_kserve_is_not_hidden_by_our_room() -> None:
    found = importlib.util.find_spec("kserve")
    assert found is not None and found.origin is not None and "site-packages" in found.origin
