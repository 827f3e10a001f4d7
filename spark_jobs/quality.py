"""Rows -> rows with the first reason to refuse them, derived from the contract plus the rules that span columns."""

from functools import reduce
from operator import add, or_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from promolift.contracts.promos import NO_PROMO, SourceCard
from promolift.contracts.tables import Column as ContractColumn
from promolift.contracts.tables import Table

EARLIEST = "2000-01-01"
TOLERANCE = 1e-6
"""Logged propensities are float64 and sum to 1 up to rounding."""


def _limits(column: ContractColumn) -> list[tuple[Column, str]]:
    value, name, broken = F.col(column.name), column.name, []
    if not column.nullable:
        broken.append((value.isNull(), f"{name} is missing"))
    if column.minimum is not None and not column.dtype.startswith("list"):
        broken.append((value < column.minimum, f"{name} is below {column.minimum:g}"))
    if column.maximum is not None and not column.dtype.startswith("list"):
        broken.append((value > column.maximum, f"{name} is above {column.maximum:g}"))
    if column.allowed is not None:
        broken.append((~value.isin(*column.allowed), f"{name} is not one of the allowed values"))
    if column.dtype == "timestamp":
        broken.append((value < F.lit(EARLIEST).cast("timestamp"), f"{name} is before {EARLIEST}"))
    return broken


def _assignments(card: SourceCard) -> list[tuple[Column, str]]:
    arms = F.array(*(F.lit(a) for a in card.arms))
    given = F.get("propensities", F.array_position(arms, F.col("promo_id")).cast("int") - 1)
    each = [F.get("propensities", F.lit(position)) for position in range(len(card.arms))]
    wrong = reduce(or_, (p.isNull() | F.isnan(p) | (p < 0) | (p > 1) for p in each))
    total = reduce(add, each)
    return [
        (~F.col("promo_id").isin(*card.arms), "promo_id is not an arm of this source"),
        (F.size("propensities") != len(card.arms), "propensities do not match the arms"),
        (wrong, "a propensity is missing or outside 0 to 1"),
        (F.abs(total - 1) > TOLERANCE, "propensities do not sum to 1"),
        (given <= 0, "the propensity of the arm given is 0"),
    ]


def _rules(table: Table, card: SourceCard) -> list[tuple[Column, str]]:
    names = set(table.names)
    rules = [rule for column in table.columns for rule in _limits(column)]
    if {"event_time", "arrived_at"} <= names:
        rules.append((F.col("arrived_at") < F.col("event_time"), "it arrived before it happened"))
    if table.name == "assignments":
        rules += _assignments(card)
    if table.name == "redemptions":
        rules.append((~F.col("promo_id").isin(*[a for a in card.arms if a != NO_PROMO]), "promo_id is not a promo of this source"))
    return rules


def with_reason(rows: DataFrame, table: Table, card: SourceCard, extra: tuple[tuple[Column, str], ...] = ()) -> DataFrame:
    """`rows` with a column `reason`: the first broken rule in words, or null for a good row."""
    reason = F.lit(None).cast("string")
    for broken, words in reversed([*extra, *_rules(table, card)]):
        reason = F.when(broken, F.lit(words)).otherwise(reason)
    return rows.withColumn("reason", reason)
