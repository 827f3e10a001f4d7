"""A small landing folder made by hand, and a brute-force reference of every feature."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from promolift.contracts.artifacts import write_json
from promolift.contracts.features import ATTRIBUTES, RECENCIES, WINDOWED, Windowed
from promolift.contracts.promos import NO_PROMO, Promo, SourceCard, category_of
from promolift.contracts.tables import LANDING

ARROW = {
    "string": pa.string(),
    "int64": pa.int64(),
    "timestamp": pa.timestamp("us", "UTC"),
    "list<float64>": pa.list_(pa.float64()),
}
MOMENT = datetime(2017, 6, 5, tzinfo=UTC)
AS_OF = datetime(2017, 7, 1, tzinfo=UTC)
Row = dict[str, Any]
PROMOS = (Promo("deli_30", "deli", 0.3, 500), Promo("meat_20", "meat", 0.2, 400, contact_cents=3))
CARD = SourceCard("small", "nothing", "all", "profit", "converted", 50.0, AS_OF.isoformat(), PROMOS, has_truth=False)
PRODUCTS = [{"product_id": "1", "department": "DELI"}, {"product_id": "2", "department": "MEAT"}, {"product_id": "3", "department": None}]


def purchase(event: str, shopper: str, time: datetime, product: str = "1", cents: int = 1000, **more: Any) -> Row:
    row = {"event_id": event, "shopper_id": shopper, "store_id": "s", "basket_id": event, "product_id": product, "quantity": 1}
    return {**row, "sales_cents": cents, "discount_cents": 50, "event_time": time, "arrived_at": time + timedelta(hours=1), **more}


def assignment(exposure: str, shopper: str, promo: str = "deli_30", moment: datetime = MOMENT, **more: Any) -> Row:
    row = {"exposure_id": exposure, "shopper_id": shopper, "moment": moment, "bucket": "uniform", "promo_id": promo}
    return {**row, "propensities": [0.5, 0.25, 0.25], "arrived_at": moment, **more}


def redemption(event: str, exposure: str, shopper: str, time: datetime, cents: int = 300, promo: str = "deli_30", **more: Any) -> Row:
    row = {"event_id": event, "exposure_id": exposure, "shopper_id": shopper, "promo_id": promo, "cost_cents": cents}
    return {**row, "event_time": time, "arrived_at": time, **more}


def shopper(name: str, **attributes: str | None) -> Row:
    return {"shopper_id": name, **{a.name: attributes.get(a.name) for a in ATTRIBUTES}}


def write(lake: Path, tables: Mapping[str, Iterable[Row]], file: str = "part-0") -> Path:
    """Land the rows as one file a table; tables not named are left out, except that mandatory reference data gets a default."""
    for table in LANDING:
        rows = list(tables.get(table.name, ()))
        if not rows:
            continue
        folder = lake / table.path
        folder.mkdir(parents=True, exist_ok=True)
        columns = {c.name: pa.array([r[c.name] for r in rows], type=ARROW[c.dtype]) for c in table.columns}
        pq.write_table(pa.table(columns), folder / f"{file}.parquet")
    write_json(lake / "landing" / "source.json", CARD)
    return lake


def world(**changes: list[Row]) -> dict[str, list[Row]]:
    """Two shoppers with one decision each; `changes` replace whole tables."""
    before = MOMENT - timedelta(days=10)
    tables = {
        "products": PRODUCTS,
        "shoppers": [shopper("a", age_band="45-54"), shopper("b")],
        "purchases": [
            purchase("p1", "a", before),
            purchase("p2", "a", MOMENT + timedelta(days=1), product="2", cents=2000),
            purchase("p3", "b", before, product="3"),
        ],
        "assignments": [assignment("e1", "a"), assignment("e2", "b", promo=NO_PROMO)],
        "redemptions": [redemption("r1", "e1", "a", MOMENT + timedelta(days=1))],
    }
    return {**tables, **changes}


def _value(feature: Windowed, events: list[Row], moment: datetime, measure: str, category: str | None) -> float:
    window = [e for e in events if moment - timedelta(days=feature.window_days) <= e["time"] < moment]
    if measure == "baskets":
        return float(len({e["basket"] for e in window if "basket" in e and (category is None or category in e["categories"])}))
    if measure in ("promos", "redemptions"):
        return float(sum(e["kind"] == measure for e in window))
    return float(sum(line[measure] for e in window for line in e.get("lines", ()) if category in (None, line["category"])))


def reference(tables: Mapping[str, list[Row]], who: str, moment: datetime) -> dict[str, float]:
    """Every numeric feature by the words of the contract, without Spark: the last line of a basket is the basket's time and arrival."""
    departments = {p["product_id"]: p["department"] for p in tables["products"]}
    baskets: dict[str, Row] = {}
    for line in (p for p in tables["purchases"] if p["shopper_id"] == who):
        basket = baskets.setdefault(
            line["basket_id"],
            {"kind": "basket", "basket": line["basket_id"], "time": line["event_time"], "arrived": line["arrived_at"], "lines": []},
        )
        basket["time"], basket["arrived"] = max(basket["time"], line["event_time"]), max(basket["arrived"], line["arrived_at"])
        basket["lines"].append({**line, "category": category_of(departments[line["product_id"]])})
    for basket in baskets.values():
        basket["categories"] = {line["category"] for line in basket["lines"]}
    given = [a for a in tables["assignments"] if a["shopper_id"] == who and a["promo_id"] != NO_PROMO]
    events = [*baskets.values(), *({"kind": "promos", "time": a["moment"], "arrived": a["arrived_at"]} for a in given)]
    redeemed = [r for r in tables["redemptions"] if r["shopper_id"] == who]
    events += [{"kind": "redemptions", "time": r["event_time"], "arrived": r["arrived_at"]} for r in redeemed]
    events = [e for e in events if e["arrived"] < moment]
    found: dict[str, float] = {}
    for f in WINDOWED:
        total = _value(f, events, moment, f.measure, f.category)
        whole = _value(f, events, moment, f.per, None) if f.per else 1.0
        found[f.name] = (total / whole if whole else f.default) if f.per else total
    for r in RECENCIES:
        first = moment - timedelta(days=r.window_days)
        times = [
            b["time"]
            for b in events
            if b["kind"] == "basket" and first <= b["time"] < moment and (r.category is None or r.category in b["categories"])
        ]
        found[r.name] = (moment - max(times)) / timedelta(days=1) if times else r.default
    return found
