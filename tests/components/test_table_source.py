"""Source `table`: somebody's CSV or Parquet file and a YAML file -> landing tables, or a sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from components.land_events import inputs
from components.sources.table import UNTIMED, land
from promolift.contracts.features import features_of
from promolift.contracts.promos import Covariate, Promo
from promolift.contracts.tables import schema_of
from promolift.errors import InputError

SPEC: dict[str, Any] = {
    "file": "trial.csv", "arm": "offer", "control": "none", "outcome": "bought", "value": "spend", "features": ["age", "income", "city"],
    "cost": {"ten_off": 10.0, "gift": 2.5}, "shares": {"none": 0.5, "ten_off": 0.25, "gift": 0.25}, "shopper": "customer",
    "segments": ["city"], "time": "sent",
}  # fmt: skip


def frame(rows: int = 60) -> pd.DataFrame:
    """Arms in turn; income is skewed and empty in the first row."""
    rng = np.random.default_rng(3)
    income = rng.lognormal(3, 2, rows)
    income[0] = np.nan
    days = [f"2026-01-{1 + (i // 4) % 28:02d}T0{i % 4}:00:00Z" for i in range(rows)]
    columns: dict[str, Any] = {
        "customer": [f"c{i // 2}" for i in range(rows)], "offer": [("none", "ten_off", "none", "gift")[i % 4] for i in range(rows)],
        "bought": [i % 3 == 0 for i in range(rows)], "spend": [round(-1.5 + i % 7, 2) for i in range(rows)],
        "age": 20 + np.arange(rows) % 50, "income": income, "city": [("Bern", "Genf", "Zug")[i % 3] for i in range(rows)], "sent": days,
    }  # fmt: skip
    return pd.DataFrame({**columns, "p_none": 0.5, "p_ten_off": 0.25, "p_gift": 0.25})


def written(folder: Path, data: pd.DataFrame | None = None, **changes: Any) -> str:
    """The YAML file of SPEC with `changes` (None takes a key away), and the data beside it."""
    spec = {key: value for key, value in {**SPEC, **changes}.items() if value is not None}
    table = frame() if data is None else data
    file = folder / str(spec.get("file", "trial.csv"))
    table.to_parquet(file) if file.suffix == ".parquet" else table.to_csv(file, index=False)
    path = folder / "trial.yaml"
    path.write_text(yaml.safe_dump(spec))
    return str(path)


def test_every_column_goes_where_the_yaml_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    landed = land(written(tmp_path), 1)
    card, data = landed.card, frame()
    assert card.arms == ("no_promo", "gift", "ten_off")
    assert card.promos == (Promo("gift", "other", 0.0, 0, contact_cents=250), Promo("ten_off", "other", 0.0, 0, contact_cents=1000))
    assert (card.objective, card.budget_cents, card.estimated_propensities, card.simulated) == ("profit", 312.5, False, "")
    known = data["income"].dropna()
    assert card.covariates == (
        Covariate("age", "number", data["age"].median()), Covariate("income", "amount", pytest.approx(known.median())),
        Covariate("income_is_missing", "number"), Covariate("city", "text"),
    )  # fmt: skip
    assignments, trials = (landed.tables[name].to_pylist() for name in ("assignments", "trials"))
    assert [r["promo_id"] for r in assignments[:4]] == ["no_promo", "ten_off", "no_promo", "gift"]
    assert assignments[3]["propensities"] == [0.5, 0.25, 0.25]
    assert (assignments[3]["bucket"], assignments[3]["shopper_id"]) == ("skewed", "c1")
    assert assignments[1]["moment"].isoformat() == "2026-01-01T01:00:00+00:00"
    assert [(r["converted"], r["margin_cents"], r["cost_cents"]) for r in trials[:4]] == [
        (True, -150, 0), (False, -50, 1000), (False, 50, 0), (True, 150, 250),
    ]  # fmt: skip
    assert (trials[0]["income"], trials[0]["income_is_missing"], trials[1]["income_is_missing"]) == (None, 1.0, 0.0)
    assert landed.tables["trials"].column_names == list(schema_of(card).landing[1].names)
    said = capsys.readouterr().out
    assert "arms none 30, gift 15, ten_off 15; none is no_promo" in said and "city: text with 3 values" in said and "1 empty" in said


def test_parquet_and_csv_land_the_same(tmp_path: Path):
    (tmp_path / "p").mkdir()
    one, other = land(written(tmp_path), 1), land(written(tmp_path / "p", file="trial.parquet"), 1)
    assert one.card.covariates == other.card.covariates and one.card.promos == other.card.promos
    for name in ("assignments", "trials"):  # pandas reads decimals of a CSV file to the last digit but one
        pd.testing.assert_frame_equal(one.tables[name].to_pandas(), other.tables[name].to_pandas())


def test_logged_propensities_by_arm_and_shares_of_the_file(tmp_path: Path):
    logged = land(written(tmp_path, shares=None, propensity="p"), 1)
    assert not logged.card.estimated_propensities
    assert logged.tables["assignments"]["propensities"][0].as_py() == [0.5, 0.25, 0.25]
    counted = land(written(tmp_path, shares=None), 1)
    assert counted.card.estimated_propensities
    assert counted.tables["assignments"]["propensities"][7].as_py() == [0.5, 0.25, 0.25]


def test_without_shopper_time_cost_or_value(tmp_path: Path):
    bare = land(written(tmp_path, shopper=None, time=None, cost=None, value=None), 1)
    moments = bare.tables["assignments"]["moment"].cast(pa.int64()).to_pylist()
    assert (set(moments), len(set(bare.tables["assignments"]["shopper_id"].to_pylist()))) == ({UNTIMED}, 60)
    assert (bare.card.objective, bare.card.budget_cents) == ("visited", 0.0)
    assert "Only the time" in bare.card.simulated
    again = land(written(tmp_path, time=None), 1)
    assert again.tables["assignments"]["moment"].cast(pa.int64()).to_pylist()[:3] == [UNTIMED, UNTIMED + 1_000_000, UNTIMED]


def test_a_cost_column_gives_what_all_rows_of_a_promo_cost_and_what_the_dearest_costs_more(tmp_path: Path):
    data = frame()
    data["paid"] = np.where(data["offer"] == "none", 0.0, np.where(data["offer"] == "gift", 2.0, 1.0 + (np.arange(60) % 8 == 1) * 4))
    landed = land(written(tmp_path, data, cost="paid"), 1)
    assert landed.card.promos == (Promo("gift", "other", 0.0, 0, contact_cents=200), Promo("ten_off", "other", 0.0, 400, contact_cents=100))


@settings(max_examples=25, deadline=None)
@given(
    missing=st.sets(st.integers(0, 59), max_size=58), kinds=st.sampled_from([("age",), ("income", "city"), ("city",), ("age", "income")])
)
def test_features_of_the_card_are_the_columns_that_the_jobs_read(
    tmp_path_factory: pytest.TempPathFactory, missing: set[int], kinds: tuple[str, ...]
):
    data = frame()
    data.loc[list(missing), list(kinds)] = None
    landed = land(written(tmp_path_factory.mktemp("t"), data, features=list(kinds), segments=None), 1)
    names = [c.name for c in landed.card.covariates]
    assert set(names) <= set(landed.tables["trials"].column_names)
    assert set(names) <= set(features_of(landed.card).names)
    for name in kinds:
        assert landed.tables["trials"][name].null_count == data[name].isna().sum()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"colour": "red"}, r"trial.yaml, line 2: there is no key 'colour'; known are file, arm"),
    "no features": ({"features": None}, r"key 'features' is missing"),
    "empty features": ({"features": []}, r"key 'features' has the value \[\]"),
    "no outcome": ({"outcome": None, "value": None}, r"name `outcome` .* `value`"),
    "two propensities": ({"propensity": "p"}, r"not both"),
    "wrong type": ({"budget": "much"}, r"key 'budget' has the value 'much'"),
    "negative budget": ({"budget": -1}, r"key 'budget' has the value -1"),
    "leak": ({"features": ["age", "bought", "city"]}, r"'bought' is a feature and something else too"),
    "twice": ({"features": ["age", "age", "city"]}, r"feature 'age' is named twice"),
    "segment": ({"segments": ["zip"]}, r"segment 'zip' is not among"),
    "missing column": ({"features": ["height", "city"]}, r"has no column 'height'; its columns are: customer, offer"),
    "identifier": ({"features": ["sent_by", "city"]}, r"has 1,201 different texts"),
    "empty column": ({"features": ["nothing", "city"]}, r"is empty in all 1201 rows"),
    "infinite": ({"features": ["endless", "city"]}, r"Column 'endless' holds a number beyond 1e\+12 in 1 of 1201 rows; row 3 is 'inf'"),
    "reserved": ({"features": ["split", "city"]}, r"Feature 'split' has a name that the tables use already"),
    "unknown arm of cost": ({"cost": {"nine_off": 1}}, r"`cost` names arm 'nine_off'; the arms are none, gift, ten_off"),
    "negative cost": ({"cost": {"gift": -1}}, r"arm 'gift', is -1; a promo costs 0 or more"),
    "cost of the control": ({"cost": {"none": 1}}, r"arm 'none', is 1"),
    "shares of other arms": ({"shares": {"none": 0.5, "gift": 0.5}}, r"`shares` names gift, none; the file's arms are none, gift, ten_off"),
    "shares beyond 1": ({"shares": {"none": 0.5, "gift": 0.5, "ten_off": 0.5}}, r"their sum 1"),
    "no such control": ({"control": "nobody"}, r"--control 'nobody' is no value of column 'offer'|control"),
    "no time": ({"time": "city"}, r"Column 'city' holds no time such as 2026-01-31|something else"),
    "amount as outcome": ({"outcome": "age2"}, r"Column 'age2' holds neither 0 nor 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_a_sentence(tmp_path: Path, name: str):
    changes, sentence = BAD[name]
    data = frame(1_201)
    data["sent"], data["customer"] = "2026-01-01", [f"c{i}" for i in range(len(data))]
    data = data.assign(sent_by=[f"clerk {i}" for i in range(len(data))], nothing=None, endless=1.0, split="train", age2=data["age"])
    data.loc[2, "endless"] = np.inf
    with pytest.raises(InputError, match=sentence):
        land(written(tmp_path, data, **changes), 1)


def test_names_are_made_fit_for_the_tables_and_stay_different(tmp_path: Path):
    data = frame().rename(columns={"income": "Income ($)", "city": "Ort/city"})
    card = land(written(tmp_path, data, features=["age", "Income ($)", "Ort/city"], segments=["Ort/city"]), 1).card
    assert [c.name for c in card.covariates] == ["age", "Income", "Income_is_missing", "Ort_city"]
    assert card.segments == ("Ort_city",)
    with pytest.raises(InputError, match="Feature 'AGE' has a name that the tables use already"):
        land(written(tmp_path, data.assign(AGE=1.5), features=["age", "AGE"], segments=None), 1)


def test_two_decisions_of_a_shopper_at_one_time_and_a_promo_called_no_promo(tmp_path: Path):
    data = frame()
    data.loc[1, "sent"] = data.loc[0, "sent"]
    with pytest.raises(InputError, match="Shopper 'c0' has two decisions at the same `sent`, one of them in row 2"):
        land(written(tmp_path, data), 1)
    renamed = frame().replace({"offer": {"gift": "no_promo"}})
    with pytest.raises(InputError, match="Arm 'no_promo' is not the control 'none'"):
        land(written(tmp_path, renamed, cost=None, shares=None), 1)


@pytest.mark.parametrize(
    ("text", "sentence"), [("- a\n", "holds list"), ("a: [", "is not YAML: while parsing"), ("file: 3\narm: [1]\n", "key '")]
)
def test_a_yaml_file_of_another_shape_is_refused(tmp_path: Path, text: str, sentence: str):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        land(str(tmp_path / "bad.yaml"), 1)


def test_no_path_or_none_that_is_there(tmp_path: Path):
    with pytest.raises(InputError, match="needs --path of a YAML file"):
        land("", 1)
    with pytest.raises(InputError, match="There is no file"):
        land(str(tmp_path / "none.yaml"), 1)


def test_a_run_depends_on_the_yaml_file_and_on_the_data(tmp_path: Path):
    path = written(tmp_path)
    assert inputs("table", path) == (path, str(tmp_path / "trial.csv"))
    assert inputs("hillstrom", "x.csv") == ("x.csv",)
