"""A lake without its source card, or with an empty or damaged table of examples: a sentence that names the thing, and nothing changes."""

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.examples_input import open_examples
from components.trial_input import propensity_table, read_decisions
from promolift.errors import InputError
from promolift.uplift.scores import faults, make_trial
from spark_jobs.landing import fingerprint
from tests.components.synthetic_examples import CARD, rows_of, table_of, write_lake

with warnings.catch_warnings():
    # Importing Great Expectations 1.24 touches sre_constants and google.api_core, which both warn.
    warnings.simplefilter("ignore")
    from components.validate_data import validate


def test_a_lake_without_source_card_is_named_by_every_reader(tmp_path: Path):
    lake = write_lake(tmp_path / "lake", rows=200)
    (lake / "landing" / "source.json").unlink()
    for read in (open_examples, read_decisions, fingerprint):
        with pytest.raises(InputError, match=r"lake/landing/source\.json'"):
            read(lake)


def test_validation_of_such_a_lake_keeps_the_old_docs(tmp_path: Path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.html").write_text("earlier")
    with pytest.raises(InputError, match=r"lake/landing/source\.json' is missing: nothing was landed in this lake; land a source first\.$"):
        validate(str(tmp_path / "lake"), "silver", str(docs))
    assert (docs / "index.html").read_text() == "earlier"


def test_an_empty_table_of_examples_cannot_be_judged(tmp_path: Path):
    lake = write_lake(tmp_path / "lake", table=table_of(rows_of(0, 200)).slice(0, 0))
    with pytest.raises(InputError, match=r"gold/examples' is empty; no decision has a closed outcome window yet\.$"):
        read_decisions(lake)


@pytest.mark.parametrize("name", ["shopper_id", "split", "margin_cents", "cost_cents", "converted", "visited"])
def test_an_empty_value_is_counted_and_named(tmp_path: Path, name: str):
    table = table_of(rows_of(0, 200))
    column = table[name].to_pylist()
    place = table.schema.get_field_index(name)
    broken = table.set_column(place, table.schema.field(name), pa.array([None, None, *column[2:]], table.schema.field(name).type))
    with pytest.raises(InputError, match=rf"Column '{name}' of '.*gold/examples' has 2 empty values; rebuild the table\."):
        read_decisions(write_lake(tmp_path / "lake", table=broken))


def test_missing_short_and_long_propensities_become_faults_of_their_rows_alone():
    whole = [0.25] * 4
    lists = [whole, None, [0.5, 0.5], [*whole, 0.0], [], whole]
    column = pa.chunked_array([lists[:2], lists[2:]], pa.list_(pa.float64()))
    table = propensity_table(column, len(CARD.arms))
    assert np.isnan(table).all(axis=1).tolist() == [False, True, True, True, True, False]
    assert table[[0, 5]].tolist() == [whole, whole]
    assert faults(make_trial(np.zeros(6, np.int64), table, np.arange(6)))[0].tolist() == [False, True, True, True, True, False]


@pytest.mark.parametrize("content", ["", "[]", '{"name": "x"}', '{"promos": [{"depth": 1}]}'])
def test_a_damaged_source_card_is_named(tmp_path: Path, content: str):
    lake = write_lake(tmp_path / "lake", rows=200)
    (lake / "landing" / "source.json").write_text(content)
    with pytest.raises(InputError, match=r"lake/landing/source\.json' is no source card .*; land the source again\."):
        open_examples(lake)
