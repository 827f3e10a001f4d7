"""Silver events, gold exposures and the decision log -> gold/lift: what the promos brought, by bucket, promo, canary and segment.

The holdout says what the programme brings and each model's policy, randomised arms what each promo brings, a canary at 50 % what a new
model brings; beside stands what the models had predicted. Outcome windows have closed. A canary is looked at group-sequentially, over the
first decisions of the log up to the look that was reached, so that asking once more between two looks changes nothing
(`promolift.promotion.group_sequential`).
"""

import hashlib
import inspect
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from promolift.contracts.features import SEGMENT_ATTRIBUTES
from promolift.contracts.promos import SourceCard
from promolift.contracts.tables import DECISIONS, EVERYBODY, LIFT, LOGGED, table
from promolift.promotion import group_sequential, guardrails
from promolift.promotion.group_sequential import bounds
from promolift.promotion.guardrails import Value, read_limits
from promolift.settings import load
from promolift.uplift import lift
from promolift.uplift.audit import mismatch
from promolift.uplift.clusters import Floats
from promolift.uplift.distributions import normal_tail
from promolift.uplift.lift import UNITS, Side, lifts
from promolift.uplift.segments import holm
from spark_jobs import outcomes
from spark_jobs.build_examples import closed
from spark_jobs.canaries import canaries_of
from spark_jobs.contrasts import HOLDOUT, metrics_of, ratio, sums
from spark_jobs.lake import ABSENT, Counters, Lake, conform, struct_type
from spark_jobs.progress import say

PLAIN_Z = 1.959964
QUARTERS = 4
Row = dict[str, Any]


def inputs() -> str:
    """Fingerprint of what decides beside tables and jobs: guardrails' plan, estimators and salt."""
    texts = [guardrails.FILE.read_text(encoding="utf-8"), *(inspect.getsource(module) for module in (lift, group_sequential))]
    return hashlib.sha256("".join([*texts, load().hash_salt]).encode()).hexdigest()[:8]


def run(lake: Lake) -> Counters:
    """Replace gold/lift."""
    found = {"assignments": _measured(outcomes.of_trials(lake), lake.card, "assignments")} if lake.card.covariates else _of_events(lake)
    rows = [row for part in found.values() for row in part]
    lake.overwrite(LIFT, conform(lake.spark.createDataFrame(rows, struct_type(LIFT)), LIFT))
    counters: Counters = {name: len(part) for name, part in found.items()}
    say("measure_lift", LIFT.path, counters)
    return counters


def _of_events(lake: Lake) -> dict[str, list[Row]]:
    bought = outcomes.bought_in(lake).cache()  # making baskets takes longest, and both experiments look at them twice
    rows = _measured(_described(lake, outcomes.of_experiment(lake), bought), lake.card, "assignments")
    return {"assignments": rows, "decisions": _log(lake, bought)}


def _log(lake: Lake, bought: DataFrame) -> list[Row]:
    """Of the decision log; nothing where there is none yet."""
    for log in LOGGED:
        lake.reads[log.path] = lake.version(log) if lake.exists(log) else ABSENT
    if not lake.exists(DECISIONS):
        return []
    value, decisions = read_limits().value, outcomes.of_log(lake)
    found = canaries_of(lake, decisions, value)
    ripe = _described(lake, closed(decisions, lake.card.as_of), bought)
    rows = _measured(ripe, lake.card, "decisions", found.served if found else None)
    return [_looked(row, found.looks, value) if found and row["contrast"] == "canary" else row for row in rows]


def _described(lake: Lake, decisions: DataFrame, bought: DataFrame) -> DataFrame:
    """With outcomes, and with the segments that are attributes of the shopper."""
    rows = outcomes.with_events(decisions, bought, lake.card)
    told = [F.col(name).alias(f"segment_{name}") for name in SEGMENT_ATTRIBUTES]
    return rows.join(lake.read(table("silver", "shoppers")).select("shopper_id", *told), on="shopper_id", how="left")


def _with_quarters(rows: DataFrame) -> DataFrame:
    """With the quarter of earlier sales as one more segment."""
    cuts = rows.approxQuantile("before_sales_cents", [i / QUARTERS for i in range(1, QUARTERS)], 0.001)
    quarter = sum((F.when(F.col("before_sales_cents") > cut, 1).otherwise(0) for cut in cuts), F.lit(1))
    return rows.withColumn("segment_earlier_sales", F.concat(F.lit("quarter "), quarter.cast("string")))


