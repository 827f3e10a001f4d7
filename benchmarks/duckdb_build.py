"""Landing files -> the gold examples by DuckDB: the same joins and windows as the Spark jobs, as a yardstick and a cross-check."""

from pathlib import Path

import duckdb

from promolift.contracts.artifacts import read_source_card
from promolift.contracts.features import ATTRIBUTES, RECENCIES, WINDOWED, Recency, Windowed
from promolift.contracts.promos import CATEGORIES, LABEL_GRACE_DAYS, NO_PROMO, OUTCOME_WINDOW_DAYS
from promolift.contracts.tables import Dtype, table

SQL_TYPES: dict[Dtype, str] = {"string": "varchar", "int64": "bigint", "timestamp": "timestamp", "list<float64>": "double[]"}

LONGEST_DAYS = max(feature.window_days for feature in (*WINDOWED, *RECENCIES))


def _inside(days: int) -> str:
    return f"filter (h.t >= m.t - interval '{days} days')"


def _measure(measure: str, category: str | None) -> str:
    return measure if category is None else f"{measure}_{category}"


def _windowed(feature: Windowed) -> str:
    total = f"coalesce(sum({_measure(feature.measure, feature.category)}) {_inside(feature.window_days)}, 0)"
    if feature.per is None:
        return f"{total}::float as {feature.name}"
    whole = f"coalesce(sum({feature.per}) {_inside(feature.window_days)}, 0)"
    return f"(case when {whole} = 0 then {feature.default} else {total} / {whole} end)::float as {feature.name}"


def _recency(feature: Recency) -> str:
    last = f"max(case when {_measure('baskets', feature.category)} > 0 then h.t end) {_inside(feature.window_days)}"
    return f"coalesce(epoch(m.t - {last}) / 86400, {feature.default})::float as {feature.name}"


def _landed(name: str, landing: Path) -> str:
    """A view of a landed table, empty when the source has none; times without a zone, since only an extension adds days to the others."""
    columns = table("landing", name).columns
    if not list((landing / name).glob("*.parquet")):
        return f"create view landed_{name} as select {', '.join(f'null::{SQL_TYPES[c.dtype]} as {c.name}' for c in columns)} where false"
    chosen = ", ".join(f"{c.name}::{SQL_TYPES[c.dtype]} as {c.name}" for c in columns)
    return f"create view landed_{name} as select {chosen} from read_parquet('{landing / name}/*.parquet')"


def _silver(connection: duckdb.DuckDBPyConnection, landing: Path) -> None:
    whens = " ".join(
        f"when department in ({', '.join(repr(d) for d in c.departments)}) then '{c.name}'" for c in CATEGORIES if c.departments
    )
    rates = " ".join(f"when '{c.name}' then {round(c.margin_rate * 100)}" for c in CATEGORIES)
    for name in ("products", "shoppers", "purchases", "visits", "assignments", "redemptions"):
        connection.execute(_landed(name, landing))
    for name, key in (("visits", "event_id"), ("redemptions", "event_id"), ("assignments", "exposure_id")):
        connection.execute(f"create table {name} as select distinct on ({key}) * from landed_{name} order by {key}, arrived_at")
    connection.execute(f"""
        create table purchases as
        with line as (select distinct on (event_id) * from landed_purchases order by event_id, arrived_at),
             product as (select product_id, case {whens} else 'other' end as category from landed_products)
        select line.*, category, (sales_cents * case category {rates} end + 50) // 100 as margin_cents
        from line join product using (product_id)""")


def _pivot() -> str:
    sales = [f"coalesce(sum(sales_cents) filter (category = '{c.name}'), 0) as sales_cents_{c.name}" for c in CATEGORIES]
    baskets = [f"(count(*) filter (category = '{c.name}') > 0)::int as baskets_{c.name}" for c in CATEGORIES]
    return ", ".join([*sales, *baskets])


