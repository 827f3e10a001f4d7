"""Pipeline YAML and arguments -> a run on a Kubeflow Pipelines server, watched to its end: one printed line a task, as on this machine.

Nothing of the run is on this machine: its data are below `root` in S3, and a stopped watcher leaves it running.
"""

import contextlib
import io
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import yaml
from kfp_server_api.exceptions import ApiException
from urllib3.exceptions import HTTPError

from components.interfaces import IMAGE
from components.land_events import inputs
from pipelines.images import in_registry
from pipelines.local_runner import Task, shown_names
from promolift.errors import InputError, PromoliftError, UnavailableError
from promolift.settings import Settings
from promolift.storage import copy, is_remote

POLL_S = 5.0
DONE = "SUCCEEDED"
ENDED = (DONE, "FAILED", "CANCELED", "SKIPPED")


@dataclass(frozen=True)
class Server:
    """Where the server is ("" in a pod of its cluster), the bearer token ("" without), and the namespace that runs are in."""

    host: str
    token: str = ""
    namespace: str = ""

    def client(self) -> Any:
        """KFP's client. Raises UnavailableError when the server does not answer or refuses."""
        from kfp import Client  # noqa: PLC0415 (it loads Kubernetes' client, which only a cluster's run needs)

        with _refusals(self.host), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._probe()
            given = {"host": self.host or None, "existing_token": self.token or None}
            return Client(**given, **({"namespace": self.namespace} if self.namespace else {}))

    def _probe(self) -> None:
        """Ask once by hand: KFP's client tries a server that refuses for 25 seconds, and then does not say what it said."""
        if self.host:
            headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            found = httpx.get(f"{self.host.rstrip('/')}/apis/v2beta1/healthz", headers=headers, timeout=10)
            if not found.is_success:
                raise ApiException(status=found.status_code, reason=found.text)


def for_cluster(pipeline: str, registry: str = "", *, gpu: bool = True) -> str:
    """The YAML with its images in `registry` ("" where nodes have them), Spark's pods told of it; `gpu` false: no task asks for one."""
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(pipeline))
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        container = executor["container"]
        starts_spark = container["image"].startswith(IMAGE.format(group="spark"))
        container["image"] = in_registry(container["image"], registry)
        if not gpu:
            container.get("resources", {}).pop("accelerator", None)
        if starts_spark:
            container["env"] = [*container.get("env", ()), {"name": "PROMOLIFT_SPARK_IMAGE", "value": container["image"]}]
    return str(yaml.safe_dump_all(documents, sort_keys=False))


def run_on_server(pipeline: str, arguments: dict[str, Any], server: Server, name: str, screen: Any) -> dict[str, Task]:
    """Submit the YAML as a run `name` and wait for its end. Returns the tasks that did their work, in the order they ended.

    Raises UnavailableError when the server cannot be used, InputError for what it refuses as wrong, PromoliftError when the run failed.
    """
    client = server.client()
    with _refusals(server.host), TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        package = Path(folder, "pipeline.yaml")
        package.write_text(pipeline, encoding="utf-8")
        run = client.create_run_from_pipeline_package(
            str(package), arguments=arguments, run_name=name, experiment_name="promolift", namespace=server.namespace or None
        )
    screen.write(f"  run {run.run_id} of {server.host or 'this cluster'}; it goes on when this command is stopped\n")
    names = shown_names(next(iter(yaml.safe_load_all(pipeline))))
    return _watched(client, run.run_id, names, server, screen)


def _watched(client: Any, run_id: str, names: dict[str, str], server: Server, screen: Any) -> dict[str, Task]:
    """Show each task as it ends; what a run passes over (the branch of a condition) is shown and is none of the result."""
    ended: dict[str, Any] = {}
    while True:
        with _refusals(server.host):
            run = client.get_run(run_id)
        details = run.run_details.task_details or () if run.run_details else ()
        for one in details:
            shown = names.get(one.display_name, one.display_name)
            if shown in names.values() and one.state in ENDED and shown not in ended:
                ended[shown] = one
                screen.write(f"  {shown:<22} {_seconds(one):6.1f} s{'' if one.state == DONE else f'  {one.state.lower()}'}\n")
                screen.flush()
        if run.state in ENDED:
            break
        time.sleep(POLL_S)
    if run.state != DONE:
        raise _failure(run, ended)
    return {shown: Task(shown, _seconds(one)) for shown, one in ended.items() if one.state == DONE}


def _failure(run: Any, ended: dict[str, Any]) -> PromoliftError:
    failed = [shown for shown, one in ended.items() if one.state == "FAILED"]
    why = next((str(one.error.message) for one in (*ended.values(), run) if one.error and one.error.message), "no reason given")
    return PromoliftError(f"Run {run.run_id} ended as {run.state}{f' at {failed[0]}' if failed else ''}: {why}. Its pods' logs say more.")


def _seconds(detail: Any) -> float:
    return float((detail.end_time - detail.start_time).total_seconds()) if detail.start_time and detail.end_time else 0.0


@contextlib.contextmanager
def _refusals(host: str) -> Iterator[None]:
    where = f"The Kubeflow Pipelines server {host or 'of this cluster'}"
    try:
        yield
    except ApiException as problem:
        if problem.status in {401, 403}:
            raise UnavailableError(f"{where} does not let us in ({problem.status}); set PROMOLIFT_KFP_TOKEN to a valid token.") from problem
        said = str(problem.body or problem.reason).strip()[:500]
        if problem.status == 400:
            raise InputError(f"{where} refuses the run: {said}") from problem
        raise UnavailableError(f"{where} fails ({problem.status}): {said}") from problem
    except (httpx.HTTPError, HTTPError, TimeoutError, OSError) as problem:
        raise UnavailableError(f"{where} does not answer ({str(problem)[:200]}); check --host and the network.") from problem


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
