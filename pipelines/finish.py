"""A run's summary -> its report, the champion's folder for serving, and the closing lines."""

import shutil
from pathlib import Path
from typing import Any

from pipelines.report import write_report


def finish(folder: Path, summary: dict[str, Any], mlflow_uri: str) -> None:
    """Write DIR/report.html; after a registration, attach it to the version and put the champion into DIR/serving_model."""
    report = write_report(folder, summary)
    registry, gate = summary["registry"], summary["gate"]
    if registry and "register-model" not in summary["reused"]:
        _attach(mlflow_uri, registry, [report, folder / "summary.json"])
    if registry:
        _serve_champion(folder, registry, mlflow_uri)
    version = f", version {registry['version']} of {registry['name']}" if registry else ""
    print(f"verdict: {gate['chosen'] or 'no candidate'} is {gate['verdict']}{version}")
    for reason in () if registry else gate["reasons"]:
        print(f"  {reason}")
    print(f"report: {report}")


def _attach(uri: str, registry: dict[str, Any], files: list[Path]) -> None:
    """Keep the report with the version that it judged."""
    from components.register_model import registry_client  # noqa: PLC0415 (takes seconds, and only a new version needs it)

    client = registry_client(uri)
    run = client.get_model_version(registry["name"], registry["version"]).run_id
    for file in files:
        client.log_artifact(run, str(file))


def _serve_champion(folder: Path, registry: dict[str, Any], uri: str) -> None:
    """DIR/serving_model: the candidate just registered when it is the champion, else the earlier one, which reigns until replaced."""
    champion = folder / "models" / registry["model"]
    if "champion" not in registry["aliases"]:
        from components.register_model import champion_folder  # noqa: PLC0415 (takes seconds, and only a challenger needs it)

        champion = Path(champion_folder(uri, registry["name"], str(folder / "champion" / "serving")))
    target = folder / "serving_model"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(champion, target)
