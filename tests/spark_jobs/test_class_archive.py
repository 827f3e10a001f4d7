from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from promolift.java import check_java
from promolift.settings import Settings
from spark_jobs import class_archive
from spark_jobs.session import archive_place, start_session


def test_an_archive_is_made_once(tmp_path: Path) -> None:
    archive = tmp_path / "spark-of-today.jsa"
    archive.write_bytes(b"made")
    assert not class_archive.make(Settings().jars, archive)
    assert archive.read_bytes() == b"made"


def test_another_java_has_an_archive_of_its_own() -> None:
    assert archive_place("17.0.15") != archive_place("21.0.1")


def _mapped(spark: SparkSession) -> set[str]:
    """Archives that the session's JVM has mapped into its memory: it leaves out one that is not its own."""
    process = spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid()
    return {line.split()[-1] for line in Path(f"/proc/{process}/maps").read_text().splitlines() if line.endswith(".jsa")}


@pytest.mark.slow
def test_a_session_maps_the_classes_that_setup_archived() -> None:
    archive = archive_place(check_java())
    assert archive.exists(), "make setup makes it"
    spark = start_session(Settings().jars)
    assert str(archive) in _mapped(spark)
    spark.stop()
