import json
import random
import shutil
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from delta import tables as delta
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from components.sources.landing_tables import arrow_table
from promolift.contracts import tables as contract
from promolift.contracts.artifacts import write_json
from promolift.contracts.features import NUMERIC_NAMES
from promolift.contracts.promos import NO_PROMO, Covariate, Promo, SourceCard
from promolift.errors import InputError, UnavailableError
from promolift.settings import Settings
from spark_jobs import build_features, ingest_events, lake, session
from spark_jobs.__main__ import DATASET
from spark_jobs.landing import fingerprint

sys.path.insert(0, str(Path(__file__).parent))  # the small world lies beside its tests, which are no package
import small_world as small

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    started = session.start_session(Settings().jars)
    # Compiling a plan takes longer than running it over a handful of rows.
    started.conf.set("spark.sql.codegen.wholeStage", "false")
    started.conf.set("spark.sql.codegen.factoryMode", "NO_CODEGEN")
    yield started
    started.stop()


def run(spark: SparkSession, root: Path, *jobs: str) -> dict[str, dict[str, Any]]:
    return {job: lake.run_job(spark, root, job, fingerprint(root) if job == "ingest_events" else "") for job in jobs or DATASET}


def rows(root: Path, table: contract.Table) -> list[dict[str, Any]]:
    """All rows by key, read without Spark, which takes a second to plan even that."""
    found: list[dict[str, Any]] = DeltaTable(root / table.path).to_pyarrow_table().to_pylist()
    return sorted(found, key=lambda row: [str(row[name]) for name in table.key or row])


