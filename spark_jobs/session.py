"""Settings -> one Spark session with Delta, sized for one machine or as spark-submit says, and with S3 by the environment."""

import os
import sys
from importlib.metadata import version
from pathlib import Path

from pyspark.sql import SparkSession

from promolift.errors import UnavailableError
from promolift.java import check_java
from promolift.storage import region

LOGGING = Path(__file__).with_name("log4j2.properties")
TABLES = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.databricks.delta.properties.defaults.dataSkippingNumIndexedCols": "0",
    "spark.sql.adaptive.coalescePartitions.parallelismFirst": "false",
    "spark.sql.parquet.compression.codec": "snappy",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}
"""What tables are made with, wherever the jobs run."""
MACHINE = {
    "spark.app.name": "promolift",
    "spark.master": "local[*]",
    "spark.sql.shuffle.partitions": "4",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "3g",
    "spark.sql.adaptive.advisoryPartitionSizeInBytes": "4m",
    "spark.driver.extraJavaOptions": (
        "-XX:+UseParallelGC -XX:-DontCompileHugeMethods -XX:FreqInlineSize=70 -XX:CompileThresholdScaling=3 "
        f"-Dio.netty.tryReflectionSetAccessible=true -Dlog4j2.configurationFile=file:{LOGGING.resolve()}"
    ),
}
"""Few partitions, because a job here moves some million rows; but they are joined up to 4 MB, not to Spark's 64, with which one core made
all features. Their many sums are one Java method, longer than what is compiled by default. Nearly half of the processor time is the Java
compiler's: copying only short methods into their callers saved 8 % of all (four builds with and four without, side by side), compiling
later another 5 %. The console stays free for our own progress lines."""


def start_session(jars: Path, *, submitted: bool = False, java_options: str = "") -> SparkSession:
    """Start the session of this process with the jars of folder `jars`, fetched by `python -m spark_jobs.fetch_jars`.

    `submitted`: spark-submit started this process and has said where the work is done, how big, and with which jars.
    `java_options`: for its JVM (default: with the classes archived by `python -m spark_jobs.class_archive`, where that was done).
    """
    builder = SparkSession.builder
    for key, value in {**TABLES, **s3a(), **({} if submitted else _machine(jars, java_options))}.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def archive_place(java: str) -> Path:
    """Where this environment keeps the archive of Spark's classes for a Java of version `java`."""
    return Path(sys.prefix) / f"spark-{version('pyspark')}-delta-{version('delta-spark')}-java-{java}.jsa"


def _machine(jars: Path, java_options: str) -> dict[str, str]:
    archive = archive_place(check_java())
    if not list(jars.glob("io.delta_*.jar")):
        raise UnavailableError(f"Spark's Delta jars are not in '{jars}'; run `make setup` or python -m spark_jobs.fetch_jars.")
    if not java_options and archive.exists():
        java_options = f"-XX:SharedArchiveFile={archive} -Xlog:cds=off"
    options = f"{MACHINE['spark.driver.extraJavaOptions']} {java_options}"
    return {**MACHINE, "spark.driver.extraClassPath": f"{jars}/*", "spark.driver.extraJavaOptions": options}


def s3a() -> dict[str, str]:
    """Hadoop's S3A for the endpoint of the environment; its keys it finds there itself. Nothing without an endpoint."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    found = {
        "endpoint": endpoint,
        "endpoint.region": region(),
        "path.style.access": "true",
        "connection.ssl.enabled": str(endpoint.startswith("https")).lower(),
    }
    return {f"spark.hadoop.fs.s3a.{key}": value for key, value in found.items()} if endpoint else {}
