"""Which champion the gate compares with: the registry's, unless there is none or it is one of the candidates."""

from pathlib import Path

from components.fetch_champion import fetch
from components.register_model import register
from promolift.contracts.artifacts import Check, ModelManifest, Verdict, read_manifest, write_json
from promolift.contracts.promos import Promo, SourceCard

CARD = SourceCard("tiny", "", "", "profit", "converted", 1.0, "2020-01-01T00:00:00Z", (Promo("a", "deli", 0.2, 100),), False)
NAME = "promolift-uplift"


def candidate(run: Path, sha256: str) -> None:
    folder = run / "models" / "lightgbm"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_text(sha256)
    knots = ((0.0, 1.0),)
    write_json(folder / "manifest.json", ModelManifest("lightgbm", sha256, "h", ("a",), (), {}, CARD.promos, "profit", knots, {}, 1, "now"))


def test_there_is_no_champion_before_the_first_model_and_a_model_is_not_its_own_rival(tmp_path: Path):
    uri, models, to = f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path / "models"), str(tmp_path / "champion")
    assert fetch(models, uri, NAME, to) == ""
    assert not (tmp_path / "mlflow.db").exists()

    candidate(tmp_path, "a" * 64)
    write_json(tmp_path / "evaluation" / "verdict.json", Verdict("lightgbm", True, (Check("qini", "passed", 1.0, 0.0, "Above 0."),)))
    write_json(tmp_path / "evaluation" / "metrics.json", {"value": 1.0})
    write_json(tmp_path / "lake" / "landing" / "source.json", CARD)
    register(models, str(tmp_path / "evaluation"), str(tmp_path / "lake"), uri, NAME)
    assert fetch(models, uri, NAME, to) == ""

    candidate(tmp_path, "b" * 64)
    first, again = fetch(models, uri, NAME, to), fetch(models, uri, NAME, to)
    assert first == again == f"{to}/{'a' * 12}"
    assert read_manifest(Path(first)).sha256 == "a" * 64
