"""Settings -> one Spark session with Delta, sized for one machine."""

import os
import shutil
import subprocess
from pathlib import Path

from pyspark.sql import SparkSession

from promolift.errors import UnavailableError

JAVA_MINIMUM = 17
CONFIGURATION = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.shuffle.partitions": "4",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.databricks.delta.properties.defaults.dataSkippingNumIndexedCols": "0",
    "spark.sql.adaptive.coalescePartitions.parallelismFirst": "false",
    "spark.sql.parquet.compression.codec": "snappy",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "3g",
    "spark.driver.extraJavaOptions": "-XX:+UseParallelGC -Dio.netty.tryReflectionSetAccessible=true",
}
"""Few partitions, because a job here moves some million rows; the console stays free for our own progress lines."""


def java_major() -> int:
    """Major version of the Java that Spark would start; 0 when there is none."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin/java") if home else shutil.which("java")
    if java is None or not Path(java).exists():
        return 0
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    digits = text.partition('version "')[2].split(".")[0].split('"')[0]
    return int(digits) if digits.isdigit() else 0


def check_java() -> None:
    """Raise UnavailableError unless Java 17 or newer can be started."""
    found = java_major()
    if found < JAVA_MINIMUM:
        where = f"JAVA_HOME '{os.environ['JAVA_HOME']}'" if os.environ.get("JAVA_HOME") else "the PATH"
        raise UnavailableError(
            f"Spark needs Java {JAVA_MINIMUM} or newer and found {found or 'none'} by {where}; "
            "install one (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME."
        )


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
