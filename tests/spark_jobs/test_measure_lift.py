"""What promos bring, held against sums made by hand: from the source's experiment, from the decision log, from a canary at 50 %."""

import json
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from promolift.contracts import tables as contract
from promolift.contracts.promos import NO_PROMO
from promolift.policy.exploration import rollout_bucket
from promolift.promotion.graph_change import window_of
from promolift.promotion.guardrails import Value
from promolift.settings import Settings
from spark_jobs import canaries, lake, measure_lift, outcomes, session
from spark_jobs.landing import fingerprint

sys.path.insert(0, str(Path(__file__).parent))  # the small world lies beside its tests, which are no package
import small_world as small

pytestmark = pytest.mark.slow
SHOPPERS, CANARY = 700, "linear-2"
WEEK = timedelta(days=7)
ARMS = (NO_PROMO, "deli_30", "meat_20")
JOBS = ("ingest_events", "build_exposures", "measure_lift")
Rows = list[small.Row]


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    started = session.start_session(Settings().jars)
    started.conf.set("spark.sql.codegen.wholeStage", "false")
    yield started
    started.stop()


def run(spark: SparkSession, root: Path) -> None:
    for job in JOBS:
        lake.run_job(spark, root, job, fingerprint(root) if job == "ingest_events" else "")


@pytest.fixture(scope="module")
def world() -> dict[str, Rows]:
    """Shoppers with habits, two weekly decisions each. A deli promo brings 300 cents of deli and takes 100 of meat; meat's does nothing."""
    draw, tables = random.Random(7), {"products": small.PRODUCTS, "shoppers": [], "purchases": [], "assignments": [], "redemptions": []}
    for number in range(SHOPPERS):
        who, habit, held = f"s{number}", draw.randrange(500, 4000), number % 10 == 0
        tables["shoppers"].append(small.shopper(who))
        bought = tables["purchases"]
        bought.append(small.purchase(f"{who}-early", who, small.MOMENT - timedelta(days=20), cents=habit))
        for week in range(2):
            moment, name = small.MOMENT + week * WEEK, f"{who}-{week}"
            p = [1.0, 0.0, 0.0] if held else [0.5, 0.3, 0.2]
            promo = draw.choices(ARMS, p)[0]
            more = {"bucket": "holdout" if held else "uniform", "propensities": p}
            deli, noise = promo == "deli_30", draw.randrange(-200, 200)
            tables["assignments"].append(small.assignment(name, who, promo=promo, moment=moment, **more))

            bought.append(small.purchase(f"{name}-deli", who, moment + timedelta(days=1), cents=habit + 300 * deli + noise))
            bought.append(small.purchase(f"{name}-meat", who, moment + timedelta(days=2), product="2", cents=600 - 100 * deli))
            if deli:
                tables["redemptions"].append(small.redemption(f"{name}-r", name, who, moment + timedelta(days=1), cents=40))
    return tables


