"""Landing files -> bronze (as received), silver (deduplicated, conformed) and quarantine: a bad row keeps its reason and is counted."""

from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from itertools import groupby

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from promolift.contracts.promos import CATEGORIES, SourceCard
from promolift.contracts.tables import QUARANTINE, Table, bronze_of, silver_of, table
from promolift.errors import InputError
from spark_jobs import bronze
from spark_jobs.lake import Counters, Lake, conform, rows_of
from spark_jobs.landing import Delivery, deliveries, read_through
from spark_jobs.progress import say
from spark_jobs.quality import with_reason

Extra = tuple[tuple[Column, str], ...]
AFTER = {"purchases": "products", "redemptions": "assignments"}
"""Tables whose rules need another one's silver."""
TOGETHER = 2
"""Tables that are ingested at the same time: one computes while the other one is planned or committed."""


def _new(lake: Lake, landed: Table, files: list[Delivery]) -> list[Delivery]:
    """Deliveries not in bronze yet. Raises InputError when one is damaged, or was ingested and has other bytes now."""
    known = bronze.delivered(lake, bronze_of(landed))
    names = {d.split("@")[0] for d in known}
    new = [f for f in files if f.name not in known]
    for file in new:
        if file.file_name in names:
            raise InputError(
                f"'{file.path}' changed since it was ingested; deliver new events as another file, or start a new lake (--fresh)."
            )
        read_through(file)
    return new


def _received(lake: Lake, files: list[Delivery]) -> DataFrame:
    frames = [lake.spark.read.parquet(f.path).withColumn("delivery", F.lit(f.name)) for f in files]
    return conform(reduce(DataFrame.unionByName, frames), bronze_of(files[0].table))


def _category() -> Column:
    chosen = F.lit("other")
    for category in CATEGORIES:
        if category.departments:
            chosen = F.when(F.col("department").isin(*category.departments), category.name).otherwise(chosen)
    return chosen


def _margin() -> Column:
    """Half-up in whole cents, by integers: another engine gives the same cents."""
    per_cent = F.create_map(*(F.lit(x) for c in CATEGORIES for x in (c.name, round(c.margin_rate * 100))))
    return F.floor((F.col("sales_cents") * per_cent[F.col("category")] + 50) / 100)


def _conformed(lake: Lake, name: str, rows: DataFrame) -> tuple[DataFrame, Extra]:
    """Add what silver has beyond landing, and the rules that need another table."""
    if name == "products":
        return rows.withColumn("category", _category()), ()
    if name == "purchases":
        products = lake.read(table("silver", "products")).select("product_id", "category")
        known = rows.join(F.broadcast(products), on="product_id", how="left")
        return known.withColumn("margin_cents", _margin()), ((F.col("category").isNull(), "product_id is not in products"),)
    if name == "redemptions":
        exposures = lake.read(table("silver", "assignments")).select("exposure_id", F.lit(True).alias("assigned"))
        return rows.join(exposures, on="exposure_id", how="left"), ((F.col("assigned").isNull(), "exposure_id was never assigned"),)
    return rows, ()


def _repeated(received: DataFrame, key: tuple[str, ...]) -> DataFrame:
    """Hashes of the keys that occur more than once. It reads no column but the key, and groups numbers, which is cheaper than text."""
    hashed = received.select(F.xxhash64(*key).alias("hash"))
    return hashed.groupBy("hash").count().where("count > 1").select("hash", F.lit(True).alias("again"))


def _sorted_out(judged: DataFrame, repeated: DataFrame, silver: Table) -> tuple[DataFrame, DataFrame]:
    """(kept, refused). Of good rows with the same key the first to arrive is kept.

    Nearly every key occurs once, so only the few rows that are bad or share their key's hash are held and sorted; the rest passes by,
    and all of it where no key occurs twice.
    """
    if repeated.isEmpty():
        return conform(judged.where("reason is null"), silver), judged.where("reason is not null")
    marked = judged.withColumn("hash", F.xxhash64(*silver.key)).join(F.broadcast(repeated), on="hash", how="left")
    odd = marked.where("again or reason is not null").persist()
    order = ["arrived_at"] if "arrived_at" in silver.names else []
    by_arrival = Window.partitionBy(*silver.key).orderBy(*order, "delivery")
    first = odd.where("reason is null").withColumn("rank", F.row_number().over(by_arrival)).where("rank = 1")
    once = marked.where("again is null and reason is null")
    return conform(once, silver).unionByName(conform(first, silver)), odd.where(F.col("reason").isNotNull())


