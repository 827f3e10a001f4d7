"""Assignments whose propensities are missing or of the wrong length: quarantined with their reason, the good rows kept."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from promolift.contracts.tables import QUARANTINE, table
from promolift.settings import Settings
from spark_jobs import lake, session
from spark_jobs.landing import fingerprint

sys.path.insert(0, str(Path(__file__).parent))  # the small world lies beside its tests, which are no package
import small_world as small

pytestmark = pytest.mark.slow
BAD = {
    "none": (None, "propensities is missing"),
    "empty": ([], "propensities do not match the arms"),
    "short": ([0.5, 0.5], "propensities do not match the arms"),
    "long": ([0.25, 0.25, 0.25, 0.25], "propensities do not match the arms"),
    "null": ([None, None, None], "a propensity is missing or outside 0 to 1"),
    "nan": ([0.5, float("nan"), 0.5], "a propensity is missing or outside 0 to 1"),
}


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    started = session.start_session(Settings().jars)
    yield started
    started.stop()


def test_missing_and_wrong_length_propensities_are_quarantined_with_their_reason(spark: SparkSession, tmp_path: Path) -> None:
    bad = [small.assignment(name, "a", propensities=found) for name, (found, _) in BAD.items()]
    world = small.world()
    root = small.write(tmp_path / "lake", {**world, "assignments": [*world["assignments"], *bad]})
    counters = lake.run_job(spark, root, "ingest_events", fingerprint(root))["counters"]["tables"]["assignments"]
    assert (counters["received"], counters["kept"], counters["quarantined"]) == (2 + len(BAD), 2, len(BAD))

    refused = spark.read.format("delta").load(str(root / QUARANTINE.path)).collect()
    assert sorted(row["reason"] for row in refused) == sorted(reason for _, reason in BAD.values())
    kept = spark.read.format("delta").load(str(root / table("silver", "assignments").path)).collect()
    assert {row["exposure_id"] for row in kept} == {row["exposure_id"] for row in world["assignments"]}
