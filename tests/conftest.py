"""Workers that share the tests: the longest files first, so that they end at about the same time."""

import os
import sys
from pathlib import Path

import prometheus_client  # noqa: F401 (before Feast, which would have it keep its values in files that tests share)
import pytest

LONGEST = (
    "test_jobs.py",
    "test_promotion.py",
    "test_demo.py",
    "test_training_pipeline.py",
    "test_table_pipeline.py",
    "test_land_events.py",
)
"""The first ones dealt, so that none of them is left for the end."""


ONE_CORE = {"JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1", "OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
"""A worker has one core. The JVMs of tests are short-lived: the second compiler costs a cold one 22 of 53 CPU seconds;
threads of two workers that spin for each other on the same cores cost as much again."""


def pytest_configure(config: pytest.Config) -> None:
    """A worker's main module has no file, which pyspark takes for a run of its doctests and ends the process."""
    if hasattr(config, "workerinput"):
        sys.modules["__main__"].__file__ = __file__
        for name, value in ONE_CORE.items():
            os.environ.setdefault(name, value)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files of LONGEST in their order, then the others as they were found."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(Path(str(item.fspath)).name, len(LONGEST)))
