import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from components.examples_input import batches, open_examples, tensor_specs, vocabularies
from promolift.contracts.features import ATTRIBUTE_NAMES, NUMERIC_NAMES, RETAIL
from promolift.errors import InputError
from tests.components.synthetic_examples import CARD, rows_of, table_of, write_lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lake(tmp_path_factory.mktemp("lake"), rows=2_000)


def test_batches_hold_the_rows_of_the_split_in_the_contracts_order(lake: Path):
    examples, wanted = open_examples(lake), table_of(rows_of(0, 2_000))
    wanted = wanted.filter((pc.field("split") == "train") & (pc.field("bucket") != "holdout"))
    found = list(batches(examples, vocabularies(examples), "train", rows=300))
    assert len(found) > 2
    assert np.concatenate([b.exposure_id for b in found]).tolist() == wanted["exposure_id"].to_pylist()
    third = np.concatenate([b.numeric[:, 3] for b in found])
    assert np.array_equal(third, wanted[NUMERIC_NAMES[3]].to_numpy())
    arms = np.concatenate([b.arm for b in found])
    assert [CARD.arms[a] for a in arms] == wanted["promo_id"].to_pylist()


def test_holdout_shoppers_are_scored_but_never_trained_on(lake: Path):
    examples = open_examples(lake)
    vocabulary = vocabularies(examples)
    count = {flag: sum(len(b.arm) for b in batches(examples, vocabulary, "test", randomised=flag)) for flag in (True, False)}
    table = table_of(rows_of(0, 2_000)).filter(pc.field("split") == "test")
    holdout = pc.sum(pc.equal(table["bucket"], "holdout")).as_py()
    assert holdout > 0
    assert count == {True: table.num_rows - holdout, False: table.num_rows}


def test_unknown_values_have_index_0(lake: Path):
    examples = open_examples(lake)
    vocabulary = {**vocabularies(examples), "area": ("unknown", "b")}
    codes = np.concatenate(
        [b.attributes[:, ATTRIBUTE_NAMES.index("area")] for b in batches(examples, vocabulary, "test", randomised=False)]
    )
    texts = table_of(rows_of(0, 2_000)).filter(pc.field("split") == "test")["area"].to_pylist()
    assert codes.tolist() == [1 if text == "b" else 0 for text in texts]
    assert all(values[0] == "unknown" for values in vocabulary.values())


def test_tensor_specs_follow_the_contracts():
    specs = tensor_specs(RETAIL)
    assert list(specs) == ["numeric", "attributes"]
    assert specs["numeric"].shape.as_list() == [1, len(NUMERIC_NAMES)]
    assert (specs["attributes"].shape.as_list(), specs["attributes"].dtype.name) == ([1, len(ATTRIBUTE_NAMES)], "int32")


def _broken(name: str, values: list[object], kind: pa.DataType) -> pa.Table:
    table = table_of(rows_of(0, 200))
    place = table.schema.get_field_index(name)
    return table.set_column(place, pa.field(name, kind), pa.array(values * 200, kind))


BAD = [
    (lambda: table_of(rows_of(0, 200)).drop_columns(["recency_days"]), "Column 'recency_days' is missing"),
    (lambda: _broken("margin_cents", ["12"], pa.string()), "Column 'margin_cents' of .* has type string but must be int64"),
    (lambda: _broken("promo_id", ["gift"], pa.string()), "Arm 'gift' .* is not one of the source's arms"),
    (lambda: _broken("baskets_28d", [None], pa.float32()), "Column 'baskets_28d' .* empty values"),
    (lambda: _broken("baskets_28d", [float("inf")], pa.float32()), "Feature 'baskets_28d' .* not finite"),
    (lambda: _broken("propensities", [[0.0, 0.0, 0.0, 1.0]], pa.list_(pa.float64())), "propensity of 0 for its own arm"),
    (lambda: _broken("propensities", [[0.5, 0.5]], pa.list_(pa.float64())), "do not have 4 values a row"),
    (lambda: _broken("split", ["test"], pa.string()), "No rows of split train"),
    (lambda: table_of(rows_of(0, 200)).slice(0, 0), "No rows of split train"),
]


@pytest.mark.parametrize(("make", "sentence"), BAD, ids=[s for _, s in BAD])
def test_bad_examples_are_a_whole_sentence(tmp_path: Path, make, sentence: str):  # noqa: ANN001
    lake = write_lake(tmp_path, table=make())
    with pytest.raises(InputError, match=sentence):
        examples = open_examples(lake)
        list(batches(examples, vocabularies(examples), "train"))


def test_missing_table_is_a_whole_sentence(tmp_path: Path):
    with pytest.raises(InputError, match=r"source\.json' is missing: nothing was landed in this lake; land a source first"):
        open_examples(tmp_path)
    lake = write_lake(tmp_path / "lake", rows=200)
    shutil.rmtree(lake / "gold")
    with pytest.raises(InputError, match=r"No training examples at .* run the Spark job build_examples first"):
        open_examples(lake)
