"""Decisions of an experiment, or of the log -> each with what happened after it and what its shopper did before the experiment.

An event counts for the shopper's last decision before it, within the outcome window: decisions may be closer together than the window,
and no sale is counted twice. What came before the shopper's first decision (EARLIER_DAYS) is known to no promo of the experiment.
"""

from collections.abc import Sequence

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from promolift.contracts.promos import OUTCOME_WINDOW_DAYS, Promo, SourceCard
from promolift.contracts.tables import DECISIONS, EXPOSURES, LEDGER_EVENTS, silver_of, table
from promolift.policy.exploration import PROBE
from spark_jobs import baskets
from spark_jobs.baskets import measure_name
from spark_jobs.build_examples import closed, contact
from spark_jobs.lake import Lake

EARLIER_DAYS = 84
MONEY = ("margin_cents", "sales_cents")
ENVELOPE = (
    "decision struct<propensities: map<string, double>, reservation_id: string>, "
    "candidates struct<promo_ids: array<string>>, scores struct<cost: array<double>>"
)
"""What is read of a logged envelope."""


def of_experiment(lake: Lake) -> DataFrame:
    """Closed exposures with what the promo cost: see `_exposures`."""
    paid = lake.read(table("silver", "redemptions")).groupBy(F.col("exposure_id").alias("decision_id"))
    summed = paid.agg(F.sum("cost_cents").alias("paid_cents"), F.count("*").alias("redemptions"))
    return _costed(_exposures(lake).join(summed, on="decision_id", how="left"), lake.card)


def _exposures(lake: Lake) -> DataFrame:
    """Closed exposures: decision, shopper, moment, end of the window, bucket, arm given, and `chance` of each arm by name."""
    arms = F.array(*(F.lit(arm) for arm in lake.card.arms))
    named = F.map_from_arrays(arms, "propensities").alias("chance")
    known = ("shopper_id", "moment", "window_end", "bucket", "promo_id")
    return closed(lake.read(EXPOSURES), lake.card.as_of).select(F.col("exposure_id").alias("decision_id"), *known, named)


def of_log(lake: Lake) -> DataFrame:
    """Every decision of the log in the same form, closed or not, with the time when it was made (`decided`).

    `explore` is the part of `policy` that the draw chose, and goes with it.
    """
    rows = lake.read(DECISIONS).where(~F.col("shopper_id").startswith(PROBE)).select("*", F.from_json("envelope", ENVELOPE).alias("told"))
    place = F.array_position("told.candidates.promo_ids", F.col("promo_id")).cast("int") - 1  # none of them for no_promo
    window = F.col("moment") + F.make_dt_interval(F.lit(OUTCOME_WINDOW_DAYS))
    given = rows.select(
        "decision_id", "shopper_id", "moment", window.alias("window_end"), "promo_id",
        F.when(F.col("bucket") == "explore", "policy").otherwise(F.col("bucket")).alias("bucket"),
        F.col("told.decision.propensities").alias("chance"), F.col("told.decision.reservation_id").alias("reservation_id"),
        F.timestamp_millis(F.split("entry_id", "-")[0].cast("long")).alias("decided"),
        F.nullif("model_version", F.lit("")).alias("model"), F.col("expected_profit_cents").alias("predicted_profit_cents"),
        F.coalesce(F.get("told.scores.cost", place), F.lit(0.0)).alias("predicted_cost_cents"),
    )  # fmt: skip
    events = lake.read(LEDGER_EVENTS).where("event = 'committed'").groupBy("reservation_id")
    spent = events.agg(F.sum("cents").alias("paid_cents"), F.count("*").alias("redemptions"))
    return _costed(given.join(spent, on="reservation_id", how="left").drop("reservation_id"), lake.card)


def _costed(given: DataFrame, card: SourceCard) -> DataFrame:
    cost = F.coalesce("paid_cents", F.lit(0)) + contact(card)
    return given.withColumns({"cost_cents": cost, "redemptions": F.coalesce("redemptions", F.lit(0))}).drop("paid_cents")


def of_trials(lake: Lake) -> DataFrame:
    """Closed exposures of a source that is a table of decisions, with its outcomes; the first amount among its covariates came before."""
    (trials,) = (one for one in lake.schema.landing if one.name == "trials")
    card = lake.card
    earlier = [F.col(c.name).cast("double") for c in card.covariates if c.kind == "amount"][:1] or [F.lit(0.0)]
    segments = [F.col(name).alias(f"segment_{name}") for name in card.segments]
    came = lake.read(silver_of(trials)).select(
        F.col("exposure_id").alias("decision_id"), "margin_cents", "cost_cents", F.col("converted").cast("int").alias("conversions"),
        (F.col("cost_cents") > 0).cast("int").alias("redemptions"), F.coalesce(*earlier, F.lit(0.0)).alias("earlier"), *segments,
    )  # fmt: skip
    return _exposures(lake).join(came, on="decision_id", how="inner")


def measures(promos: Sequence[Promo]) -> list[str]:
    """Columns of the sales in the categories of promos."""
    return [measure_name("sales_cents", category) for category in sorted({promo.category for promo in promos})]


def bought_in(lake: Lake) -> DataFrame:
    """Every basket: shopper, time, margin, and sales, of all lines and by category."""
    lines = lake.read(table("silver", "purchases"))
    return baskets.build(lines).select("shopper_id", "time", *MONEY, *measures(lake.card.promos), F.lit(1).alias("conversions"))


def with_events(decisions: DataFrame, bought: DataFrame, card: SourceCard) -> DataFrame:
    """The decisions with margin, sales by category and conversions of their window, and `before_*` of the shopper's earlier weeks."""
    summed = [*MONEY, *measures(card.promos), "conversions"]
    after = _after(decisions, bought).groupBy("decision_id").agg(*(F.sum(name).alias(name) for name in summed))
    before = _before(decisions, bought, summed)
    joined = decisions.join(after, on="decision_id", how="left").join(before, on="shopper_id", how="left")
    return joined.fillna(0, subset=[*summed, *(f"before_{name}" for name in summed)])


def _after(decisions: DataFrame, bought: DataFrame) -> DataFrame:
    """Each basket with the decision that it counts for; those of no decision's window are left out."""
    given = decisions.select("shopper_id", F.col("moment").alias("time"), F.struct("decision_id", "window_end").alias("last"))
    both = bought.withColumn("rank", F.lit(1)).unionByName(given.withColumn("rank", F.lit(0)), allowMissingColumns=True)
    so_far = Window.partitionBy("shopper_id").orderBy("time", "rank").rowsBetween(Window.unboundedPreceding, 0)
    led = both.withColumn("last", F.last("last", ignorenulls=True).over(so_far)).where("rank = 1")
    return led.where(F.col("time") < F.col("last.window_end")).withColumn("decision_id", F.col("last.decision_id"))


def _before(decisions: DataFrame, bought: DataFrame, summed: list[str]) -> DataFrame:
    first = decisions.groupBy("shopper_id").agg(F.min("moment").alias("first"))
    inside = (F.col("time") < F.col("first")) & (F.col("time") >= F.col("first") - F.make_dt_interval(F.lit(EARLIER_DAYS)))
    earlier = bought.join(first, on="shopper_id").where(inside)
    return earlier.groupBy("shopper_id").agg(*(F.sum(name).alias(f"before_{name}") for name in summed))
