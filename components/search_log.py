"""A search's record and trials -> one MLflow run a study: its best parameters, its budget, and what each trial reached."""

import json
from collections.abc import Sequence
from typing import Any

from components.register_model import experiment_id, registry_client

EXPERIMENT = "promolift-search"


def log_search(mlflow_uri: str, record: dict[str, Any], trials: Sequence[dict[str, Any]]) -> str:
    """Write the study into MLflow and return the run's id; a study that went on since is written into its run anew.

    `record`: what components.search returns. `trials`: number, state, parameters, value, steps, seconds of each.
    Raises UnavailableError when MLflow does not answer.
    """
    from mlflow.entities import Metric, Param  # noqa: PLC0415 (takes seconds)

    client = registry_client(mlflow_uri)
    experiment = experiment_id(client, EXPERIMENT, mlflow_uri)
    known = client.search_runs([experiment], f"tags.study = '{record['study']}'")
    run_id: str = (known[0] if known else client.create_run(experiment, run_name=record["study"])).info.run_id
    about = {"candidate": record["candidate"], "seed": record["seed"], "table.gold/examples": record["examples_version"]}
    client.log_batch(run_id, params=[Param(key, str(value)) for key, value in about.items()])
    client.set_tag(run_id, "study", record["study"])
    client.set_tag(run_id, "best_parameters", json.dumps(record["best"]["parameters"], sort_keys=True))
    ended = [trial for trial in trials if trial["value"] is not None]
    metrics = [Metric("explained_share", trial["value"], 0, trial["number"]) for trial in ended]
    best = [Metric("best_explained_share", record["best"]["value"], 0, len(trials))]
    client.log_batch(run_id, metrics=[*metrics, *best, *(Metric(f"trials.{k}", n, 0, len(trials)) for k, n in record["trials"].items())])
    client.log_dict(run_id, {**record, "all": list(trials)}, "search.json")
    client.set_terminated(run_id, "FINISHED")
    return run_id