def _measured(rows: DataFrame, card: SourceCard, experiment: str, canaries: DataFrame | None = None) -> list[Row]:
    kept = rows.cache()  # three passes are made over it
    rows = kept if card.covariates else _with_quarters(kept)
    found = {str(row["bucket"]): row.asDict() for row in ratio(rows, card).collect()}
    buckets = sorted(set(found) - {HOLDOUT}) if HOLDOUT in found else []
    summed = sums(rows, card, buckets, canaries).collect()
    kept.unpersist()
    odds = {bucket: _mismatch(one, len(card.arms)) for bucket, one in found.items()}
    return list(_estimates(summed, card, experiment, odds))


def _estimates(summed: list[Any], card: SourceCard, experiment: str, odds: Mapping[str, float | None]) -> Iterator[Row]:
    """Rows of gold/lift, a contrast at a time."""
    names = metrics_of(card, logged=experiment == "decisions")
    order = sorted(summed, key=lambda row: (row["contrast"], row["bucket"], row["arm"], row["segment"]))
    for contrast, group in groupby(order, key=lambda row: (row["contrast"], row["bucket"], row["arm"])):
        found: list[Row] = []
        for segment, part in groupby(group, key=lambda row: row["segment"]):
            rows = list(part)
            treated, control = (_side([row for row in rows if bool(row["treated"]) is side], names) for side in (True, False))
            fixed = {"experiment": experiment, "segment": segment, "srm_p": odds.get(contrast[1])}
            fixed |= dict(zip(("contrast", "bucket", "arm"), contrast, strict=True))
            found += [fixed | row for row in _lifts(treated, control, names)]
        yield from _with_harm(found)


def _side(rows: list[Any], names: tuple[str, ...]) -> Side:
    """The sums of one side, in its units' places."""
    unit = [row["unit"] for row in rows]
    weight, after, before = np.zeros(UNITS), np.zeros((UNITS, len(names))), np.zeros((UNITS, len(names)))
    if rows:
        weight[unit] = [row["weight"] for row in rows]
        after[unit] = [[row[f"after_{name}"] for name in names] for row in rows]
        before[unit] = [[row[f"before_{name}"] for name in names] for row in rows]
    return Side(weight, after, before, sum(row["decisions"] for row in rows), sum(row["shoppers"] for row in rows))


def _lifts(treated: Side, control: Side, names: tuple[str, ...]) -> Iterator[Row]:
    counts = {
        "decisions": treated.decisions, "control_decisions": control.decisions,
        "shoppers": treated.shoppers, "control_shoppers": control.shoppers,
    }  # fmt: skip
    for found in lifts(treated, control) or ():
        for i, name in enumerate(names):
            effect, error = float(found.effect[i]), float(found.error[i])
            yield {
                **counts, "metric": name, "method": found.method, "effect": effect, "error": error, "theta": float(found.theta[i]),
                "control_mean": float(control.mean[i]), **_interval(effect, error, PLAIN_Z), "p_harm": None, "look": None, "looks": None,
            }  # fmt: skip


def _interval(effect: float, error: float, z: float) -> Row:
    return {"z": z, "low": effect - z * error, "high": effect + z * error}


def _with_harm(found: list[Row]) -> list[Row]:
    """The rows of one contrast; each segment's adjusted profit gets the p-value of a loss, adjusted for all of them."""
    judged = [r for r in found if r["segment"] != EVERYBODY and (r["metric"], r["method"]) == ("profit_cents", "cuped") and r["error"] > 0]
    p = holm(np.array([normal_tail(-row["effect"] / row["error"]) for row in judged]))
    for row, adjusted in zip(judged, p, strict=True):
        row["p_harm"] = float(adjusted)
    return found


def _mismatch(row: Mapping[str, Any], arms: int) -> float | None:
    """P-value of the arms given in one bucket against their probabilities."""
    gap = np.array([row[f"given_{i}"] - row[f"sum_{i}"] for i in range(arms)])
    expected = np.array([row[f"sum_{i}"] for i in range(arms)])
    products: Floats = np.array([[row[f"sum_{min(i, j)}_{max(i, j)}"] for j in range(arms)] for i in range(arms)])
    return mismatch(gap, np.diag(expected) - products)


def _looked(row: Row, looks: Mapping[str, int], value: Value) -> Row:
    """The row of a canary with the wider interval of its look."""
    look = looks[row["arm"]]
    z = bounds([(i + 1) / value.looks for i in range(look)], value.alpha)[-1]
    return {**row, **_interval(row["effect"], row["error"], z), "look": look, "looks": value.looks}
