"""Silver assignments -> gold exposures: who was given what, with which probability, and in which split."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from promolift.contracts.promos import OUTCOME_WINDOW_DAYS, SourceCard
from promolift.contracts.tables import EXPOSURES, table
from spark_jobs.lake import Counters, Lake, conform
from spark_jobs.progress import say

SPLIT_SALT = "split-1:"
"""A new salt reshuffles shoppers over the splits."""
TRAIN, VALIDATION = 60, 15
"""Per cent of shoppers; the rest is test."""


def split() -> Column:
    """Split of a shopper: first 8 hex digits of sha256(salt + shopper_id), modulo 100. No shopper is in two splits."""
    digest = F.sha2(F.concat(F.lit(SPLIT_SALT), F.col("shopper_id")), 256)
    bucket = F.conv(F.substring(digest, 1, 8), 16, 10).cast("long") % 100
    return F.when(bucket < TRAIN, "train").when(bucket < TRAIN + VALIDATION, "validation").otherwise("test")


def build(assignments: DataFrame, card: SourceCard) -> DataFrame:
    """One row a decision; `propensity` is the logged probability of the arm that was given."""
    arms = F.array(*(F.lit(a) for a in card.arms))
    position = F.array_position(arms, F.col("promo_id")).cast("int")
    exposures = (
        assignments.withColumn("propensity", F.element_at("propensities", position))
        .withColumn("split", split())
        .withColumn("window_end", F.col("moment") + F.make_dt_interval(F.lit(OUTCOME_WINDOW_DAYS)))
    )
    return conform(exposures, EXPOSURES)


def run(lake: Lake) -> Counters:
    """Replace gold/exposures."""
    lake.overwrite(EXPOSURES, build(lake.read(table("silver", "assignments")), lake.card))
    counters = {"rows": lake.writes[EXPOSURES.path]["rows"]}
    say("build_exposures", EXPOSURES.path, counters)
    return counters