def _quarantined(refused: DataFrame, landed: Table) -> DataFrame:
    row = F.to_json(F.struct(*landed.names), {"ignoreNullFields": "false"})
    alike = F.row_number().over(Window.partitionBy("delivery", "row").orderBy("reason"))  # rows of equal bytes are all kept
    identity = F.sha2(F.concat_ws("|", F.lit(landed.name), "delivery", "row", alike.cast("string")), 256)
    named = refused.withColumn("row", row).withColumn("table_name", F.lit(landed.name))
    return conform(named.withColumn("row_id", identity), QUARANTINE)


@dataclass(frozen=True)
class _Sorted:
    """What became of one table's deliveries: the counters, and the refused rows in quarantine's form (None when there are none)."""

    counters: Counters
    refused: DataFrame | None


def _ingest(lake: Lake, landed: Table, files: list[Delivery], card: SourceCard) -> _Sorted:
    silver = silver_of(landed)
    received = _received(lake, files)
    rows, extra = _conformed(lake, landed.name, received)
    kept, refused = _sorted_out(with_reason(rows, silver, card, extra), _repeated(received, silver.key).persist(), silver)
    before = rows_of(lake.log(silver)) if lake.exists(silver) else 0
    lake.insert_new(silver, kept)
    new, total = lake.writes[silver.path]["rows"] - before, sum(f.rows for f in files)
    reasons = {} if new == total else {r["reason"]: int(r["count"]) for r in refused.groupBy("reason").count().collect()}
    bad = sum(reasons.values())
    counters = {"received": total, "kept": new, "quarantined": bad, "duplicates": total - new - bad, "reasons": reasons}
    say("ingest_events", landed.name, counters)
    return _Sorted(counters, _quarantined(refused, landed) if reasons else None)


def _ingest_all(lake: Lake, new: dict[str, list[Delivery]]) -> dict[str, _Sorted]:
    """Every table with something new, each once the one that it needs is done. The first failure ends what has not begun."""
    begun: dict[str, Future[_Sorted]] = {}

    def ingest(landed: Table, needed: "Future[_Sorted] | None") -> _Sorted:
        if needed:
            needed.result()  # begun earlier, so this never waits for something that waits for a free thread itself
        return _ingest(lake, landed, new[landed.name], lake.card)

    with ThreadPoolExecutor(TOGETHER) as pool:
        try:
            for landed in (t for t in lake.schema.landing if new[t.name]):
                begun[landed.name] = pool.submit(ingest, landed, begun.get(AFTER.get(landed.name, "")))
            return {name: one.result() for name, one in begun.items()}
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def run(lake: Lake) -> Counters:
    """Ingest every delivery that bronze does not have; counters per table: received = kept + quarantined + duplicates."""
    landed = {t.name: list(files) for t, files in groupby(deliveries(lake.root), key=lambda d: d.table)}
    new = {t.name: _new(lake, t, landed.get(t.name, [])) for t in lake.schema.landing}
    done = _ingest_all(lake, new)
    refused = [s.refused for s in done.values() if s.refused is not None]
    if refused:
        lake.insert_new(QUARANTINE, reduce(DataFrame.unionByName, refused))
    lake.spark.catalog.clearCache()
    _finish(lake, new)
    totals: Counter[str] = Counter()
    for sorted_out in done.values():
        totals.update({k: sorted_out.counters[k] for k in ("received", "kept", "quarantined", "duplicates")})
    return {"tables": {name: s.counters for name, s in done.items()}, **totals}


def _finish(lake: Lake, new: dict[str, list[Delivery]]) -> None:
    """Put the deliveries into bronze, which marks them as ingested, and make the tables that this source does not fill."""
    for target in (*lake.schema.silver, QUARANTINE):
        lake.create(target)
        if target.path not in lake.writes:  # a table that nothing came for is part of the lineage all the same
            lake.wrote(target)
    for target in lake.schema.bronze:
        if new[target.name] or not lake.exists(target):
            bronze.keep(lake, target, new[target.name])
