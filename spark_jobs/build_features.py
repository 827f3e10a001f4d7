"""Silver events + gold exposures -> gold features: for every moment what was known just before it, built from the feature list.

The rule of time is one line, `_known`: an event is known at a moment when it happened and reached us before it. A basket has reached us
when its last line has.
"""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from promolift.contracts.features import ATTRIBUTES, RECENCIES, WINDOWED, Recency, Windowed
from promolift.contracts.promos import NO_PROMO
from promolift.contracts.tables import EXPOSURES, FEATURES, table
from spark_jobs import baskets, trials
from spark_jobs.baskets import measure_name
from spark_jobs.lake import Counters, Lake, conform
from spark_jobs.progress import say

DAY = 86_400_000_000
"""Microseconds: the resolution of event times, so that the boundary is exact."""
LONGEST = max(*(f.window_days for f in WINDOWED), *(f.window_days for f in RECENCIES))


def _known(at: Column) -> Column:
    return (F.col("time") < at) & (F.col("arrived") < at)


def _within(days: int) -> Column:
    return F.col("age") <= days * DAY


def _total(measure: str, category: str | None, days: int) -> Column:
    return F.coalesce(F.sum(F.when(_within(days), F.col(measure_name(measure, category)))), F.lit(0))


def _windowed(feature: Windowed) -> Column:
    total = _total(feature.measure, feature.category, feature.window_days)
    if feature.per is not None:
        whole = _total(feature.per, None, feature.window_days)
        total = F.when(whole != 0, total / whole).otherwise(feature.default)
    return total.alias(feature.name)


def _recency(feature: Recency) -> Column:
    held = F.col(measure_name("baskets", feature.category)) > 0
    youngest = F.min(F.when(_within(feature.window_days) & held, F.col("age")))
    return F.coalesce(youngest / DAY, F.lit(feature.default)).alias(feature.name)


def _events(purchases: DataFrame, assignments: DataFrame, redemptions: DataFrame) -> DataFrame:
    """Everything that a window may sum, with its time and its arrival in µs; a measure that an event does not have is null."""
    given = assignments.where(F.col("promo_id") != NO_PROMO).withColumn("event_time", F.col("moment")).withColumn("promos", F.lit(1))
    union = baskets.build(purchases).drop("basket_id", "margin_cents")
    for events, measure in ((given, "promos"), (redemptions.withColumn("redemptions", F.lit(1)), "redemptions")):
        more = events.select("shopper_id", F.col("event_time").alias("time"), F.col("arrived_at").alias("arrived"), measure)
        union = union.unionByName(more, allowMissingColumns=True)
    return union.withColumns({name: F.unix_micros(name) for name in ("time", "arrived")})


def moments(exposures: DataFrame, shoppers: DataFrame, purchases: DataFrame, as_of: str) -> DataFrame:
    """Every decision's (shopper, moment), and one row a shopper at the end of the data, which goes to the online store."""
    everybody = shoppers.select("shopper_id").union(exposures.select("shopper_id")).union(purchases.select("shopper_id")).distinct()
    now = everybody.withColumn("moment", F.lit(as_of).cast("timestamp"))
    return exposures.select("shopper_id", "moment").union(now).distinct()


def build(moments: DataFrame, events: DataFrame, shoppers: DataFrame) -> DataFrame:
    """One row a (shopper, moment); a shopper without events gets the defaults.

    `events` has `time` and `arrived` in µs and one column a measure.
    """
    known = events.withColumnRenamed("shopper_id", "who")
    at = F.unix_micros("moment")
    before = (F.col("who") == F.col("shopper_id")) & _known(at) & (F.col("time") >= at - LONGEST * DAY)
    aged = moments.join(known, on=before, how="left").withColumn("age", F.unix_micros("moment") - F.col("time"))
    windowed = aged.groupBy("shopper_id", "moment").agg(*map(_windowed, WINDOWED), *map(_recency, RECENCIES))
    attributes = shoppers.select("shopper_id", *(F.col(a.name).alias(f"raw_{a.name}") for a in ATTRIBUTES))
    described = windowed.join(attributes, on="shopper_id", how="left")
    for attribute in ATTRIBUTES:
        described = described.withColumn(attribute.name, F.coalesce(f"raw_{attribute.name}", F.lit(attribute.default)))
    return conform(described, FEATURES)


def run(lake: Lake) -> Counters:
    """Replace gold/features."""
    lake.overwrite(lake.schema.features, trials.features(lake) if lake.card.covariates else _of_events(lake))
    counters = {"rows": lake.writes[FEATURES.path]["rows"]}
    say("build_features", FEATURES.path, counters)
    return counters


def _of_events(lake: Lake) -> DataFrame:
    shoppers, purchases, assignments, redemptions = (
        lake.read(table("silver", n)) for n in ("shoppers", "purchases", "assignments", "redemptions")
    )
    asked = moments(lake.read(EXPOSURES), shoppers, purchases, lake.card.as_of)
    return build(asked, _events(purchases, assignments, redemptions), shoppers)
