"""The drawing of a run folder is complete; a real run's folder is held against it in tests/pipelines."""

from pipelines.run_folder import MADE, REFINED
from promolift.contracts import tables
from tests.contracts.folders import drawn


def test_what_a_fresh_run_deletes_is_what_is_drawn():
    assert drawn("run folder") == {*MADE, ".lock"}


def test_the_lakes_folders_are_the_layers_of_the_tables():
    layers = {table.layer for table in tables.TABLES} - {"truth"}
    assert drawn("lake/") == {*layers, "landing", "lineage"}
    assert set(REFINED) == drawn("lake/") - {"serving"}
