"""Silver purchase lines -> baskets with one column a measure and category, as features and labels need them."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from promolift.contracts.promos import CATEGORIES


def measure_name(measure: str, category: str | None) -> str:
    """Column of a measure, of all lines or of one category's."""
    return measure if category is None else f"{measure}_{category}"


def build(purchases: DataFrame) -> DataFrame:
    """One row a (shopper, basket). `time` and `arrived` are those of its last line, so a basket is past only when all of it is past.

    `baskets*` are 0 or 1, money is in cents.
    """
    is_in = {c.name: F.col("category") == c.name for c in CATEGORIES}
    sums = [F.sum(name).alias(name) for name in ("sales_cents", "discount_cents", "margin_cents")]
    sales = [F.sum(F.when(inside, F.col("sales_cents")).otherwise(0)).alias(measure_name("sales_cents", n)) for n, inside in is_in.items()]
    held = [F.max(inside.cast("int")).alias(measure_name("baskets", n)) for n, inside in is_in.items()]
    grouped = purchases.groupBy("shopper_id", "basket_id")
    times = [F.max(name).alias(alias) for name, alias in (("event_time", "time"), ("arrived_at", "arrived"))]
    return grouped.agg(*times, F.lit(1).alias("baskets"), *sums, *sales, *held)
