"""Jobs in pods: the one template, as a SparkApplication and as options of spark-submit. What a cluster makes of it is in tests/cluster."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from deployment.pods import Pod
from deployment.policies import restricted
from promolift.errors import InputError, UnavailableError
from promolift.settings import Settings
from spark_jobs import __main__ as command
from spark_jobs import cluster

JOBS = ["build_features", "build_examples"]
LAKE = "s3://bucket/run/lake"
IMAGE = "promolift/spark:python3.11-0123456789ab-0123456789ab"


def made(**changes: Any) -> cluster.Document:
    return cluster.application(JOBS, LAKE, Settings(spark_image=IMAGE, **changes))


def options(of: cluster.Document, folder: Path) -> dict[str, str]:
    words = cluster.submit_options(of, folder)
    pairs = [words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "--conf"]
    return {key: value for key, value in pairs}


def test_the_application_says_jobs_lake_image_and_sizes():
    found = made(spark_executors=3, spark_cores=2, spark_memory="4g")
    spec = found["spec"]
    assert spec["arguments"] == [*JOBS, "--lake", "s3a://bucket/run/lake", "--submitted"]
    assert (spec["image"], found["metadata"]["namespace"]) == (IMAGE, "promolift-spark")
    assert spec["executor"]["instances"] == 3
    assert all(spec[role]["cores"] == 2 and spec[role]["memory"] == "4g" for role in ("driver", "executor"))
    assert spec["sparkConf"]["spark.sql.shuffle.partitions"] == "12"
    assert len(spec["driver"]["podName"]) <= 63
    assert made()["metadata"]["name"] != made()["metadata"]["name"]  # two runs at once do not meet


def test_spark_submit_is_told_the_same(tmp_path: Path):
    found = made(spark_executors=3)
    told, spec = options(found, tmp_path), found["spec"]
    assert spec["sparkConf"].items() <= told.items()
    assert told["spark.kubernetes.container.image"] == IMAGE
    assert told["spark.executor.instances"] == "3"
    for role in ("driver", "executor"):
        assert told[f"spark.kubernetes.authenticate.{role}.serviceAccountName"] == f"promo-spark-{role}"
        assert yaml.safe_load(Path(told[f"spark.kubernetes.{role}.podTemplateFile"]).read_text())["spec"] == spec[role]["template"]["spec"]
        assert told[f"spark.kubernetes.{role}.podTemplateContainerName"] == f"spark-kubernetes-{role}"
    assert cluster.submit_options(found, tmp_path)[-5:] == [spec["mainApplicationFile"], *spec["arguments"]][-5:]


def test_no_password_is_in_what_is_sent():
    assert "AWS_SECRET" not in str(made())
    assert all(
        container["envFrom"] == [{"secretRef": {"name": "promo-s3"}}]
        for role in ("driver", "executor")
        for container in made()["spec"][role]["template"]["spec"]["containers"]
    )


def test_its_pods_keep_pod_security_restricted_and_only_the_driver_has_a_token(monkeypatch: pytest.MonkeyPatch):
    pods = {role: made()["spec"][role]["template"]["spec"] for role in ("driver", "executor")}
    monkeypatch.setattr("deployment.policies.pods_of", lambda documents: [Pod(role, {}, spec) for role, spec in pods.items()])
    assert list(restricted([])) == []
    assert {role: spec["automountServiceAccountToken"] for role, spec in pods.items()} == {"driver": True, "executor": False}


def test_what_pods_cannot_do_is_said_before_anything_is_sent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match=r"Pods do not see the lake 'build/run/lake'; keep it in S3"):
        cluster.application(JOBS, "build/run/lake", Settings(spark_image=IMAGE))
    with pytest.raises(InputError, match="PROMOLIFT_SPARK_IMAGE is not set"):
        cluster.application(JOBS, LAKE, Settings())
    monkeypatch.setenv("PROMOLIFT_SPARK_EXECUTORS", "0")
    assert command.main([*JOBS, "--lake", LAKE, "--on", "submit"]) == 2
    assert "PROMOLIFT_SPARK_EXECUTORS has the value '0'" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["submit", "operator"])
def test_no_cluster_is_one_sentence(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(UnavailableError, match="There is no cluster to submit to"):
        cluster.run(made(), way)
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
    }  # fmt: skip
    (tmp_path / "none").write_text(yaml.safe_dump(config))
    with pytest.raises(UnavailableError, match="The cluster does not answer"):
        cluster.run(made(), way)
