"""Silver trials (a source that is a table of decisions) -> features and labels of every decision: both come with the row itself."""

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from promolift.contracts.features import features_of
from promolift.contracts.promos import SourceCard
from promolift.contracts.tables import silver_of
from spark_jobs.lake import Lake, conform


def _read(lake: Lake) -> DataFrame:
    (trials,) = (table for table in lake.schema.landing if table.name == "trials")
    return lake.read(silver_of(trials))


def features(lake: Lake) -> DataFrame:
    """The covariates at every decision, and each shopper's latest once more at the end of the data, for the online store."""
    return conform(described(_read(lake), lake.card), lake.schema.features)


def described(trials: DataFrame, card: SourceCard) -> DataFrame:
    """(shopper, moment) with every feature; a missing value is the feature's default."""
    newest = Window.partitionBy("shopper_id").orderBy(F.desc("moment"))
    latest = trials.withColumn("rank", F.row_number().over(newest)).where("rank = 1").drop("rank")
    both = trials.unionByName(latest.withColumn("moment", F.lit(card.as_of).cast("timestamp")))
    given = {covariate.name for covariate in card.covariates}
    default = {name: F.lit(value) for name, value in features_of(card).defaults().items()}
    filled = (F.coalesce(name, value).alias(name) if name in given else value.alias(name) for name, value in default.items())
    return both.select("shopper_id", "moment", *filled)


def labels(lake: Lake) -> DataFrame:
    """Per exposure: visited and converted (both the outcome that is yes or no), spend (margin, if above 0), margin and cost in cents."""
    spend = F.greatest(F.col("margin_cents"), F.lit(0)).alias("spend_cents")
    return _read(lake).select("exposure_id", F.col("converted").alias("visited"), "converted", spend, "margin_cents", "cost_cents")