@pytest.fixture(scope="module")
def built(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small world, all jobs run; tests that change anything copy it."""
    root = small.write(tmp_path_factory.mktemp("built") / "lake", small.world())
    run(spark, root)
    return root


@pytest.fixture
def own(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "lake"))


def test_spark_schemas_are_the_contract(spark: SparkSession, built: Path) -> None:
    for table in (contract.EXPOSURES, contract.FEATURES, contract.EXAMPLES, contract.table("silver", "purchases")):
        found = spark.read.format("delta").load(str(built / table.path)).schema
        wanted = lake.struct_type(table)
        assert [(f.name, f.dataType) for f in found] == [(f.name, f.dataType) for f in wanted]


def test_labels_follow_the_events_in_the_window(built: Path) -> None:
    treated, control = rows(built, contract.EXAMPLES)
    assert (treated["spend_cents"], treated["margin_cents"], treated["cost_cents"]) == (2000, 500, 300)
    assert (treated["visited"], treated["converted"], treated["propensity"]) == (True, True, 0.25)
    assert (control["visited"], control["converted"], control["spend_cents"], control["cost_cents"]) == (False, False, 0, 0)
    assert (treated["age_band"], control["age_band"]) == ("45-54", "unknown")


PEOPLE = ("a", "b", "c", "d", "e", "f")


def random_tables() -> dict[str, list[small.Row]]:
    draw = random.Random(1)
    edges = [timedelta(days=d) for d in (0, 7, 28, 84, 364)]

    def moment() -> Any:
        if draw.random() < 0.3:  # exactly on the edge of a window, or a microsecond beside it
            return small.MOMENT - draw.choice(edges) + timedelta(microseconds=draw.choice((-1, 0, 1)))
        return small.MOMENT - timedelta(seconds=draw.randrange(-5 * 86_400, 400 * 86_400))

    purchases = [
        small.purchase(f"p{i}", draw.choice(PEOPLE), moment(), str(draw.randrange(1, 4)), draw.randrange(1, 5000), basket_id=f"k{i // 2}")
        for i in range(120)
    ]
    for line in purchases:  # a basket has one shopper
        line["shopper_id"] = PEOPLE[int(line["basket_id"][1:]) % len(PEOPLE)]
        if draw.random() < 0.3:  # late by up to thirty days, or arriving at the very moment
            line["arrived_at"] = max(line["event_time"] + timedelta(days=draw.randrange(30)), small.MOMENT)
    assigned = [small.assignment(f"e{p}", p) for p in PEOPLE] + [
        small.assignment(f"f{i}", draw.choice(PEOPLE), draw.choice([NO_PROMO, "deli_30"]), small.MOMENT - timedelta(days=i + 1))
        for i in range(40)
    ]
    redeemed = [small.redemption(f"r{i}", f"e{p}", p, moment()) for i, p in enumerate(PEOPLE * 4)]
    return small.world(purchases=purchases, assignments=assigned, redemptions=redeemed, shoppers=[small.shopper(p) for p in PEOPLE])


def test_every_feature_is_what_the_contract_says(spark: SparkSession, tmp_path: Path) -> None:
    tables = random_tables()
    root = small.write(tmp_path / "lake", tables)
    run(spark, root, *DATASET[:3])
    found = {r["shopper_id"]: r for r in rows(root, contract.FEATURES) if r["moment"].isoformat().startswith("2017-06-05")}
    for who in PEOPLE:
        wanted = small.reference(tables, who, small.MOMENT)
        assert {n: found[who][n] for n in NUMERIC_NAMES} == pytest.approx(wanted, rel=1e-5, abs=1e-5)


def features_at_the_moment(root: Path) -> list[dict[str, Any]]:
    return [r for r in rows(root, contract.FEATURES) if r["moment"].isoformat().startswith("2017-06-05")]


def leaking_events() -> dict[str, list[small.Row]]:
    """Events of great size that happen, or reach us, at the very moment or a microsecond after it."""
    at, after, before = small.MOMENT, small.MOMENT + timedelta(microseconds=1), small.MOMENT - timedelta(days=2)
    return {
        "purchases": [
            small.purchase("l1", "a", at, cents=10**6),
            small.purchase("l2", "b", after, cents=10**6),
            small.purchase("l4", "a", before, cents=10**6, arrived_at=at),
        ],
        "redemptions": [small.redemption("l3", "e1", "a", at), small.redemption("l5", "e1", "a", before, arrived_at=after)],
    }


@pytest.fixture(scope="module")
def leaking(spark: SparkSession, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small world with such events ingested; its features are those from before."""
    root = Path(shutil.copytree(built, tmp_path_factory.mktemp("leaking") / "lake"))
    small.write(root, leaking_events(), file="late")
    run(spark, root, *DATASET[:2])
    return root


def test_nothing_at_or_after_the_moment_is_seen(spark: SparkSession, built: Path, leaking: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(leaking, tmp_path / "lake"))
    assert not run(spark, own, "build_features")["build_features"]["skipped"]
    assert features_at_the_moment(own) == features_at_the_moment(built)


@pytest.mark.parametrize("rule", ["happened", "arrived"])
def test_a_planted_leak_is_seen(
    spark: SparkSession, built: Path, leaking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """The check above fails as soon as either rule of time reaches to the moment, so it can be trusted."""
    own = Path(shutil.copytree(leaking, tmp_path / "lake"))
    leaky = {"happened": lambda at: F.col("time") <= at + 1, "arrived": lambda at: (F.col("time") < at) & (F.col("arrived") <= at)}
    monkeypatch.setattr(build_features, "_known", leaky[rule])
    run(spark, own, "build_features")
    assert features_at_the_moment(own) != features_at_the_moment(built)


def test_a_rerun_changes_nothing(spark: SparkSession, own: Path) -> None:
    before = {t.path: rows(own, t) for t in (contract.EXPOSURES, contract.FEATURES, contract.EXAMPLES)}
    again = run(spark, own)
    assert all(record["skipped"] for record in again.values())
    shutil.rmtree(own / "lineage")  # as if another machine ran them
    forced = run(spark, own)
    assert not any(record["skipped"] for record in forced.values())
    assert {t.path: rows(own, t) for t in (contract.EXPOSURES, contract.FEATURES, contract.EXAMPLES)} == before


def test_a_changed_source_card_runs_the_jobs_again(spark: SparkSession, own: Path) -> None:
    card = json.loads((own / "landing" / "source.json").read_text())
    card["promos"][0]["contact_cents"] = 7
    (own / "landing" / "source.json").write_text(json.dumps(card))
    again = run(spark, own)
    assert not any(record["skipped"] for record in again.values())
    treated, _ = rows(own, contract.EXAMPLES)
    assert treated["cost_cents"] == 307


def test_a_changed_contract_runs_a_job_again(spark: SparkSession, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, sources = rows(own, contract.EXPOSURES), lake._sources()
    monkeypatch.setattr(lake, "_sources", lambda: [*sources, Path(small.__file__)])
    assert not run(spark, own, "build_exposures")["build_exposures"]["skipped"]
    assert rows(own, contract.EXPOSURES) == before


def test_lineage_holds_the_versions_read_and_written(built: Path) -> None:
    record = json.loads((built / "lineage" / "build_examples.json").read_text())
    assert record["writes"][contract.EXAMPLES.path] == {"version": 0, "rows": 2, "schema_hash": contract.EXAMPLES.schema_hash}
    assert record["reads"][contract.FEATURES.path] == 0


def test_late_events_relabel_only_their_example(spark: SparkSession, own: Path) -> None:
    late = small.purchase("late", "b", small.MOMENT + timedelta(days=2), cents=4000)
    small.write(own, {"purchases": [late]}, file="late")
    run(spark, own)
    treated, control = rows(own, contract.EXAMPLES)
    assert (treated["spend_cents"], control["spend_cents"], control["converted"]) == (2000, 4000, True)
    record = json.loads((own / "lineage" / "ingest_events.json").read_text())
    assert record["counters"]["tables"]["purchases"] == {"received": 1, "kept": 1, "quarantined": 0, "duplicates": 0, "reasons": {}}


def test_an_open_window_has_no_label_and_a_shopper_never_seen_gets_the_defaults(spark: SparkSession, tmp_path: Path) -> None:
    recent = small.assignment("e9", "a", moment=small.AS_OF - timedelta(days=9))
    assignments = [small.assignment("e1", "a"), small.assignment("e3", "stranger"), recent]
    root = small.write(tmp_path / "lake", small.world(assignments=assignments))
    run(spark, root)
    assert [r["exposure_id"] for r in rows(root, contract.EXPOSURES)] == ["e1", "e3", "e9"]
    known, stranger = rows(root, contract.EXAMPLES)
    assert (known["exposure_id"], stranger["exposure_id"]) == ("e1", "e3")
    assert {stranger[n] for n in ("baskets_364d", "recency_days", "channel")} == {0.0, 364.0, "unknown"}


def test_a_bad_row_goes_to_quarantine_with_its_reason(spark: SparkSession, tmp_path: Path) -> None:
    good = small.world()
    bad_lines = [
        small.purchase("q1", "a", small.MOMENT, cents=-5),
        small.purchase("q2", "a", small.MOMENT, product="99"),
        small.purchase("q2", "a", small.MOMENT, product="99"),  # the same bytes again: kept as well
        small.purchase("q3", "a", small.MOMENT, shopper_id=None),
        small.purchase("q4", "a", small.MOMENT, arrived_at=small.MOMENT - timedelta(days=1)),
        small.purchase("p1", "a", small.MOMENT - timedelta(days=10), arrived_at=small.MOMENT),  # p1 again: a duplicate
    ]
    bad_arms = [
        small.assignment("x1", "a", propensities=[1.0, 0.0, 0.0]),
        small.assignment("x2", "a", propensities=[0.5, 0.4, 0.3]),
        small.assignment("x3", "a", propensities=[0.5, None, 0.5]),
        small.assignment("x4", "a", promo="mystery"),
    ]
    tables = {**good, "purchases": good["purchases"] + bad_lines, "assignments": good["assignments"] + bad_arms}
    root = small.write(tmp_path / "lake", tables)
    counters = run(spark, root, "ingest_events")["ingest_events"]["counters"]["tables"]
    quarantined = rows(root, contract.QUARANTINE)
    reasons = sorted((r["reason"], json.loads(r["row"]).get("event_id") or json.loads(r["row"]).get("exposure_id")) for r in quarantined)
    assert reasons == [
        ("a propensity is missing or outside 0 to 1", "x3"),
        ("it arrived before it happened", "q4"),
        ("product_id is not in products", "q2"),
        ("product_id is not in products", "q2"),
        ("promo_id is not an arm of this source", "x4"),
        ("propensities do not sum to 1", "x2"),
        ("sales_cents is below 0", "q1"),
        ("shopper_id is missing", "q3"),
        ("the propensity of the arm given is 0", "x1"),
    ]
    for table in counters.values():
        assert table["received"] == table["kept"] + table["quarantined"] + table["duplicates"]
    assert (counters["purchases"]["quarantined"], counters["purchases"]["duplicates"]) == (5, 1)


def test_bad_files_are_named_and_change_nothing(spark: SparkSession, own: Path) -> None:
    versions = {p: p.stat().st_mtime_ns for p in own.glob("*/*/_delta_log/*.json")}
    broken = own / "landing" / "purchases" / "broken.parquet"
    broken.write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"broken\.parquet' is no readable Parquet file"):
        run(spark, own)
    broken.unlink()
    rows_without = [{k: v for k, v in small.purchase("w", "a", small.MOMENT).items() if k != "sales_cents"}]
    small.pq.write_table(small.pa.Table.from_pylist(rows_without), broken)
    with pytest.raises(InputError, match="has no column 'sales_cents'"):
        run(spark, own)
    typed = small.pa.Table.from_pylist([{**small.purchase("w", "a", small.MOMENT), "sales_cents": "ten"}])
    small.pq.write_table(typed, broken)
    with pytest.raises(InputError, match=r"Column .sales_cents. of .* is string and must be int64"):
        run(spark, own)
    assert {p: p.stat().st_mtime_ns for p in own.glob("*/*/_delta_log/*.json")} == versions


def test_an_empty_table_and_a_changed_file_are_refused(spark: SparkSession, own: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no rows"):
        fingerprint(small.write(tmp_path / "empty", small.world(purchases=[])))
    small.write(own, {"purchases": [small.purchase("new", "a", small.MOMENT)]})
    with pytest.raises(InputError, match="changed since it was ingested"):
        run(spark, own, "ingest_events")


def test_missing_jars_are_said(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="run `make setup`"):
        session.start_session(tmp_path)


def test_a_job_that_dies_before_its_delivery_is_in_bronze_is_done_again_and_adds_nothing(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [*small.world()["purchases"], small.purchase("bad", "a", small.MOMENT, cents=-5)]
    root = small.write(tmp_path / "lake", small.world(purchases=lines))

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ingest_events.bronze, "keep", killed)
        run(spark, root, "ingest_events")
    before = {t.path: rows(root, t) for t in (*contract.SILVER, contract.QUARANTINE)}
    run(spark, root, "ingest_events")
    assert {t.path: rows(root, t) for t in (*contract.SILVER, contract.QUARANTINE)} == before
    assert len(before["bronze/quarantine"]) == 1


def test_a_table_whose_need_failed_is_not_begun(spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, begun = small.write(tmp_path / "lake", small.world()), []

    def failing(_: Any, landed: contract.Table, *__: Any) -> None:
        begun.append(landed.name)
        if landed.name == "products":
            raise InputError("no more room on the disk")

    monkeypatch.setattr(ingest_events, "_ingest", failing)
    with pytest.raises(InputError, match="no more room"):
        ingest_events.run(lake.Lake(spark, str(root)))
    assert "products" in begun and "purchases" not in begun


def test_bronze_is_the_delivered_file_byte_for_byte(spark: SparkSession, tmp_path: Path) -> None:
    root = small.write(tmp_path / "lake", small.world())
    landed = root / "landing" / "purchases" / "part-0.parquet"
    narrow = small.pq.read_table(landed)
    for place, name in enumerate(narrow.schema.names):  # a delivery may use narrower types than the contract
        if narrow.schema.field(name).type == small.pa.int64():
            narrow = narrow.set_column(place, name, narrow[name].cast(small.pa.int32()))
        if small.pa.types.is_timestamp(narrow.schema.field(name).type):
            narrow = narrow.set_column(place, name, narrow[name].cast(small.pa.timestamp("ms", "UTC")))
    small.pq.write_table(narrow, landed)
    run(spark, root, "ingest_events")
    bronze = contract.table("bronze", "purchases")
    (kept,) = (root / bronze.path).glob("*.parquet")
    assert kept.read_bytes() == landed.read_bytes()
    found = rows(root, bronze)
    assert [r["event_time"] for r in found] == [p["event_time"] for p in small.world()["purchases"]]
    assert {r["delivery"].split("@")[0] for r in found} == {"part-0.parquet"}


@pytest.mark.parametrize("kind", ["plain", "empty", "partitioned", "with deleted rows"])
def test_a_table_is_read_as_delta_reads_it(spark: SparkSession, own: Path, kind: str) -> None:
    bought = contract.table("silver", "purchases")
    table = {"empty": contract.QUARANTINE, "partitioned": contract.bronze_of(contract.table("landing", "purchases"))}.get(kind, bought)
    rows_before = rows(own, bought)
    if kind == "with deleted rows":
        spark.sql(f"alter table delta.`{own / table.path}` set tblproperties ('delta.enableDeletionVectors' = true)").collect()
        delta.DeltaTable.forPath(spark, str(own / table.path)).delete(F.col("event_id") == rows_before[0]["event_id"])
    by_delta = spark.read.format("delta").load(str(own / table.path))
    by_us = lake.Lake(spark, str(own)).read(table)
    assert by_us.schema == by_delta.schema
    assert sorted(map(str, by_us.collect())) == sorted(map(str, by_delta.collect()))
    assert by_us.count() == len(small.world()["purchases"]) * (kind != "empty") - (kind == "with deleted rows")


def test_a_damaged_page_is_named_before_anything_is_written(spark: SparkSession, tmp_path: Path) -> None:
    root = small.write(tmp_path / "lake", small.world())
    path = root / "landing" / "purchases" / "part-0.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196  # the footer is whole, the first pages are not
    path.write_bytes(content)
    with pytest.raises(InputError, match="has damaged data"):
        run(spark, root, "ingest_events")
    assert not (root / "silver").exists()


TRIAL_CARD = SourceCard(
    "table", "", "", "profit", "converted", 1.0, "2017-07-01T00:00:00Z", (Promo("offer", "other", 0.0, 0),), has_truth=False,
    covariates=(Covariate("age", "number", 40.0), Covariate("city", "text")),
)  # fmt: skip


def land_trials(root: Path) -> None:
    """Two decisions of shopper a and one of b; a's age is missing the second time, b's city always; c's cost is impossible."""
    day = [small.MOMENT + timedelta(days=n) for n in range(4)]
    who, exposures = ["a", "a", "b", "c"], ["1", "2", "3", "4"]
    assignments = {
        "exposure_id": exposures, "shopper_id": who, "moment": day, "bucket": ["uniform"] * 4, "arrived_at": day,
        "promo_id": ["offer", "no_promo", "offer", "offer"], "propensities": [[0.5, 0.5]] * 4,
    }  # fmt: skip
    trials = {
        "exposure_id": exposures, "shopper_id": who, "moment": day, "age": [30.0, None, 50.0, 60.0], "city": ["Bern", "Zug", None, "Zug"],
        "converted": [True, False, False, True], "margin_cents": [500, 0, -120, 9], "cost_cents": [30, 0, 30, -1], "arrived_at": day,
    }  # fmt: skip
    for table, columns in zip(contract.schema_of(TRIAL_CARD).landing, (assignments, trials), strict=True):
        (root / table.path).mkdir(parents=True)
        pq.write_table(arrow_table(table, columns), root / table.path / "part-0.parquet")
    write_json(root / "landing" / "source.json", TRIAL_CARD)


def test_a_table_of_decisions_becomes_examples_with_its_own_features(spark: SparkSession, tmp_path: Path) -> None:
    land_trials(tmp_path)
    records, schema = run(spark, tmp_path), contract.schema_of(TRIAL_CARD)
    assert records["ingest_events"]["counters"]["tables"]["trials"]["reasons"] == {"cost_cents is below 0": 1}
    examples = {r["exposure_id"]: r for r in rows(tmp_path, schema.examples)}
    assert {e: (r["age"], r["city"]) for e, r in examples.items()} == {"1": (30.0, "Bern"), "2": (40.0, "Zug"), "3": (50.0, "unknown")}
    labels = ("visited", "converted", "spend_cents", "margin_cents", "cost_cents")
    assert [examples["3"][name] for name in labels] == [False, False, 0, -120, 30]
    assert [examples["1"][name] for name in labels] == [True, True, 500, 500, 30]
    online = [r for r in rows(tmp_path, schema.features) if r["moment"].isoformat().startswith("2017-07-01")]
    assert [(r["shopper_id"], r["age"], r["city"]) for r in online] == [("a", 40.0, "Zug"), ("b", 50.0, "unknown")]
    found = spark.read.format("delta").load(str(tmp_path / schema.examples.path)).schema
    assert [(f.name, f.dataType) for f in found] == [(f.name, f.dataType) for f in lake.struct_type(schema.examples)]
    assert all(record["skipped"] for record in run(spark, tmp_path).values())


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_damaged_lineage_record_runs_the_job_again(spark: SparkSession, own: Path, content: str) -> None:
    (own / "lineage" / "build_exposures.json").write_text(content)
    before = rows(own, contract.EXPOSURES)
    assert not run(spark, own, "build_exposures")["build_exposures"]["skipped"]
    assert rows(own, contract.EXPOSURES) == before
