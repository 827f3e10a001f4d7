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
from pipelines.local_runner import Task, shown_names
from promolift.errors import InputError, PromoliftError, UnavailableError

POLL_S = 5.0
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


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
    place = IMAGE.split("/", maxsplit=1)[0] + "/"
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        container = executor["container"]
        if not gpu:
            container.get("resources", {}).pop("accelerator", None)
        if registry:
            container["image"] = f"{registry.rstrip('/')}/{container['image']}"
        if container["image"].split(":")[0].endswith(f"{place}spark"):
            container["env"] = [*container.get("env", ()), {"name": "PROMOLIFT_SPARK_IMAGE", "value": container["image"]}]
    return str(yaml.safe_dump_all(documents, sort_keys=False))


def run_on_server(pipeline: str, arguments: dict[str, Any], server: Server, name: str, screen: Any) -> dict[str, Task]:
    """Submit the YAML as a run `name` and wait for its end. Returns the tasks by shown name, in the order they ended.

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
    tasks: dict[str, Task] = {}
    while True:
        with _refusals(server.host):
            run = client.get_run(run_id)
        details = run.run_details.task_details or () if run.run_details else ()
        for one in details:
            shown = names.get(one.display_name, one.display_name if one.display_name in names.values() else "")
            if shown and one.state in ENDED and shown not in tasks:
                tasks[shown] = _task(shown, one)
                screen.write(f"  {shown:<22} {tasks[shown].seconds:6.1f} s{'' if one.state == 'SUCCEEDED' else f'  {one.state.lower()}'}\n")
                screen.flush()
        if run.state in ENDED:
            break
        time.sleep(POLL_S)
    if run.state != "SUCCEEDED":
        failed = [names.get(one.display_name, one.display_name) for one in details if one.state == "FAILED"]
        why = next((str(one.error.message) for one in (*details, run) if one.error and one.error.message), "no reason given")
        raise PromoliftError(f"Run {run_id} ended as {run.state}{f' at {failed[0]}' if failed else ''}: {why}. Its pods' logs say more.")
    return {shown: task for shown, task in tasks.items() if task.seconds is not None}


def _task(shown: str, detail: Any) -> Task:
    began, ended = detail.start_time or detail.create_time, detail.end_time
    seconds = (ended - began).total_seconds() if began and ended else 0.0
    return Task(shown, max(0.0, seconds))


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
