"""Spark's classes, found and verified once -> an archive that later sessions map: a short-lived JVM spends ten CPU seconds on them.

Java calls it an AppCDS archive (JEP 350). It holds for one Java, one pyspark and one list of jars; Java itself refuses any other, and
starts without. It lies in the environment that it belongs to.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from delta.tables import DeltaTable
from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F

from promolift.errors import PromoliftError, UnavailableError
from promolift.java import check_java
from promolift.settings import load
from spark_jobs.session import archive_place, start_session

DUMP_SECONDS = 300
"""A JVM that has not written its archive by then is stuck."""


def _work(spark: SparkSession, folder: Path) -> None:
    """What every job does: a table written, merged into and read, with a join, a window, sums, text and times."""
    place = str(folder / "table")
    rows = [(number, f"shopper {number % 7}", number * 0.5, ["a", "b"]) for number in range(100)]
    frame = spark.createDataFrame(rows, "id bigint, name string, value double, texts array<string>")
    frame = frame.withColumn("time", F.timestamp_micros(F.col("id")))
    frame.write.format("delta").save(place)
    into, key = DeltaTable.forPath(spark, place).alias("old"), F.col("old.id") == F.col("new.id")
    into.merge(frame.alias("new"), key).whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
    read = spark.read.format("delta").load(place)
    last = F.row_number().over(Window.partitionBy("name").orderBy(F.col("time").desc()))
    joined = read.withColumn("place", last).join(read.groupBy("name").agg(F.sum("value"), F.count("*")), "name", "left")
    joined.write.parquet(str(folder / "parquet"))
    spark.read.parquet(str(folder / "parquet")).selectExpr("explode(texts)").distinct().collect()


def make(jars: Path, archive: Path) -> bool:
    """Write `archive` with a session of its own in this process; false when it is there already."""
    if archive.exists():
        return False
    for stale in archive.parent.glob("spark-*.jsa"):
        stale.unlink()
    fresh = archive.with_suffix(".new")
    spark = start_session(jars, java_options=f"-XX:ArchiveClassesAtExit={fresh} -Xlog:cds=off -Xlog:cds+dynamic=off")
    with TemporaryDirectory() as folder:
        _work(spark, Path(folder))
    java = spark.sparkContext._gateway.proc
    spark.stop()
    java.stdin.close()
    java.wait(DUMP_SECONDS)
    if not fresh.exists():
        raise UnavailableError(f"Java ended without writing '{archive}'. Is there room for 250 MB?")
    fresh.replace(archive)
    return True


def main() -> int:
    """Make the archive of this environment."""
    try:
        jars = load().jars
        archive = archive_place(check_java())
        made = make(jars, archive)
    except PromoliftError as error:
        print(f"class_archive: {error}", file=sys.stderr)
        return error.exit_status
    print(f"class_archive: {archive.stat().st_size / 1e6:.0f} MB in {archive} ({'made' if made else 'already there'})", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
