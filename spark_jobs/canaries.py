"""Trail and decision log -> which decisions count for the value of a canary, and who served them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from promolift.contracts.tables import PROMOTIONS
from promolift.promotion.graph_change import window_of
from promolift.promotion.guardrails import Value
from promolift.promotion.stages import BUCKETS
from promolift.settings import load
from spark_jobs.lake import Lake


@dataclass(frozen=True)
class Canaries:
    """Decisions made while a version was at 50 % (`decision_id`, `version`, `candidate`), and each version's look."""

    served: DataFrame
    looks: dict[str, int]


def canaries_of(lake: Lake, decisions: DataFrame, value: Value) -> Canaries | None:
    """Canaries at 50 % up to the look that each has reached; None without any."""
    if not lake.exists(PROMOTIONS):
        return None
    rows = decisions.where("bucket = 'policy'").select("decision_id", "decided", rollout(load().hash_salt).alias("rollout"))
    looks: dict[str, int] = {}
    parts: list[DataFrame] = []
    for version, model, begin, end in _halves(lake.read(PROMOTIONS).orderBy("seq").collect()):
        window = window_of(model, "canary_50")
        if window is None:
            continue
        inside = rows.where((F.col("decided") >= F.lit(begin)) & (F.lit(end is None) | (F.col("decided") < F.lit(end))))
        look = min(value.looks, inside.count() * value.looks // value.decisions)
        looks[version] = look
        most = look * value.decisions // value.looks
        ranked = inside.withColumn("place", F.row_number().over(Window.orderBy("decided", "decision_id"))).where(F.col("place") <= most)
        candidate = F.col("rollout").between(window.first, window.end - 1)
        parts.append(ranked.select("decision_id", F.lit(version).alias("version"), candidate.alias("candidate")))
    if not parts:
        return None
    every = parts[0]
    for part in parts[1:]:
        every = every.union(part)
    return Canaries(every, looks)


def rollout(salt: str) -> Column:
    """`promolift.policy.exploration.rollout_bucket` of `shopper_id`, which is not called for every row: its 53 bits, in Spark's words."""
    who = F.concat(F.length("shopper_id").cast("string"), F.lit(":"), F.col("shopper_id"))
    digest = F.sha2(F.concat(F.lit(f"{len(salt)}:{salt}7:rollout"), who), 256)
    bits = F.shiftright(F.conv(F.substring(digest, 1, 14), 16, 10).cast("long"), 3)
    return F.floor(bits.cast("double") * F.lit(2.0**-53) * BUCKETS).cast("int")


def _halves(entries: list[Any]) -> Iterator[tuple[str, str, Any, Any]]:
    """Version, model, begin and end (None: it still is) of each version's latest time at 50 %."""
    found: dict[str, tuple[str, Any, Any]] = {}
    for entry in entries:
        version = entry["version"]
        if entry["stage_to"] == "canary_50" and entry["stage_from"] != "canary_50":
            found[version] = (entry["model"], entry["at"], None)
        elif version in found and entry["stage_to"] != "canary_50" and found[version][2] is None:
            found[version] = (*found[version][:2], entry["at"])
    return ((version, *times) for version, times in found.items())
