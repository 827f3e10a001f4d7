"""Table gold/lift -> what the page of the experiment shows: comparisons by experiment, each with its outcomes and its segments."""

from itertools import groupby
from typing import Any

from promolift.contracts.tables import EVERYBODY, LIFT
from promolift.delta_rows import Row, read_rows
from promolift.storage import Place, exists

COMMAND = "python -m spark_jobs measure_lift --lake RUN/lake"
EXPERIMENTS = {
    "decisions": "Decisions of the service, as logged",
    "assignments": "The source's experiment, on which models are trained",
}
CONTRASTS = {
    "programme": "Everybody in a bucket, against the holdout",
    "arm": "Each promo, against no promo where either might have been given",
    "canary": "A canary at 50 %, against the champion",
    "model": "Each model's policy, against the holdout while it was served",
    "model_arm": "Each promo by the model that decided, against no promo where either might have been given",
}
OUTCOMES = {
    "profit_cents": "profit", "predicted_profit_cents": "profit that was predicted",
    "sales_cents": "sales", "promoted_sales_cents": "sales promoted", "other_sales_cents": "sales elsewhere",
    "margin_cents": "margin", "cost_cents": "promo cost", "predicted_cost_cents": "promo cost that was predicted",
    "redemptions": "redemptions", "conversions": "purchases",
}  # fmt: skip
"""In the order of the page, with their names there."""
BEYOND_CHANCE = 0.001
"""P-value of the sample ratio below which nothing that is measured may be believed."""


def lift_of(lake: Place) -> dict[str, Any]:
    """The experiments in order; none where nothing was measured."""
    if not exists(f"{lake}/{LIFT.path}/_delta_log"):
        return {"experiments": [], "command": COMMAND}
    rows = read_rows(f"{lake}/{LIFT.path}", LIFT.names, f"ORDER BY {', '.join(LIFT.key)}")
    found = [_experiment(name, [row for row in rows if row["experiment"] == name]) for name in EXPERIMENTS]
    return {"experiments": [one for one in found if one["contrasts"]], "command": COMMAND, "outcomes": OUTCOMES}


def _experiment(name: str, rows: list[Row]) -> dict[str, Any]:
    contrasts = []
    for kind, text in CONTRASTS.items():
        of_kind = [row for row in rows if row["contrast"] == kind]
        lines = [_line(list(part)) for _, part in groupby(of_kind, key=lambda row: (row["bucket"], row["arm"]))]
        if lines:
            contrasts.append({"kind": kind, "text": text, "lines": lines})
    odd = {row["bucket"]: row["srm_p"] for row in rows if row["srm_p"] is not None and row["srm_p"] < BEYOND_CHANCE}
    return {"name": name, "text": EXPERIMENTS[name], "contrasts": contrasts, "odd": odd}


def _line(rows: list[Row]) -> dict[str, Any]:
    """One comparison: adjusted outcomes, the plain profit beside, and the segments' profit."""
    whole = [row for row in rows if row["segment"] == EVERYBODY]
    adjusted = {row["metric"]: row for row in whole if row["method"] == "cuped"}
    (plain,) = (row for row in whole if (row["method"], row["metric"]) == ("plain", "profit_cents"))
    profit = adjusted["profit_cents"]
    segments = [row for row in rows if row["segment"] != EVERYBODY and (row["method"], row["metric"]) == ("cuped", "profit_cents")]
    return {
        **{name: profit[name] for name in ("bucket", "arm", "decisions", "control_decisions", "shoppers", "srm_p", "look", "looks")},
        "outcomes": adjusted, "plain": plain, "segments": segments, "answer": _answer(profit),
        "saved": 1.0 - (profit["error"] / plain["error"]) ** 2 if plain["error"] > 0 else 0.0,
    }  # fmt: skip


def _answer(profit: Row) -> str:
    """What the interval of the profit says."""
    if profit["low"] > 0:
        return "more"
    return "less" if profit["high"] < 0 else "not told apart"
