"""registry -> the champion's model folder, so that the gate can hold new candidates against what serves today."""

import shutil
from pathlib import Path

from components.register_model import champion_folder
from promolift.contracts.artifacts import read_manifest

SQLITE = "sqlite:///"


def fetch(models: str, mlflow_uri: str, name: str, to: str) -> str:
    """Fetch the champion into a folder below `to` and return that folder; "" when there is none to compare with.

    There is none in an empty registry, and none when the champion is one of the candidates in `models`, as it is when a run is
    repeated: a model is not its own rival. The folder is named by the file's hash, so another champion is another folder.
    Raises UnavailableError when the registry does not answer.
    """
    if mlflow_uri.startswith(SQLITE) and not Path(mlflow_uri.removeprefix(SQLITE)).exists():
        return ""
    incoming = Path(to) / "incoming"
    shutil.rmtree(incoming, ignore_errors=True)
    found = champion_folder(mlflow_uri, name, str(incoming))
    if not found:
        return ""
    sha256 = read_manifest(Path(found)).sha256
    if sha256 in {read_manifest(path.parent).sha256 for path in Path(models).glob("*/manifest.json")}:
        return ""
    folder = Path(to) / sha256[:12]
    if not folder.exists():
        Path(found).rename(folder)
    return str(folder)
