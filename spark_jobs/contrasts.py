"""Decisions with outcomes -> weighted sums by comparison, segment, side and unit of shoppers, as `promolift.uplift.lift` takes them."""

from collections.abc import Callable

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from promolift.contracts.promos import NO_PROMO, SourceCard
from promolift.contracts.tables import EVERYBODY
from promolift.uplift.lift import UNITS
from spark_jobs import outcomes
from spark_jobs.outcomes import measures

HOLDOUT = "holdout"
PROMOTED = "promoted_sales_cents"
KEYS = ("contrast", "bucket", "arm", "segment", "treated", "unit")
RETAIL = ("profit_cents", "margin_cents", "sales_cents", PROMOTED, "other_sales_cents", "cost_cents", "redemptions", "conversions")
TRIAL = ("profit_cents", "margin_cents", "cost_cents", "redemptions", "conversions")
PREDICTED = ("predicted_profit_cents", "predicted_cost_cents")
"""Of a logged decision, what its model expected of the promo given; 0 for none."""


def metrics_of(card: SourceCard, *, logged: bool) -> tuple[str, ...]:
    """Outcomes that are compared: money in cents, redemptions and conversions as shares of decisions; of a log what was predicted."""
    return (*(TRIAL if card.covariates else RETAIL), *(PREDICTED if logged else ()))


def sums(rows: DataFrame, card: SourceCard, buckets: list[str], canaries: DataFrame | None = None) -> DataFrame:
    """One row by KEYS: weight, `after_*` and `before_*` of every metric, decisions and shoppers.

    `buckets`: those that are compared with the holdout. `canaries`: decision_id, version and whether the candidate served it.
    """
    logged = set(PREDICTED) <= set(rows.columns)
    names = metrics_of(card, logged=logged)
    none = {"version": F.lit(None).cast("string"), "candidate": F.lit(None).cast("boolean")}
    asked = rows.withColumns(none) if canaries is None else rows.join(canaries, on="decision_id", how="left")
    if not logged:
        asked = asked.withColumn("model", F.lit(None).cast("string"))
    few = _a_shopper(asked, card)
    arms = [side for promo in card.promos for side in (_arm(promo.promo_id), _arm_of_model(promo.promo_id))]
    sides = [*(_programme(bucket) for bucket in buckets), *arms, _canary(), _model()]
    spread = few.withColumn("side", F.explode(F.array_compact(F.array(*sides)))).withColumn("segment", F.explode(_segments(few)))
    named = spread.withColumns({name: F.col(f"side.{name}") for name in ("contrast", "bucket", "arm", "treated")})
    measured = _measured(named, card, names)
    values = ["weight", *(f"{when}_{name}" for name in names for when in ("after", "before"))]
    total = [F.sum(name).alias(name) for name in ("decisions", *values)]
    unit = F.pmod(F.xxhash64("shopper_id"), F.lit(UNITS)).alias("unit")
    whole = measured.groupBy(*KEYS[:-1], unit, "shopper_id").agg(*total)
    return whole.groupBy(*KEYS).agg(F.count("*").alias("shoppers"), *total)


def _a_shopper(rows: DataFrame, card: SourceCard) -> DataFrame:
    """Rows of a shopper with the same bucket, arm and possible arms, summed: `even` by 1, `drawn` by 1 / the arm's probability.

    Comparisons are made of these few rows instead of every decision.
    """
    known = [name for name in rows.columns if name.startswith(("segment_", "before_")) or name == "earlier"]
    drawn = 1.0 / F.nullif(F.col("chance")[F.col("promo_id")], F.lit(0.0))  # an arm without a probability weighs nothing
    after = [
        name
        for name in (*outcomes.MONEY, *measures(card.promos), "conversions", "cost_cents", "redemptions", *PREDICTED)
        if name in rows.columns
    ]
    summed = [
        F.sum(weight * F.col(name)).alias(f"{kind}_{name}") for kind, weight in (("even", F.lit(1.0)), ("drawn", drawn)) for name in after
    ]
    possible = F.map_keys(F.map_filter("chance", lambda _, p: p > 0)).alias("possible")
    keys = ("shopper_id", "bucket", "promo_id", possible, "version", "candidate", "model")
    counts = (F.count("*").alias("decisions"), F.sum(drawn).alias("drawn_weight"))
    return rows.groupBy(*keys).agg(*counts, *summed, *(F.first(name).alias(name) for name in known))


def ratio(rows: DataFrame, card: SourceCard) -> DataFrame:
    """Per bucket: arms given (`given_i`), their probabilities (`sum_i`) and products of probabilities (`sum_i_j`)."""
    chance = [F.coalesce(F.col("chance")[arm], F.lit(0.0)) for arm in card.arms]
    given = [F.count_if(F.col("promo_id") == arm).alias(f"given_{i}") for i, arm in enumerate(card.arms)]
    expected = [F.sum(p).alias(f"sum_{i}") for i, p in enumerate(chance)]
    pairs = [F.sum(p * q).alias(f"sum_{i}_{j}") for i, p in enumerate(chance) for j, q in enumerate(chance) if j >= i]
    return rows.groupBy("bucket").agg(*given, *expected, *pairs)


