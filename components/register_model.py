"""models/ and evaluation/ -> one MLflow run and one registered version, with aliases `challenger` and `champion`.

A version is a plain folder of files (model.tflite, manifest.json, scores.parquet): nothing in it is ever unpickled.
"""

import json
import logging
import os
import sqlite3
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from promolift.contracts.artifacts import ModelManifest, Verdict, read_manifest, read_source_card, read_verdict
from promolift.contracts.promos import SourceCard
from promolift.errors import InputError, UnavailableError
from promolift.promotion.dossier import dossier_hash

CHAMPION, CHALLENGER = "champion", "challenger"
DOSSIER, AUTHOR = "dossier", "author"
"""Tags of a version: the hash of its dossier, and who trained it."""
EVIDENCE = "evidence"
"""Where a version keeps its dossier."""
BATCH = 1000
"""Metrics that MLflow takes at once; an evaluation has more."""
_FOLDER = "model"
_SQLITE = "sqlite:///"


def register(
    models: str, evaluation: str, lake: str, mlflow_uri: str, name: str, *, dossier: str = "", author: str = ""
) -> dict[str, Any]:  # fmt: skip
    """Log the run and register the candidate that the gate chose. Returns version, aliases, tags and whether it is new.

    The same file with the same verdict is one version, however often it is registered. `dossier`: its folder of evidence, whose hash is
    then a tag; `author`: who trained it. Raises InputError when the verdict, the
    metrics or the model is missing, UnavailableError when the registry does not answer.
    """
    verdict = read_verdict(_file(Path(evaluation), "verdict.json"))
    folder = Path(models) / verdict.chosen
    manifest = read_manifest(_file(folder, "manifest.json").parent)
    client = registry_client(mlflow_uri)
    tags = _tags(manifest, verdict) | ({DOSSIER: dossier_hash(Path(dossier)), AUTHOR: author} if dossier else {})
    version = _existing(client, name, tags)
    new = version is None
    if version is None:
        run = _start_run(client, experiment_id(client, name, mlflow_uri), manifest, read_source_card(lake))
        _log_evidence(client, run.info.run_id, Path(evaluation), folder)
        if dossier:
            client.log_artifacts(run.info.run_id, dossier, EVIDENCE)
        client.set_terminated(run.info.run_id, "FINISHED")
        version = _create(client, name, run, tags)
    aliases = _set_aliases(client, name, version, verdict)
    return {"name": name, "version": version, "new": new, "aliases": aliases, "tags": tags, "model": verdict.chosen}


def champion_folder(mlflow_uri: str, name: str, to: str) -> str:
    """Fetch the champion's files into `to` and return the model folder there; "" when there is no champion.

    Raises UnavailableError when the registry does not answer.
    """
    client = registry_client(mlflow_uri)
    found = alias_version(client, name, CHAMPION)
    if found is None:
        return ""
    Path(to).mkdir(parents=True, exist_ok=True)
    return str(client.download_artifacts(client.get_model_version(name, found).run_id, _FOLDER, to))


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise InputError(f"'{path}' is missing; run training and evaluation before registering.")
    return path


def registry_client(uri: str) -> Any:
    """MLflow at `uri`. Raises UnavailableError when it does not answer."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"], os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "true", "false"
    logging.getLogger("alembic").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "The ``noload`` loader")  # MLflow's own queries; its user can do nothing about it
    from mlflow import MlflowClient  # noqa: PLC0415 (takes seconds; telemetry must be off before)
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    try:
        _probe(uri)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    except (MlflowException, OSError, sqlite3.Error) as cause:
        raise UnavailableError(
            f"The model registry at '{uri}' does not answer ({cause}); check the URI and that it can be written."
        ) from cause
    return client


def _probe(uri: str) -> None:
    """Opens a SQLite file by hand: MLflow would try a path that cannot be opened for 100 seconds."""
    if uri.startswith(_SQLITE):
        path = Path(uri.removeprefix(_SQLITE))
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA schema_version")


def _tags(manifest: ModelManifest, verdict: Verdict) -> dict[str, str]:
    tables = {f"table.{path}": str(version) for path, version in manifest.tables.items()}
    outcome = "promoted" if verdict.promoted else "refused"
    return {"sha256": manifest.sha256, "verdict": outcome, "candidate": verdict.chosen, "commit": code_commit(), **tables}


def code_commit() -> str:
    """The commit of the code that runs, or 'unknown' outside git."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"


