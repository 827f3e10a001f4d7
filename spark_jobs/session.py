"""Settings -> one Spark session with Delta, sized for one machine."""

from pathlib import Path

from pyspark.sql import SparkSession

from promolift.errors import UnavailableError
from promolift.java import check_java

CONFIGURATION = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.shuffle.partitions": "4",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.databricks.delta.properties.defaults.dataSkippingNumIndexedCols": "0",
    "spark.sql.adaptive.coalescePartitions.parallelismFirst": "false",
    "spark.sql.parquet.compression.codec": "snappy",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "3g",
    "spark.driver.extraJavaOptions": "-XX:+UseParallelGC -Dio.netty.tryReflectionSetAccessible=true",
}
"""Few partitions, because a job here moves some million rows; the console stays free for our own progress lines."""


def start_session(jars: Path) -> SparkSession:
    """Start the session of this process with the Delta jars of folder `jars`, fetched by `python -m spark_jobs.fetch_jars`."""
    check_java()
    delta = ":".join(sorted(str(jar) for jar in jars.glob("io.*.jar")))
    if not delta:
        raise UnavailableError(f"Spark's Delta jars are not in '{jars}'; run `make setup` or python -m spark_jobs.fetch_jars.")
    builder = SparkSession.builder.master("local[*]").appName("promolift").config("spark.driver.extraClassPath", delta)
    for key, value in CONFIGURATION.items():
        builder = builder.config(key, value)
    logging = Path(__file__).with_name("log4j2.properties").resolve()
    builder = builder.config(
        "spark.driver.extraJavaOptions", f"{CONFIGURATION['spark.driver.extraJavaOptions']} -Dlog4j2.configurationFile=file:{logging}"
    )
    return builder.getOrCreate()
