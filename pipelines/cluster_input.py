"""What a run on a Kubeflow Pipelines server needs before it is submitted: a root and a registry that pods reach, and its raw data there."""

from pathlib import Path

from components.land_events import inputs
from promolift.errors import InputError
from promolift.settings import Settings
from promolift.storage import copy, is_remote


def check_cluster(pipeline: str, root: str, settings: Settings) -> None:
    """Raises InputError for what pods could not use."""
    if not is_remote(root):
        raise InputError("--on cluster needs --root s3a://bucket/prefix: pods do not see the folder of this machine.")
    if pipeline == "training" and not settings.mlflow_uri.startswith("http"):
        raise InputError(f"PROMOLIFT_MLFLOW_URI is '{settings.mlflow_uri}'; pods need the address of an MLflow server (http...).")


def uploaded(source: str, path: str, root: str) -> str:
    """Put the raw data below `root` and return their address; "" for a source that fetches its own.

    Raises InputError for a table whose data file is not below the folder of its YAML file.
    """
    if not path:
        return ""
    place = Path(path).resolve()
    files = [Path(file).resolve() for file in inputs(source, str(place))]
    elsewhere = [file for file in files if not file.is_relative_to(place.parent)]
    if elsewhere:
        raise InputError(f"{path} names the data file {elsewhere[0]}, which is elsewhere; put both into one folder to run on a cluster.")
    for file in files:
        copy(file, f"{root}/source/{file.relative_to(place.parent)}")
    return f"{root}/source/{place.name}"
