from pathlib import Path
from typing import Any

import pytest

from components.register_model import champion_folder, flatten, register
from promolift.contracts.artifacts import Check, ModelManifest, Verdict, read_manifest, write_json
from promolift.errors import InputError, UnavailableError
from tests.components.synthetic_examples import CARD

NAME = "promolift-uplift"
Registered = tuple[Path, list[dict[str, Any]]]


def _candidate(run: Path, content: str, *, promoted: bool = True) -> None:
    folder = run / "models" / "lightgbm"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_text(content)
    manifest = ModelManifest(
        "lightgbm", content * 8, "hash", ("a",), (), {}, CARD.promos, "profit", ((0.0, 1.0),), {"gold/examples": 3}, 1, "now"
    )
    write_json(folder / "manifest.json", manifest)
    verdict = Verdict("lightgbm", promoted, (Check("qini", "passed", 1.0, 0.0, "Above 0."),))
    write_json(run / "evaluation" / "verdict.json", verdict)
    write_json(run / "evaluation" / "metrics.json", {"models": {"lightgbm": {"qini": {"point": 1.5}}}, "note": "text", "bad": float("nan")})
    write_json(run / "lake" / "landing" / "source.json", CARD)


def _register(run: Path) -> dict[str, Any]:
    return register(str(run / "models"), str(run / "evaluation"), str(run / "lake"), f"sqlite:///{run}/mlflow.db", NAME)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory):
    """Four registrations in a row: a first model, the same again, a better one, a refused one."""
    run = tmp_path_factory.mktemp("run")
    _candidate(run, "first")
    answers = [_register(run), _register(run)]
    _candidate(run, "second")
    answers.append(_register(run))
    _candidate(run, "third", promoted=False)
    return run, [*answers, _register(run)]


def test_first_promoted_version_becomes_champion(registry: Registered):
    assert registry[1][0]["aliases"] == ["challenger", "champion"]
    assert registry[1][0]["tags"]["table.gold/examples"] == "3"


def test_registering_the_same_file_and_verdict_again_changes_nothing(registry: Registered):
    first, again = registry[1][:2]
    assert (first["new"], again["new"]) == (True, False)
    assert first["version"] == again["version"]


def test_a_later_promoted_version_is_challenger_only(registry: Registered):
    assert registry[1][2]["aliases"] == ["challenger"]


def test_a_refused_version_is_kept_without_alias(registry: Registered):
    refused = registry[1][3]
    assert refused["aliases"] == []
    assert refused["tags"]["verdict"] == "refused"
    assert refused["version"] == "3"


def test_champion_folder_brings_the_champions_files(registry: Registered, tmp_path: Path):
    run, _ = registry
    folder = champion_folder(f"sqlite:///{run}/mlflow.db", NAME, str(tmp_path / "champion"))
    assert (Path(folder) / "model.tflite").read_text() == "first"
    assert read_manifest(Path(folder)).tables == {"gold/examples": 3}


def test_the_run_holds_metrics_and_parameters(registry: Registered):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{registry[0]}/mlflow.db")
    data = client.get_run(client.get_model_version(NAME, "1").run_id).data
    assert data.metrics == {"models.lightgbm.qini.point": 1.5}
    assert (data.params["seed"], data.params["table.gold/examples"], data.params["source"]) == ("1", "3", "synthetic")


def test_no_champion_is_the_empty_string(registry: Registered, tmp_path: Path):
    assert champion_folder(f"sqlite:///{registry[0]}/mlflow.db", "another", str(tmp_path)) == ""


def test_missing_verdict_is_a_sentence(tmp_path: Path):
    with pytest.raises(InputError, match=r"verdict\.json' is missing; run training and evaluation"):
        _register(tmp_path)


def test_registry_that_cannot_be_opened_is_a_sentence(tmp_path: Path):
    _candidate(tmp_path, "first")
    with pytest.raises(UnavailableError, match="does not answer"):
        register(str(tmp_path / "models"), str(tmp_path / "evaluation"), str(tmp_path / "lake"), f"sqlite:///{tmp_path}", NAME)


def test_flatten_keeps_numbers_and_their_paths():
    assert dict(flatten({"a": {"b": [1, 2.5]}, "c(d)": True, "e": "text"})) == {"a.b.0": 1.0, "a.b.1": 2.5, "c_d_": 1.0}