@pytest.fixture(scope="module")
def built(spark: SparkSession, world: dict[str, Rows], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = small.write(tmp_path_factory.mktemp("lift") / "lake", world)
    run(spark, root)
    return root


def lift(spark: SparkSession, root: Path, **where: str) -> dict[str, dict[str, Any]]:
    """Rows of everybody by metric."""
    frame = spark.read.format("delta").load(str(root / contract.LIFT.path))
    for name, value in {"segment": "everybody", "method": "cuped", **where}.items():
        frame = frame.where(frame[name] == value)
    return {row["metric"]: row.asDict() for row in frame.collect()}


def by_hand(world: dict[str, Rows], promo: str, product: str | None = None) -> float:
    """Weighted mean sales after `promo` less those after none, of the randomised decisions."""
    sums = {promo: [0.0, 0.0], NO_PROMO: [0.0, 0.0]}
    sales: dict[str, float] = {}
    for line in world["purchases"]:
        if product in (None, line["product_id"]):
            name = line["event_id"].rpartition("-")[0]
            sales[name] = sales.get(name, 0.0) + line["sales_cents"]
    for given in world["assignments"]:
        if given["bucket"] == "uniform" and given["promo_id"] in sums:
            weight = 1 / given["propensities"][ARMS.index(given["promo_id"])]
            sums[given["promo_id"]][0] += weight * sales.get(given["exposure_id"], 0.0)
            sums[given["promo_id"]][1] += weight
    (a, n), (b, m) = sums[promo], sums[NO_PROMO]
    return a / n - b / m


def test_a_promo_brings_what_sums_by_hand_say(spark: SparkSession, built: Path, world: dict[str, Rows]) -> None:
    found = lift(spark, built, contrast="arm", arm="deli_30", method="plain")
    assert found["sales_cents"]["effect"] == pytest.approx(by_hand(world, "deli_30"))
    assert found["promoted_sales_cents"]["effect"] == pytest.approx(by_hand(world, "deli_30", product="1"))
    assert found["other_sales_cents"]["effect"] == pytest.approx(by_hand(world, "deli_30", product="2"))
    assert found["redemptions"]["effect"] == pytest.approx(1.0)
    assert found["cost_cents"]["effect"] == pytest.approx(40.0)


def test_adjusting_for_earlier_sales_finds_the_planted_effect_in_a_narrow_interval(spark: SparkSession, built: Path) -> None:
    plain, cuped = (lift(spark, built, contrast="arm", arm="deli_30", method=m)["sales_cents"] for m in ("plain", "cuped"))
    assert cuped["low"] <= 200 <= cuped["high"]
    assert cuped["error"] < 0.3 * plain["error"]
    assert lift(spark, built, contrast="arm", arm="deli_30")["other_sales_cents"]["effect"] == pytest.approx(-100)  # cannibalised
    nothing = lift(spark, built, contrast="arm", arm="meat_20")["cost_cents"]
    assert nothing["effect"] == pytest.approx(3.0)  # showing it costs, redeemed or not


def test_the_programme_is_held_against_the_holdout(spark: SparkSession, built: Path, world: dict[str, Rows]) -> None:
    found = lift(spark, built, contrast="programme")["sales_cents"]
    share = sum(a["promo_id"] == "deli_30" for a in world["assignments"]) / sum(a["bucket"] == "uniform" for a in world["assignments"])
    assert found["low"] <= 200 * share <= found["high"]
    assert (found["decisions"], found["control_decisions"], found["control_shoppers"]) == (1260, 140, 70)
    assert found["srm_p"] > 0.001


def test_segments_have_their_own_effects_and_harm_is_told(spark: SparkSession, built: Path) -> None:
    frame = spark.read.format("delta").load(str(built / contract.LIFT.path)).where("contrast = 'arm' and metric = 'profit_cents'")
    found = {row["segment"]: row for row in frame.where("method = 'cuped' and arm = 'meat_20'").collect()}
    assert {name for name in found if name != "everybody"} == {f"earlier_sales quarter {i}" for i in range(1, 5)}
    assert sum(row["decisions"] for name, row in found.items() if name != "everybody") == found["everybody"]["decisions"]
    assert all(row["p_harm"] is not None for name, row in found.items() if name != "everybody")
    assert found["everybody"]["p_harm"] is None


def test_a_second_run_does_nothing_until_there_is_a_log(spark: SparkSession, built: Path) -> None:
    assert lake.run_job(spark, built, "measure_lift")["skipped"] is True


def decisions(world: dict[str, Rows], began: datetime) -> tuple[Rows, Rows]:
    """The experiment's decisions as the service would have logged them: what the holdout got, and the rest as policy with exploration."""
    rows, events = [], []
    for i, given in enumerate(world["assignments"]):
        at = began + timedelta(seconds=i)
        p = {arm: chance for arm, chance in zip(ARMS, given["propensities"], strict=True) if chance}
        held = given["bucket"] == "holdout"
        decision = {"propensities": p, "reservation_id": f"r-{given['exposure_id']}"}
        rows.append({
            "decision_id": given["exposure_id"], "request_id": given["exposure_id"], "shopper_id": given["shopper_id"],
            "moment": given["moment"], "promo_id": given["promo_id"], "reason": "explored",
            "bucket": "holdout" if held else ("policy", "explore")[i % 2], "propensity": p[given["promo_id"]],
            "expected_profit_cents": 250.0 * (given["promo_id"] != NO_PROMO), "reserved_cents": 0,
            "model_version": "linear-1", "latency_ms": 1.0,
            "envelope": json.dumps({
                "decision": decision, "request": {}, "candidates": {"promo_ids": ["meat_20", "deli_30"]}, "scores": {"cost": [9.0, 60.0]},
            }), "entry_id": f"{int(at.timestamp() * 1000)}-0", "budgets": "",
        })  # fmt: skip
        events.append({
            "event_id": str(i), "event": "committed" if given["promo_id"] == "deli_30" else "released", "budget": "b", "cents": 40,
            "reservation_id": decision["reservation_id"], "at": given["moment"], "actor": "till", "reason": "", "rate": 0.0, "step": 0.0,
        })  # fmt: skip
    return rows, events


def moves(*stages: tuple[str, datetime]) -> Rows:
    """Entries of the trail of version 2; hashes are of no interest here."""
    rows, before = [], "candidate"
    for seq, (stage, at) in enumerate(stages, 1):
        row = {c.name: "" for c in contract.PROMOTIONS.columns}
        rows.append({**row, "seq": seq, "version": "2", "model": CANARY, "stage_from": before, "stage_to": stage, "at": at})
        before = stage
    return rows


@pytest.mark.parametrize(("open_at", "look"), [(None, 3), (900, 2), (399, 0), (400, 1)])
def test_a_look_waits_for_the_last_decision_up_to_it_to_close(
    spark: SparkSession, tmp_path: Path, world: dict[str, Rows], open_at: int | None, look: int
) -> None:
    root = small.write(tmp_path / "lake", {"shoppers": world["shoppers"]})
    began = datetime(2017, 7, 1, tzinfo=UTC)
    logged = [{**row, "bucket": "policy"} for row in decisions(world, began)[0]]
    if open_at is not None:
        logged[open_at] = {**logged[open_at], "moment": small.AS_OF}
    written(spark, root, contract.DECISIONS, logged)
    written(spark, root, contract.LEDGER_EVENTS, [])
    written(spark, root, contract.PROMOTIONS, moves(("canary_50", began)))
    there = lake.Lake(spark, root)
    found = canaries.canaries_of(there, outcomes.of_log(there), Value(decisions=1600, looks=4, alpha=0.05))
    assert found is not None
    assert (found.looks, found.served.count()) == ({"2": look}, look * 400)


def written(spark: SparkSession, root: Path, table: contract.Table, rows: Rows) -> None:
    frame = spark.createDataFrame([[row[name] for name in table.names] for row in rows], lake.struct_type(table))
    frame.write.format("delta").save(str(root / table.path))


def test_the_log_tells_the_same_and_a_canary_only_what_its_look_has_reached(
    spark: SparkSession, built: Path, world: dict[str, Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    began = datetime(2017, 7, 1, tzinfo=UTC)
    logged, events = decisions(world, began)
    probe = {**logged[0], "shopper_id": "probe:1", "decision_id": "probe"}
    trail = moves(("shadow", began - WEEK), ("canary_10", began - WEEK), ("canary_50", began + timedelta(seconds=100)))
    for table, rows in ((contract.DECISIONS, [*logged, probe]), (contract.LEDGER_EVENTS, events), (contract.PROMOTIONS, trail)):
        written(spark, built, table, rows)
    limits = measure_lift.read_limits()
    planned = type(limits.value)(decisions=1600, looks=4, alpha=0.05)
    monkeypatch.setattr(measure_lift, "read_limits", lambda: type(limits)(**{**vars(limits), "value": planned}))
    assert lake.run_job(spark, built, "measure_lift")["skipped"] is False

    for metric in ("sales_cents", "profit_cents", "cost_cents", "redemptions"):
        here, there = (lift(spark, built, contrast="arm", arm="deli_30", experiment=e)[metric] for e in ("decisions", "assignments"))
        assert (here["bucket"], there["bucket"]) == ("policy", "uniform")
        assert here["effect"] == pytest.approx(there["effect"])
        assert here["error"] == pytest.approx(there["error"])

    by_model, of_all = (lift(spark, built, contrast=c, arm="deli_30", experiment="decisions") for c in ("model_arm", "arm"))
    assert by_model["profit_cents"]["bucket"] == "linear-1" and "srm_p" in by_model["profit_cents"]
    assert by_model["profit_cents"]["effect"] == pytest.approx(of_all["profit_cents"]["effect"])  # one model made all decisions
    assert by_model["predicted_cost_cents"]["effect"] == pytest.approx(60.0)

    of_model, programme = (lift(spark, built, contrast=c, experiment="decisions") for c in ("model", "programme"))
    assert of_model["profit_cents"]["arm"] == "linear-1"
    assert of_model["profit_cents"]["effect"] == pytest.approx(programme["profit_cents"]["effect"])  # one model made all decisions
    given = sum(row["promo_id"] != NO_PROMO for row in logged) / sum(row["bucket"] != "holdout" for row in logged)
    assert of_model["predicted_profit_cents"]["effect"] == pytest.approx(250.0 * given)
    paid = sum(row["promo_id"] == "deli_30" for row in logged) * 60 + sum(row["promo_id"] == "meat_20" for row in logged) * 9
    assert of_model["predicted_cost_cents"]["effect"] == pytest.approx(paid / sum(row["bucket"] != "holdout" for row in logged))
    assert "predicted_profit_cents" not in lift(spark, built, contrast="programme", experiment="assignments")

    found = lift(spark, built, contrast="canary")["profit_cents"]
    window = window_of(CANARY, "canary_50")
    assert window is not None
    salt = Settings().hash_salt
    inside = [row for i, row in enumerate(logged) if i >= 100 and row["bucket"] != "holdout"]
    look = len(inside) * 4 // 1600
    served = [row for row in inside[: look * 400] if rollout_bucket(row["shopper_id"], salt) in window]
    assert (found["arm"], found["look"], found["looks"]) == ("2", look, 4)
    assert found["decisions"] == len(served)
    assert found["decisions"] + found["control_decisions"] == look * 400
    assert found["z"] == pytest.approx(2.9631, abs=1e-3)  # the second of four looks
    assert found["low"] == pytest.approx(found["effect"] - found["z"] * found["error"])
