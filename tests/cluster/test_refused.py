"""What KServe's webhooks and the API server refuse, and what a deployment does with a model that is not the one it was made for."""

import copy
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from deployment.local import OUT, Plan, deploy, deployed
from deployment.render import Build, Document, kinds, render
from promolift.errors import PromoliftError, UnavailableError
from promolift.kubectl import NAMESPACE
from tests.cluster.conftest import Cluster, settle

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    return render(Build("local"), tmp_path_factory.mktemp("rendered"))


def named(documents: list[Document], kind: str, name: str) -> Document:
    return copy.deepcopy(next(d for d in kinds(documents, kind) if d["metadata"]["name"] == name))


def refusal(cluster: Cluster, document: Document) -> str:
    with pytest.raises(PromoliftError) as found:
        cluster.kubectl.apply([document], "--dry-run=server")
    return str(found.value)


def test_a_splitter_whose_weights_do_not_sum_to_100(cluster: Cluster, documents: list[Document]):
    graph = named(documents, "InferenceGraph", "promo-decision")
    steps = [{"serviceName": "promo-predictor", "name": "a", "weight": 60}, {"serviceName": "promo-predictor", "name": "b", "weight": 30}]
    graph["spec"]["nodes"]["root"] = {"routerType": "Splitter", "steps": steps}
    assert "sum of traffic weights" in refusal(cluster, graph)


def test_a_graph_without_a_root(cluster: Cluster, documents: list[Document]):
    graph = named(documents, "InferenceGraph", "promo-decision")
    graph["spec"]["nodes"] = {"start": graph["spec"]["nodes"]["root"]}
    assert "root" in refusal(cluster, graph)


def test_a_field_that_nobody_knows(cluster: Cluster, documents: list[Document]):
    graph = named(documents, "InferenceGraph", "promo-decision")
    graph["spec"]["nodes"]["root"]["steps"][0]["dependancy"] = "Hard"
    assert "dependancy" in refusal(cluster, graph)


@pytest.mark.parametrize(("key", "value", "words"), [("minReplicas", 9, "cannot be greater than"), ("scaleMetric", "rps", "rps")])
def test_a_box_that_cannot_scale(cluster: Cluster, documents: list[Document], key: str, value: Any, words: str):
    box = named(documents, "InferenceService", "promo-predictor")
    box["spec"]["predictor"][key] = value
    assert words.lower() in refusal(cluster, box).lower()


def test_a_model_with_another_digest_is_not_served_and_the_old_one_goes_on(cluster: Cluster):
    place = "/spec/predictor/containers/0/env/1/value"
    right = cluster.deployed.release.sha256

    def patch(value: str) -> None:
        change = json.dumps([{"op": "replace", "path": place, "value": value}])
        cluster.kubectl("-n", NAMESPACE, "patch", "inferenceservice", "promo-predictor", "--type=json", "-p", change)

    patch("f" * 64)
    try:
        assert "but this deployment is for " + "f" * 64 in last_words(cluster, "promo-predictor")
        assert cluster.get("deployment", "promo-predictor-predictor")["status"]["availableReplicas"] == 1
    finally:
        patch(right)


def test_a_deployment_that_cannot_come_up_is_taken_back(cluster: Cluster, tmp_path: Path):
    shutil.copytree(cluster.deployed.run / "serving_model", tmp_path / "serving_model")
    (tmp_path / "lake").symlink_to(cluster.deployed.run / "lake")
    (tmp_path / "serving_model/model.tflite").write_bytes(b"cut off")
    with pytest.raises(UnavailableError, match="it was changed or damaged"):
        deploy(cluster.kubectl, Plan(tmp_path, "", OUT))
    settle(cluster.kubectl)
    standing = [d["spec"]["predictor"]["containers"][0]["env"][0]["value"] for d in cluster.get("inferenceservice")["items"]]
    assert set(standing) == {cluster.deployed.release.uri}
    assert deployed(cluster.kubectl, OUT) == cluster.deployed


def last_words(cluster: Cluster, service: str) -> str:
    """What the container said that ended, within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for pod in cluster.get("pods", "-l", f"serving.kserve.io/inferenceservice={service}")["items"]:
            states = pod["status"].get("containerStatuses", ())
            if any(state["restartCount"] or "terminated" in state["state"] for state in states):
                name, previous = pod["metadata"]["name"], ["--previous"] if states[0]["restartCount"] else []
                said = cluster.kubectl.attempt("-n", NAMESPACE, "logs", name, "-c", "kserve-container", *previous).stdout
                if said.strip():
                    return str(said)
        time.sleep(1)
    return f"no container of {service} ended"
