"""Trail and decision log -> which decisions count for the value of a canary, and who served them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from promolift.contracts.tables import PROMOTIONS
from promolift.promotion.graph_change import Window as Shoppers
from promolift.promotion.graph_change import window_of
from promolift.promotion.guardrails import Value
from promolift.promotion.stages import BUCKETS
from promolift.settings import load
from spark_jobs.build_examples import is_closed
from spark_jobs.lake import Lake


@dataclass(frozen=True)
class Canaries:
    """Decisions made while a version was at 50 % (`decision_id`, `version`, `candidate`), and each version's look."""

    served: DataFrame
    looks: dict[str, int]


def canaries_of(lake: Lake, decisions: DataFrame, value: Value) -> Canaries | None:
    """Canaries at 50 % up to the look that each has reached; None without any. `decisions`: the whole log, see `outcomes.of_log`.

    A look is reached once the decisions up to it have all closed. Were they counted as they close, one that closes late would push another
    one out of a look that was taken.
    """
    if not lake.exists(PROMOTIONS):
        return None
    known = ("decision_id", "decided", is_closed(lake.card.as_of).alias("closed"), rollout(load().hash_salt).alias("rollout"))
    rows = decisions.where("bucket = 'policy'").select(*known)
    looks: dict[str, int] = {}
    parts: list[DataFrame] = []
    for version, window, begin, end in _halves(lake.read(PROMOTIONS).orderBy("seq").collect()):
        inside = rows.where((F.col("decided") >= F.lit(begin)) & (F.lit(end is None) | (F.col("decided") < F.lit(end))))
        in_order = ("decided", "decision_id")
        first = inside.orderBy(*in_order).limit(value.decisions).withColumn("place", F.row_number().over(Window.orderBy(*in_order)))
        looks[version] = _reached(first) * value.looks // value.decisions
        cut = first.where(F.col("place") <= looks[version] * value.decisions // value.looks)
        candidate = F.col("rollout").between(window.first, window.end - 1)
        parts.append(cut.select("decision_id", F.lit(version).alias("version"), candidate.alias("candidate")))
    return Canaries(reduce(DataFrame.union, parts), looks) if parts else None


def _reached(first: DataFrame) -> int:
    """How many of the first decisions closed before one that has not."""
    (found,) = first.agg(F.min(F.when(~F.col("closed"), F.col("place"))).alias("open"), F.count("*").alias("all")).collect()
    return int(found["all"] if found["open"] is None else found["open"] - 1)


def rollout(salt: str) -> Column:
    """`promolift.policy.exploration.rollout_bucket` of `shopper_id`, which is not called for every row: its 53 bits, in Spark's words."""
    who = F.concat(F.length("shopper_id").cast("string"), F.lit(":"), F.col("shopper_id"))
    digest = F.sha2(F.concat(F.lit(f"{len(salt)}:{salt}7:rollout"), who), 256)
    bits = F.shiftright(F.conv(F.substring(digest, 1, 14), 16, 10).cast("long"), 3)
    return F.floor(bits.cast("double") * F.lit(2.0**-53) * BUCKETS).cast("int")


def _halves(entries: list[Any]) -> Iterator[tuple[str, Shoppers, Any, Any]]:
    """Version, its shoppers, begin and end (None: it still is) of each version's latest time at 50 %."""
    found: dict[str, tuple[str, Any, Any]] = {}
    for entry in entries:
        version = entry["version"]
        if entry["stage_to"] == "canary_50" and entry["stage_from"] != "canary_50":
            found[version] = (entry["model"], entry["at"], None)
        elif version in found and entry["stage_to"] != "canary_50" and found[version][2] is None:
            found[version] = (*found[version][:2], entry["at"])
    for version, (model, begin, end) in found.items():
        if window := window_of(model, "canary_50"):
            yield version, window, begin, end