def _existing(client: Any, name: str, tags: dict[str, str]) -> str | None:
    for version in client.search_model_versions(f"name = '{name}'"):
        if all(version.tags.get(key) == tags[key] for key in ("sha256", "verdict")):
            return str(version.version)
    return None


def experiment_id(client: Any, name: str, uri: str) -> str:
    """The experiment's id; with SQLite its artifacts lie beside the database."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    beside = Path(uri.removeprefix(_SQLITE)).resolve().parent / "mlruns" if uri.startswith(_SQLITE) else None
    return str(client.create_experiment(name, artifact_location=beside.as_uri() if beside else None))


def _start_run(client: Any, experiment: str, manifest: ModelManifest, card: SourceCard) -> Any:
    from mlflow.entities import Param  # noqa: PLC0415 (takes seconds)

    run = client.create_run(experiment, run_name=f"{card.name}-{manifest.name}")
    client.log_batch(run.info.run_id, params=[Param(key, str(value)) for key, value in _parameters(manifest, card).items()])
    return run


def _log_evidence(client: Any, run_id: str, evaluation: Path, folder: Path) -> None:
    from mlflow.entities import Metric  # noqa: PLC0415 (takes seconds)

    document, now = json.loads(_file(evaluation, "metrics.json").read_text(encoding="utf-8")), int(time.time() * 1000)
    metrics = [Metric(key, value, now, 0) for key, value in flatten(document)]
    for first in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[first : first + BATCH])
    client.log_artifacts(run_id, str(evaluation), "evaluation")
    client.log_artifacts(run_id, str(folder), _FOLDER)
    _log_report(client, run_id, evaluation.parent)


def _log_report(client: Any, run_id: str, folder: Path) -> None:
    for name in ("report.html", "summary.json"):
        if (folder / name).is_file():
            client.log_artifact(run_id, str(folder / name))


def _parameters(manifest: ModelManifest, card: SourceCard) -> dict[str, Any]:
    tables = {f"table.{path}": version for path, version in manifest.tables.items()}
    about = {"source": card.name, "real": card.real[:250], "simulated": card.simulated[:250], "objective": card.objective}
    return {**about, "candidate": manifest.name, "seed": manifest.seed, "features_hash": manifest.features_hash, **tables}


def flatten(document: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every finite number of nested JSON with its path, in MLflow's alphabet: ('models.lightgbm.qini.point', 1.5)."""
    if isinstance(document, dict | list):
        items = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in items:
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(document, int | float) and abs(document) < float("inf"):
        yield "".join(c if c.isalnum() or c in "_-. /" else "_" for c in prefix), float(document)


def _create(client: Any, name: str, run: Any, tags: dict[str, str]) -> str:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 (takes seconds)

    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name, description="Incremental value and cost of each promo for one shopper.")
    source = f"{run.info.artifact_uri}/{_FOLDER}"
    return str(client.create_model_version(name, source, run.info.run_id, tags=tags).version)


def alias_version(client: Any, name: str, alias: str) -> str | None:
    """Version of an alias, or None when there is no such model or alias."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 (takes seconds)

    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException:
        return None


def _set_aliases(client: Any, name: str, version: str, verdict: Verdict) -> list[str]:
    """A promoted version is the challenger, and the champion too as long as there is none; a refused one gets no alias."""
    if verdict.promoted:
        client.set_registered_model_alias(name, CHALLENGER, version)
        if alias_version(client, name, CHAMPION) is None:
            client.set_registered_model_alias(name, CHAMPION, version)
    return [alias for alias in (CHALLENGER, CHAMPION) if alias_version(client, name, alias) == version]
