"""What is rendered: every field known to its schema, every policy kept, and broken by the manifest that is made to break it."""

import copy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployment import __main__ as command
from deployment.policies import POLICIES, broken
from deployment.render import kinds
from deployment.schemas import mistakes
from promolift.contracts.decisions import NODES
from promolift.kubectl import Document
from promolift.settings import Settings, load
from tests.deployment.conftest import RELEASE

BROKEN = Path(__file__).with_name("broken")
SECRETS = {"redis_url", "token_keys", "hash_salt"}


def test_both_overlays_keep_schemas_and_policies(local: list[Document], production: list[Document]):
    for documents in (local, production):
        assert [*mistakes(documents), *broken(documents)] == []


def test_every_policy_has_a_manifest_that_breaks_it():
    assert {path.stem for path in BROKEN.glob("*.yaml")} == {policy.__name__ for policy in POLICIES}


@pytest.mark.parametrize("name", [policy.__name__ for policy in POLICIES])
def test_a_broken_manifest_breaks_its_policy_and_no_other(name: str, tmp_path: Path, local: list[Document]):
    (tmp_path / "good.yaml").write_text(yaml.safe_dump_all(local))
    patches = yaml.safe_load((BROKEN / f"{name}.yaml").read_text())
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["good.yaml"], "patches": patches}))
    text = subprocess.run(["kubectl", "kustomize", str(tmp_path)], capture_output=True, text=True, check=True).stdout
    documents = list(yaml.safe_load_all(text))
    assert list(mistakes(documents)) == []
    found = broken(documents)
    assert found and all(line.startswith(f"{name}: ") and line.endswith(".") for line in found), found


def changed(documents: list[Document], kind: str, name: str, path: list[Any], value: Any) -> list[Document]:
    """The documents with one value set."""
    found = copy.deepcopy(documents)
    place: Any = next(d for d in kinds(found, kind) if d["metadata"]["name"] == name)
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return found


@pytest.mark.parametrize(("kind", "name", "path", "value", "said"), [
    ("Deployment", "promo-engine", ["spec", "replica"], 2, "replica"),
    ("Deployment", "promo-engine", ["spec", "replicas"], "many", "many"),
    ("InferenceService", "promo-predictor", ["spec", "predictor", "containers", 0, "livenesProbe"], {}, "livenesProbe"),
    ("InferenceService", "promo-predictor", ["spec", "predictor", "minReplicas"], "one", "one"),
    ("InferenceGraph", "promo-decision", ["spec", "nodes", "root", "steps", 0, "dependancy"], "Hard", "dependancy"),
    ("InferenceGraph", "promo-decision", ["spec", "nodes", "root", "routerType"], "Parallel", "Parallel"),
    ("NetworkPolicy", "promo-deny", ["apiVersion"], "networking.k8s.io/v9", "python -m deployment schemas"),
])  # fmt: skip
def test_a_field_that_no_schema_knows_is_named(local: list[Document], kind: str, name: str, path: list[Any], value: Any, said: str):
    (found,) = mistakes(changed(local, kind, name, path, value))
    assert found.startswith(f"{kind} {name}: ") and said in found


def test_a_route_in_production_is_checked_too(production: list[Document]):
    (found,) = mistakes(changed(production, "HTTPRoute", "promo-engine", ["spec", "rules", 0, "backendRef"], []))
    assert "backendRef" in found


def test_a_release_reaches_every_box_and_images_come_from_the_registry(production: list[Document], local: list[Document]):
    for document in kinds(production, "InferenceService"):
        container = document["spec"]["predictor"]["containers"][0]
        assert [entry["value"] for entry in container["env"][:2]] == [RELEASE.uri, RELEASE.sha256]
        assert container["image"].startswith("registry.example.com/shop/promolift/")
    replicas = {d["metadata"]["name"]: d["spec"]["predictor"]["minReplicas"] for d in kinds(production, "InferenceService")}
    assert replicas == {**{f"promo-{name}": 3 for name in NODES}, "promo-detector": 2}
    assert not kinds(production, "StatefulSet") and kinds(local, "StatefulSet")


def test_what_boxes_read_changes_their_pods(local: list[Document]):
    names = {document["metadata"]["name"] for document in kinds(local, "ConfigMap")}
    for document in kinds(local, "InferenceService"):
        volumes = {volume["name"]: volume for volume in document["spec"]["predictor"]["volumes"]}
        if document["metadata"]["name"] != "promo-detector":
            assert volumes["rules"]["configMap"]["name"] in names - {"promo-rules"}
        settings = document["spec"]["predictor"]["containers"][0]["envFrom"][0]["configMapRef"]["name"]
        assert settings in names - {"promo-settings"}


def test_the_predictor_is_copied_to_a_detector_that_may_be_reached(local: list[Document], production: list[Document]):
    for documents in (local, production):
        predictor = next(d for d in kinds(documents, "InferenceService") if d["metadata"]["name"] == "promo-predictor")["spec"]["predictor"]
        assert predictor["logger"] == {"mode": "all", "url": "http://promo-detector-predictor.promolift"}
        # KServe's agent goes on proxying until it is killed, so the box behind it must not end before.
        assert predictor["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] == predictor["terminationGracePeriodSeconds"]
        policies = {d["metadata"]["name"]: d["spec"] for d in kinds(documents, "NetworkPolicy")}
        (copies,) = policies["promo-payload-log"]["egress"]
        assert copies["to"][0]["podSelector"] == policies["promo-detector"]["podSelector"]
        assert {"protocol": "TCP", "port": 9081} in policies["promo-box"]["ingress"][0]["ports"]


@pytest.mark.parametrize("overlay", ["base", "overlays/production"])
def test_the_settings_file_is_read_by_settings_and_holds_no_secret(monkeypatch: pytest.MonkeyPatch, overlay: str):
    path = Path("manifests", overlay, "settings.env")
    said = dict(line.split("=", 1) for line in path.read_text().splitlines() if line and not line.startswith("#"))
    names = {name: name.removeprefix("PROMOLIFT_").lower() for name in said}
    assert set(names.values()) <= set(Settings.model_fields) - SECRETS
    monkeypatch.setenv("PROMOLIFT_SETTINGS_FILE", str(path))
    given = Settings(**{names[name]: text for name, text in said.items()})
    assert load() == given and given.model_fields_set == set(names.values())


def test_the_command_says_how_many_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str], local: list[Document]):
    assert command.main(["render", "local", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "local" in said and "5 services, 0 mistakes" in said and f"{len(POLICIES)} policies hold" in said
    assert (tmp_path / "local/manifests.yaml").is_file()
