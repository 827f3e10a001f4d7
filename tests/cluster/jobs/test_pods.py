"""The jobs in pods, by spark-submit and by the Spark operator, make the tables that they make in a process of this machine."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from components.land_events import fetched, land
from pipelines import cluster_runner, run
from promolift.contracts.artifacts import read_source_card
from promolift.contracts.tables import Table, schema_of
from promolift.errors import UnavailableError
from promolift.kubectl import Kubectl
from promolift.settings import load
from promolift.storage import delta_options
from spark_jobs import cluster
from tests.pipelines.kfp_stub import served, task
from tests.pipelines.trial import ROWS, trial

pytestmark = pytest.mark.cluster
SPACE = "promolift-spark"
INGEST, BUILD = ("ingest_events",), ("build_exposures", "build_features")
"""By spark-submit, and by the operator. The last job, build_examples, is as the one before it and would only take longer."""


def jobs(*arguments: str) -> list[dict[str, Any]]:
    """Records of `python -m spark_jobs`."""
    done = subprocess.run([sys.executable, "-m", "spark_jobs", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@contextmanager
def executors(kubectl: Kubectl) -> Iterator[set[str]]:
    """Names of the executors that run while the block does."""
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1):
            pods = kubectl.get("-n", SPACE, "pods", "-l", "spark-role=executor")["items"]
            seen.update(pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] == "Running")

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def rows(lake: str, table: Table) -> pa.Table:
    found = DeltaTable(f"{lake}/{table.path}", storage_options=delta_options()).to_pyarrow_table().select(list(table.names))
    texts = pa.array([json.dumps(row, sort_keys=True, default=str) for row in found.to_pylist()])
    return found.take(pc.sort_indices(texts)).combine_chunks()


def left(kubectl: Kubectl) -> list[str]:
    """Drivers, applications and services of ours that stay: what belongs to a pod goes some seconds after it."""
    deadline = time.monotonic() + 30
    while True:
        found = [kubectl.get("-n", SPACE, kind)["items"] for kind in ("pods", "services", *_operated(kubectl))]
        names = [one["metadata"]["name"] for items in found for one in items if "deletionTimestamp" not in one["metadata"]]
        if not names or time.monotonic() > deadline:
            return names
        time.sleep(1)


def _operated(kubectl: Kubectl) -> list[str]:
    return ["sparkapplications"] if kubectl.attempt("get", "crd", "sparkapplications.sparkoperator.k8s.io").returncode == 0 else []


@pytest.fixture(scope="module")
def lakes(kubectl: Kubectl, bucket: str, tmp_path_factory: pytest.TempPathFactory, measured: dict[str, Any]) -> tuple[str, str]:
    """A small experiment made into features here, and in S3 by pods: the first job by spark-submit, the others by the operator."""
    folder = tmp_path_factory.mktemp("pods")
    here, there = str(folder / "lake"), f"{bucket}/pods/lake"
    for lake in (here, there):
        land("table", str(trial(folder)), lake, f"{lake}-truth", 1)
    jobs(*INGEST, *BUILD, "--lake", here)
    ways = {"submit": INGEST, "operator": BUILD} if _operated(kubectl) else {"submit": (*INGEST, *BUILD)}
    for way, names in ways.items():
        with executors(kubectl) as seen:
            records = jobs(*names, "--lake", there, "--on", way)
        assert [record["job"] for record in records] == list(names), way
        assert len(seen) >= 2, way
        measured[f"spark_{way}_s"] = {record["job"]: record["seconds"] for record in records}
    return here, there


def test_jobs_in_pods_make_the_same_tables(lakes: tuple[str, str], kubectl: Kubectl):
    made = [table for table in schema_of(read_source_card(lakes[0])).stored if table.name != "examples"]
    for table in made:
        ours, theirs = (rows(lake, table) for lake in lakes)
        assert ours.num_rows == theirs.num_rows, table.path
        assert ours.equals(theirs.cast(ours.schema)), table.path
    assert left(kubectl) == []


@pytest.mark.parametrize("way", ["submit", "operator"])
def test_an_image_that_no_node_can_get_is_said_and_nothing_is_left(
    way: str, kubectl: Kubectl, bucket: str, monkeypatch: pytest.MonkeyPatch
):
    if way == "operator" and not _operated(kubectl):
        pytest.skip("the cluster has no Spark operator")
    monkeypatch.setenv("PROMOLIFT_SPARK_IMAGE", "promolift/spark:nowhere")
    made = cluster.application(["build_features"], f"{bucket}/lake", load())
    with pytest.raises(UnavailableError, match=r"The driver promolift-build-features-\w+-driver in \S+ does not start: \w*Image"):
        cluster.run(made, way)
    assert left(kubectl) == []


def test_an_interrupt_takes_the_pods_away(lakes: tuple[str, str], kubectl: Kubectl):
    command = [sys.executable, "-m", "spark_jobs", "build_exposures", "--lake", f"{lakes[1]}-other", "--on", "submit"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not kubectl.get("-n", SPACE, "pods", "-l", "spark-role=driver")["items"]:
            assert time.monotonic() < deadline, "no driver came up"
            time.sleep(1)
        process.send_signal(signal.SIGTERM)  # as a cluster ends a task
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "stopped; the same command goes on after the last finished job" in said
    while remaining := left(kubectl):  # the driver's executors are its own: the cluster removes them after it
        assert time.monotonic() < deadline + 60, remaining
        time.sleep(1)


def test_a_jobs_own_error_crosses(kubectl: Kubectl, bucket: str):
    command = [sys.executable, "-m", "spark_jobs", "build_exposures", "--lake", f"{bucket}/empty/lake", "--on", "submit"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "spark_jobs: Table 'silver/assignments' is not in the lake 's3a://" in done.stdout


def test_a_run_on_a_server_brings_its_summary_here(lakes: tuple[str, str], bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The server is a stub: what its tasks would leave in S3 was made by the jobs before; raw data and summary travel for real."""
    monkeypatch.setattr(cluster_runner, "POLL_S", 0.01)
    root, out = f"{bucket}/pods", tmp_path / "run"
    done = {"state": "SUCCEEDED", "run_details": {"task_details": [task("land-events", "SUCCEEDED")]}}
    with served([done]) as stub:
        command = ["dataset", "--source", "table", "--path", str(trial(tmp_path)), "--on", "cluster", "--host", stub.url, "--no-gpu"]
        assert run.main([*command, "--root", root, "--out", str(out)]) == 0
        parameters = stub.sent["runtime_config"]["parameters"]
    assert parameters["path"] == f"{root}/source/trial.yaml"
    with fetched("table", parameters["path"]) as place:
        assert Path(place).with_name("trial.parquet").read_bytes() == (tmp_path / "trial.parquet").read_bytes()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["tables"]["gold/exposures"]["rows"] == ROWS
    assert summary["seconds"]["land-events"] == 42.0
    assert not (out / "lake/gold").exists()
    assert f'"{os.environ["AWS_SECRET_ACCESS_KEY"]}"' not in json.dumps(stub.sent)
