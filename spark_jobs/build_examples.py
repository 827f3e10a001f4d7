"""Gold exposures + features + silver outcomes -> gold examples, once the outcome window has closed; late events re-label by MERGE."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from promolift.contracts.promos import LABEL_GRACE_DAYS, SourceCard
from promolift.contracts.tables import EXAMPLES, EXPOSURES, FEATURES, table
from spark_jobs import baskets, trials
from spark_jobs.lake import Counters, Lake, conform
from spark_jobs.progress import say

_KEY = ["exposure_id"]


def is_closed(as_of: str) -> Column:
    """Whether `window_end` is at least the grace period before `as_of`."""
    return F.col("window_end") + F.make_dt_interval(F.lit(LABEL_GRACE_DAYS)) <= F.lit(as_of).cast("timestamp")


def closed(exposures: DataFrame, as_of: str) -> DataFrame:
    """Exposures whose window has closed."""
    return exposures.where(is_closed(as_of))


def _during(exposures: DataFrame, events: DataFrame, time: str) -> DataFrame:
    happened = events.withColumnRenamed("shopper_id", "who")
    inside = (F.col("who") == F.col("shopper_id")) & (F.col(time) >= F.col("moment")) & (F.col(time) < F.col("window_end"))
    return exposures.select("exposure_id", "shopper_id", "moment", "window_end").join(happened, on=inside, how="inner")


def contact(card: SourceCard) -> Column:
    """What showing the promo given costs (cents), redeemed or not."""
    cost = F.lit(0)
    for promo in card.promos:
        cost = F.when(F.col("promo_id") == promo.promo_id, promo.contact_cents).otherwise(cost)
    return cost


def labels(exposures: DataFrame, purchases: DataFrame, visits: DataFrame, redemptions: DataFrame, card: SourceCard) -> DataFrame:
    """Per exposure: visited, converted (bool), spend, margin and cost (cents). A redemption counts for its own exposure."""
    bought = _during(exposures, baskets.build(purchases).select("shopper_id", "time", "sales_cents", "margin_cents"), "time")
    bought = bought.groupBy(*_KEY).agg(F.sum("sales_cents").alias("spend_cents"), F.sum("margin_cents").alias("margin_cents"))
    seen = _during(exposures, visits.select("shopper_id", "event_time"), "event_time").select(*_KEY).distinct()
    paid = redemptions.groupBy(*_KEY).agg(F.sum("cost_cents").alias("paid_cents"))
    outcome = exposures.select("exposure_id", "promo_id").join(bought, on=_KEY, how="left").join(paid, on=_KEY, how="left")
    outcome = outcome.join(seen.withColumn("seen", F.lit(True)), on=_KEY, how="left")
    zero = [F.coalesce(name, F.lit(0)).alias(name) for name in ("spend_cents", "margin_cents")]
    converted = F.col("spend_cents").isNotNull()
    visited = converted | F.coalesce("seen", F.lit(False))
    cost = F.coalesce("paid_cents", F.lit(0)) + contact(card)
    return outcome.select(*_KEY, visited.alias("visited"), converted.alias("converted"), *zero, cost.alias("cost_cents"))


def build(exposures: DataFrame, features: DataFrame, outcome: DataFrame) -> DataFrame:
    """Closed exposures with the features of their moment and their labels."""
    return exposures.join(features, on=["shopper_id", "moment"], how="inner").join(outcome, on=_KEY, how="inner")


def _of_events(lake: Lake, exposures: DataFrame) -> DataFrame:
    purchases, visits, redemptions = (lake.read(table("silver", n)) for n in ("purchases", "visits", "redemptions"))
    return labels(exposures, purchases, visits, redemptions, lake.card)


def run(lake: Lake) -> Counters:
    """Merge into gold/examples: new rows are inserted, rows whose labels or features changed are updated."""
    exposures = closed(lake.read(EXPOSURES), lake.card.as_of)
    outcome = trials.labels(lake) if lake.card.covariates else _of_events(lake, exposures)
    lake.upsert(lake.schema.examples, conform(build(exposures, lake.read(FEATURES), outcome), lake.schema.examples))
    counters = {"rows": lake.writes[EXAMPLES.path]["rows"]}
    say("build_examples", EXAMPLES.path, counters)
    return counters
