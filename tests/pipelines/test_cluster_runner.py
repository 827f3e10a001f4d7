"""A run on a Kubeflow Pipelines server: what is sent, what is shown while it runs, and how it ends."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import cluster_runner, run
from pipelines.cluster_runner import Server, check_cluster, for_cluster, run_on_server, uploaded
from pipelines.compiled import compiled
from pipelines.images import with_sources, without_gpus
from promolift.errors import InputError, PromoliftError, UnavailableError
from promolift.settings import Settings
from tests.pipelines.kfp_stub import served, task

ROOT = "s3a://bucket/run"
ARGUMENTS = {"source": "hillstrom", "root": ROOT, "path": "", "content": "c", "seed": 1, "redis_url": "", "spark_on": "operator"}
DONE = {"state": "SUCCEEDED", "run_details": {"task_details": [task("land-events", "SUCCEEDED"), task("validate-data", "SUCCEEDED")]}}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_runner, "POLL_S", 0.01)


@pytest.fixture(scope="module")
def pipeline() -> str:
    return for_cluster(with_sources(compiled("dataset")), "registry.example:5000/team/")


def test_the_request_has_pipeline_arguments_and_token(pipeline: str):
    with served([DONE]) as stub:
        run_on_server(pipeline, ARGUMENTS, Server(stub.url, "t0ken"), "dataset-run", io.StringIO())
    assert stub.tokens == {"Bearer t0ken"}
    sent = stub.sent
    assert (sent["display_name"], sent["experiment_id"]) == ("dataset-run", "e1")
    assert sent["runtime_config"]["parameters"] == ARGUMENTS
    spec = sent["pipeline_spec"]["pipeline_spec"]
    images = {e["container"]["image"] for e in spec["deploymentSpec"]["executors"].values()}
    assert all(image.startswith("registry.example:5000/team/promolift/") and len(image.split("-")) >= 3 for image in images)
    secrets = sent["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    named = {e["secretAsEnv"][0]["secretNameParameter"]["runtimeValue"]["constant"] for e in secrets.values()}
    assert named == {"promo-s3"}
    assert "pip install" not in json.dumps(sent)


def test_spark_in_pods_is_told_the_image_of_its_own_task(pipeline: str):
    spec = next(iter(yaml.safe_load_all(pipeline)))
    executors = spec["deploymentSpec"]["executors"].values()
    assert sum("/promolift/spark:" in executor["container"]["image"] for executor in executors) == 3
    for executor in executors:
        container = executor["container"]
        told = {e["name"]: e["value"] for e in container.get("env", ())}
        assert told.get("PROMOLIFT_SPARK_IMAGE") == (container["image"] if "/spark:" in container["image"] else None)


def test_without_a_gpu_no_task_asks_for_one():
    whole = with_sources(compiled("training"))
    assert "accelerator" in for_cluster(whole)
    spec, _ = yaml.safe_load_all(for_cluster(with_sources(without_gpus(compiled("training"))), gpu=False))
    assert "accelerator" not in json.dumps(spec)
    assert "train-gpu" not in json.dumps(spec)


def test_tasks_are_shown_as_they_end(pipeline: str):
    states: list[dict[str, Any]] = [
        {"state": "PENDING"},
        {"state": "RUNNING", "run_details": {"task_details": [task("root-driver", "SUCCEEDED"), task("land-events", "RUNNING")]}},
        DONE,
    ]
    screen = io.StringIO()
    with served(states) as stub:
        tasks = run_on_server(pipeline, ARGUMENTS, Server(stub.url), "n", screen)
    assert {name: one.seconds for name, one in tasks.items()} == {"land-events": 42.0, "validate-silver": 42.0}
    lines = screen.getvalue().splitlines()
    assert "run r1" in lines[0]
    assert [line.split() for line in lines[1:]] == [["land-events", "42.0", "s"], ["validate-silver", "42.0", "s"]]
    assert stub.tokens == {None}


def test_what_a_run_passed_over_is_shown_and_counts_for_nothing(pipeline: str):
    """Its record of an earlier run may lie in the same root."""
    passed = {"state": "SUCCEEDED", "run_details": {"task_details": [task("land-events", "SUCCEEDED"), task("ingest-events", "SKIPPED")]}}
    screen = io.StringIO()
    with served([passed]) as stub:
        assert list(run_on_server(pipeline, ARGUMENTS, Server(stub.url), "n", screen)) == ["land-events"]
    assert screen.getvalue().splitlines()[-1].split() == ["ingest-events", "42.0", "s", "skipped"]


def test_a_run_that_fails_is_our_failure(pipeline: str):
    failed = {"state": "FAILED", "run_details": {"task_details": [task("ingest-events", "FAILED", "exit status 2")]}}
    with served([failed]) as stub, pytest.raises(PromoliftError, match="Run r1 ended as FAILED at ingest-events: exit status 2"):
        run_on_server(pipeline, ARGUMENTS, Server(stub.url), "n", io.StringIO())


@pytest.mark.parametrize(
    ("refuses", "kind", "sentence"),
    [
        (401, UnavailableError, r"does not let us in \(401\); set PROMOLIFT_KFP_TOKEN"),
        (500, UnavailableError, r"fails \(500\)"),
        (400, InputError, "refuses the run: .*unknown parameter"),
    ],
)
def test_what_a_server_refuses_is_one_sentence(refuses: int, kind: type[PromoliftError], sentence: str, pipeline: str):
    with served([DONE], refuses) as stub, pytest.raises(kind, match=sentence):
        run_on_server(pipeline, ARGUMENTS, Server(stub.url, "wrong"), "n", io.StringIO())


def test_no_server_is_one_sentence(pipeline: str):
    with pytest.raises(UnavailableError, match=r"The Kubeflow Pipelines server http://127\.0\.0\.1:1 does not answer .*check --host"):
        run_on_server(pipeline, ARGUMENTS, Server("http://127.0.0.1:1"), "n", io.StringIO())


def test_what_pods_could_not_use_is_refused_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(InputError, match="--on cluster needs --root s3a://bucket/prefix"):
        check_cluster("dataset", "", Settings())
    with pytest.raises(InputError, match=r"PROMOLIFT_MLFLOW_URI is 'sqlite:///m\.db'; pods need"):
        check_cluster("training", ROOT, Settings(mlflow_uri="sqlite:///m.db"))
    check_cluster("training", ROOT, Settings(mlflow_uri="https://mlflow.example"))
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    (tmp_path / "yaml").mkdir()
    (tmp_path / "yaml/trial.yaml").write_text("{file: ../data.csv, arm: a, outcome: b, features: [c]}")
    with pytest.raises(InputError, match=r"names the data file .*data\.csv, which is elsewhere; put both into one folder"):
        uploaded("table", str(tmp_path / "yaml/trial.yaml"), ROOT)
    assert run.main(["dataset", "--source", "hillstrom", "--on", "cluster", "--out", str(tmp_path / "run")]) == 2
    assert "--on cluster needs --root" in capsys.readouterr().err
    for options in (["--on", "docker", "--root", ROOT], ["--on", "local"]):
        monkeypatch.setattr(run, "need_images", lambda text: None)
        command = ["dataset", "--source", "hillstrom", "--spark-on", "operator", *options, "--out", str(tmp_path / "run")]
        assert run.main(command) == 2
    assert not (tmp_path / "run").exists()