def _side(contrast: str, bucket: Column, arm: Column, treated: Column, *, drawn: bool) -> Column:
    fields = (F.lit(contrast).alias("contrast"), bucket.alias("bucket"), arm.alias("arm"), treated.alias("treated"))
    return F.struct(*fields, F.lit(drawn).alias("drawn"))


def _programme(bucket: str) -> Column:
    """Everybody of the bucket, whatever was given, against the holdout: shoppers were dealt to both by hash."""
    inside = F.col("bucket").isin(bucket, HOLDOUT)
    return F.when(inside, _side("programme", F.lit(bucket), F.lit(""), F.col("bucket") == bucket, drawn=False))


def _arm(promo_id: str) -> Column:
    """A promo against no_promo, among the decisions of a bucket that might have given either."""
    return F.when(_either(promo_id), _side("arm", F.col("bucket"), F.lit(promo_id), F.col("promo_id") == promo_id, drawn=True))


def _arm_of_model(promo_id: str) -> Column:
    """The same of one model's decisions, which its predictions can be held against; the model stands in place of the bucket."""
    inside = F.col("model").isNotNull() & _either(promo_id)
    return F.when(inside, _side("model_arm", F.col("model"), F.lit(promo_id), F.col("promo_id") == promo_id, drawn=True))


def _either(promo_id: str) -> Column:
    both = F.array_contains("possible", promo_id) & F.array_contains("possible", NO_PROMO) & F.col("promo_id").isin(promo_id, NO_PROMO)
    return (F.col("bucket") != HOLDOUT) & both


def _canary() -> Column:
    """A version at 50 % against the champion: shoppers of the policy were dealt to both by hash."""
    inside = F.col("version").isNotNull() & (F.col("bucket") == "policy")
    return F.when(inside, _side("canary", F.col("bucket"), F.col("version"), F.col("candidate"), drawn=False))


def _model() -> Column:
    """What a model's policy brings, against the holdout while that model was served: the same as a programme, of one model."""
    inside = F.col("model").isNotNull() & F.col("bucket").isin("policy", HOLDOUT)
    return F.when(inside, _side("model", F.lit("policy"), F.col("model"), F.col("bucket") == "policy", drawn=False))


def _segments(rows: DataFrame) -> Column:
    """Everybody, and the value of each segment column as `name value`."""
    names = [name for name in rows.columns if name.startswith("segment_")]
    told = [F.concat(F.lit(name.removeprefix("segment_") + " "), F.col(name)) for name in names]
    return F.array_compact(F.array(F.lit(EVERYBODY), *told))


def _measured(rows: DataFrame, card: SourceCard, names: tuple[str, ...]) -> DataFrame:
    """`weight`, and `after_*` and `before_*` of every metric times it. Nothing was given, and so nothing paid, before the experiment."""
    weighted = rows.withColumn("weight", F.when(F.col("side.drawn"), F.col("drawn_weight")).otherwise(F.col("decisions")))
    after, before = _after(card), _before(card)
    named = {f"after_{name}": after[name] for name in names}
    named |= {f"before_{name}": F.col("weight") * before.get(name, F.lit(0)) for name in names}
    return weighted.withColumns({name: column.cast("double") for name, column in named.items()})


def _after(card: SourceCard) -> dict[str, Column]:
    def total(name: str) -> Column:
        return F.when(F.col("side.drawn"), F.col(f"drawn_{name}")).otherwise(F.col(f"even_{name}"))

    found = {name: total(name) for name in ("margin_cents", "cost_cents", "redemptions", "conversions", *PREDICTED)}
    found["profit_cents"] = found["margin_cents"] - found["cost_cents"]
    if not card.covariates:
        found |= {"sales_cents": total("sales_cents"), PROMOTED: _promoted(card, total)}
        found["other_sales_cents"] = found["sales_cents"] - found[PROMOTED]
    return found


def _before(card: SourceCard) -> dict[str, Column]:
    if card.covariates:
        return {name: F.col("earlier") for name in TRIAL}
    found = {name: F.col(f"before_{name}") for name in ("margin_cents", "sales_cents", "conversions")}
    found |= {"profit_cents": found["margin_cents"], "cost_cents": F.lit(0), "redemptions": F.lit(0)}
    found[PROMOTED] = _promoted(card, lambda name: F.col(f"before_{name}"))
    found["other_sales_cents"] = found["sales_cents"] - found[PROMOTED]
    return found


def _promoted(card: SourceCard, total: Callable[[str], Column]) -> Column:
    """Sales in the category of the promo that is compared; where none is, in every promo's."""
    found: Column = F.lit(0)
    for name in measures(card.promos):
        found = found + total(name)
    for promo in card.promos:
        (own,) = measures((promo,))
        found = F.when(F.col("arm") == promo.promo_id, total(own)).otherwise(found)
    return found