def _features(connection: duckdb.DuckDBPyConnection, as_of: str) -> None:
    columns = ", ".join([*map(_windowed, WINDOWED), *map(_recency, RECENCIES)])
    connection.execute(f"""
        create table happened as
        select shopper_id, max(event_time) as t, max(arrived_at) as arrived, 1 as baskets, sum(sales_cents) as sales_cents,
               sum(discount_cents) as discount_cents, {_pivot()}
        from purchases group by shopper_id, basket_id
        union all by name select shopper_id, moment as t, arrived_at as arrived, 1 as promos from assignments where promo_id <> '{NO_PROMO}'
        union all by name select shopper_id, event_time as t, arrived_at as arrived, 1 as redemptions from redemptions""")
    connection.execute(f"""
        create table moments as
        select shopper_id, moment as t from assignments
        union select shopper_id, timestamp '{as_of}' as t from (
            select shopper_id from purchases union select shopper_id from assignments union select shopper_id from landed_shoppers)""")
    attributes = ", ".join(f"coalesce(s.{a.name}, '{a.default}') as {a.name}" for a in ATTRIBUTES)
    connection.execute(f"""
        create table features as
        with windowed as (
            select m.shopper_id, m.t as moment, {columns} from moments m left join happened h
            on h.shopper_id = m.shopper_id and h.t < m.t and h.arrived < m.t and h.t >= m.t - interval '{LONGEST_DAYS} days'
            group by m.shopper_id, m.t)
        select w.*, {attributes} from windowed w left join landed_shoppers s using (shopper_id)""")


def _examples(connection: duckdb.DuckDBPyConnection, as_of: str, contact: str, out: Path) -> None:
    window = f"interval '{OUTCOME_WINDOW_DAYS} days'"
    closed = f"interval '{OUTCOME_WINDOW_DAYS + LABEL_GRACE_DAYS} days'"
    connection.execute(f"""
        copy (
        with a as (select *, {contact} as contact from assignments where moment + {closed} <= timestamp '{as_of}'),
             bought as (
                select exposure_id, sum(sales_cents)::bigint as spend_cents, sum(margin_cents)::bigint as margin_cents, true as converted
                from a join purchases p on p.shopper_id = a.shopper_id and p.event_time >= a.moment and p.event_time < a.moment + {window}
                group by 1),
             seen as (
                select distinct exposure_id, true as seen
                from a join visits v on v.shopper_id = a.shopper_id and v.event_time >= a.moment and v.event_time < a.moment + {window}),
             paid as (select exposure_id, sum(cost_cents)::bigint as paid_cents from redemptions group by 1)
        select a.exposure_id, a.promo_id, f.*, coalesce(converted or seen, converted, seen, false) as visited,
               coalesce(converted, false) as converted, coalesce(spend_cents, 0) as spend_cents,
               coalesce(margin_cents, 0) as margin_cents, coalesce(paid_cents, 0) + contact as cost_cents
        from a join features f on f.shopper_id = a.shopper_id and f.moment = a.moment
        left join bought using (exposure_id) left join seen using (exposure_id) left join paid using (exposure_id)
        ) to '{out}' (format parquet)""")


def build(lake: Path, out: Path, threads: int = 2) -> int:
    """Build the examples of `lake`'s landing files into the Parquet file `out`; rows written."""
    card = read_source_card(lake)
    as_of = card.as_of.removesuffix("Z").replace("T", " ")
    contact = "case promo_id " + " ".join(f"when '{p.promo_id}' then {p.contact_cents}" for p in card.promos) + " else 0 end"
    connection = duckdb.connect(config={"threads": threads})
    connection.execute("set enable_progress_bar = false")
    _silver(connection, lake / "landing")
    _features(connection, as_of)
    _examples(connection, as_of, contact, out)
    count = connection.execute(f"select count(*) from read_parquet('{out}')").fetchone()
    return int(count[0]) if count else 0
