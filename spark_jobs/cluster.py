"""Jobs -> pods of a cluster, from application.yaml: a SparkApplication of Kubeflow's Spark operator, or spark-submit's own driver pod.

The driver's log is passed on as it comes, its exit status is ours, and nothing is left in the cluster, whatever happens.
"""

import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyspark
import yaml
from kubernetes import client, config
from urllib3.exceptions import HTTPError

from promolift.errors import InputError, UnavailableError
from promolift.settings import Settings
from promolift.storage import is_remote, spelled

GROUP, VERSION, KIND = "sparkoperator.k8s.io", "v1beta2", "sparkapplications"
START_S, POLL_S = 300.0, 1.0
HOPELESS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
)
"""Reasons why a pod waits that do not go away by themselves."""
Document = dict[str, Any]


def application(jobs: Sequence[str], lake: str, settings: Settings) -> Document:
    """The SparkApplication that runs the jobs. Raises InputError for a lake that pods cannot reach, or without an image."""
    if not is_remote(lake):
        raise InputError(f"Pods do not see the lake '{lake}'; keep it in S3 (s3a://bucket/prefix).")
    if not settings.spark_image:
        raise InputError("PROMOLIFT_SPARK_IMAGE is not set; name the image of group spark (`make images` prints it), which nodes can pull.")
    made: Document = yaml.safe_load(Path(__file__).with_name("application.yaml").read_text(encoding="utf-8"))
    made["metadata"]["name"] = f"promolift-{jobs[0].replace('_', '-')}-{secrets.token_hex(4)}"
    spec = made["spec"]
    spec |= {"image": settings.spark_image, "arguments": [*jobs, "--lake", spelled(lake), "--submitted"]}
    size = {"cores": settings.spark_cores, "coreRequest": settings.spark_core_request, "memory": settings.spark_memory}
    spec["driver"] |= {**size, "podName": f"{made['metadata']['name']}-driver"}
    spec["executor"] |= {**size, "instances": settings.spark_executors}
    # two tasks a core keep all of them busy while one is slow
    spec["sparkConf"]["spark.sql.shuffle.partitions"] = str(2 * settings.spark_cores * settings.spark_executors)
    return made


def submit_options(made: Document, folder: Path) -> list[str]:
    """The same as options of spark-submit; the pod templates are written into `folder`."""
    spec, space = made["spec"], "spark.kubernetes"
    found = {
        **spec["sparkConf"],
        "spark.executor.instances": spec["executor"]["instances"],
        f"{space}.namespace": made["metadata"]["namespace"],
        f"{space}.container.image": spec["image"],
        f"{space}.container.image.pullPolicy": spec["imagePullPolicy"],
        f"{space}.driver.pod.name": spec["driver"]["podName"],
        f"{space}.submission.waitAppCompletion": "false",
    }
    for role in ("driver", "executor"):
        part, template = spec[role], folder / f"{role}.yaml"
        template.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", **part["template"]}), encoding="utf-8")
        found |= {
            f"spark.{role}.cores": part["cores"], f"spark.{role}.memory": part["memory"],
            f"{space}.{role}.request.cores": part["coreRequest"],
            f"{space}.{role}.podTemplateFile": template,
            f"{space}.{role}.podTemplateContainerName": part["template"]["spec"]["containers"][0]["name"],
            f"{space}.authenticate.{role}.serviceAccountName": part["serviceAccount"],
            **{f"{space}.{role}.label.{key}": value for key, value in part["labels"].items()},
        }  # fmt: skip
    pairs = [word for key, value in found.items() for word in ("--conf", f"{key}={value}")]
    return ["--name", made["metadata"]["name"], "--deploy-mode", "cluster", *pairs, spec["mainApplicationFile"], *spec["arguments"]]


def run(made: Document, way: str) -> int:
    """Run the application by `way` ("submit" or "operator") to its end and return the driver's exit status.

    Raises UnavailableError where there is no cluster, no operator or no place for its pods.
    """
    with _refusals():
        _connect()
        with (_submitted if way == "submit" else _applied)(made):
            driver = Driver(made["metadata"]["namespace"], made["spec"]["driver"]["podName"])
            driver.wait_started(made["metadata"]["name"] if way == "operator" else "")
            driver.follow()
            return driver.status()


def _connect() -> None:
    """The cluster of KUBECONFIG; in a pod without one, the pod's own."""
    file = os.environ.get("KUBECONFIG", "")
    if not file and "KUBERNETES_SERVICE_HOST" in os.environ:
        config.load_incluster_config()
    else:
        config.load_kube_config(config_file=file or str(Path.home() / ".kube/config"))


@contextmanager
def _submitted(made: Document) -> Iterator[None]:
    """spark-submit makes the driver's pod, with it its services and executors go."""
    core, space = client.CoreV1Api(), made["metadata"]["namespace"]
    core.list_namespaced_pod(space, limit=1)
    host = core.api_client.configuration.host
    with TemporaryDirectory() as folder:
        submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
        command = [str(submit), "--master", f"k8s://{host}", *submit_options(made, Path(folder))]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                said = [line for line in done.stderr.splitlines() if "rror" in line or "xception" in line] or ["no message"]
                raise UnavailableError(f"spark-submit could not start the driver in {space}: {said[0].strip()}")
            yield
        finally:
            _gone(core.delete_namespaced_pod, made["spec"]["driver"]["podName"], space)


@contextmanager
def _applied(made: Document) -> Iterator[None]:
    """The operator makes the pods of a SparkApplication, and with it they go."""
    api, space, name = client.CustomObjectsApi(), made["metadata"]["namespace"], made["metadata"]["name"]
    try:
        api.create_namespaced_custom_object(GROUP, VERSION, space, KIND, made)
    except client.ApiException as problem:
        if problem.status != 404:
            raise
        raise UnavailableError(
            f"The cluster has no SparkApplication ({GROUP}/{VERSION}) or no namespace {space}; install Kubeflow's Spark operator and run "
            "`python -m deployment spark`, or submit without the operator."
        ) from problem
    try:
        yield
    finally:
        _gone(lambda one, space: api.delete_namespaced_custom_object(GROUP, VERSION, space, KIND, one), name, space)


def _gone(delete: Any, name: str, space: str) -> None:
    try:
        delete(name, space)
    except client.ApiException as problem:
        if problem.status != 404:
            raise


@dataclass(frozen=True)
class Driver:
    """The driver's pod."""

    space: str
    name: str

    def wait_started(self, owner: str = "") -> None:
        """Wait until its container runs or has ended. `owner`: the SparkApplication that shall make it.

        Raises UnavailableError with the cluster's reason when it cannot start, or does not in time.
        """
        deadline, why = time.monotonic() + START_S, "nothing was made"
        while time.monotonic() < deadline:
            if owner and (failed := _failure(owner, self.space)):
                raise UnavailableError(f"The Spark operator could not submit {owner}: {failed}")
            pod = self._pod()
            if pod and pod.status.phase != "Pending":
                return
            hopeless, why = _waiting(pod) if pod else (False, why)
            if hopeless:
                break
            time.sleep(POLL_S)
        raise UnavailableError(f"The driver {self.name} in {self.space} does not start: {why}")

    def follow(self) -> None:
        """Print its log until it has ended; a log that breaks off is taken up again."""
        since: dict[str, int] = {}
        while True:
            core = client.CoreV1Api()
            log = core.read_namespaced_pod_log(self.name, self.space, follow=True, _preload_content=False, **since)
            for line in _lines(log):
                print(line, flush=True)
            pod = self._pod()
            if pod is None or pod.status.phase not in {"Pending", "Running"}:
                return
            since = {"since_seconds": 1}
            time.sleep(POLL_S)

    def status(self) -> int:
        """Its container's exit status. Raises UnavailableError when the pod is gone or was killed."""
        pod = self._pod()
        ended = [one.state.terminated for one in (pod.status.container_statuses or () if pod else ()) if one.state.terminated]
        if not ended or ended[0].exit_code >= 128:
            why = f"{ended[0].reason}, exit status {ended[0].exit_code}" if ended else "its pod was deleted"
            raise UnavailableError(f"The driver {self.name} in {self.space} was killed ({why}); give it more with PROMOLIFT_SPARK_MEMORY.")
        return int(ended[0].exit_code)

    def _pod(self) -> Any:
        try:
            return client.CoreV1Api().read_namespaced_pod(self.name, self.space)
        except client.ApiException as problem:
            if problem.status != 404:
                raise
            return None


def _failure(name: str, space: str) -> str:
    """What the operator says of an application that it could not submit; empty while there is hope."""
    found = client.CustomObjectsApi().get_namespaced_custom_object(GROUP, VERSION, space, KIND, name)
    state = found.get("status", {}).get("applicationState", {})
    failed = state.get("state") in {"SUBMISSION_FAILED", "FAILED"} and not found["status"].get("driverInfo", {}).get("podName")
    return str(state.get("errorMessage") or "no reason given").strip().splitlines()[-1] if failed else ""


def _waiting(pod: Any) -> tuple[bool, str]:
    """Whether a pending pod has no hope, and what it waits for."""
    for one in pod.status.container_statuses or ():
        waiting = one.state.waiting
        if waiting and waiting.reason in HOPELESS:
            return True, f"{waiting.reason}: {waiting.message or one.image}"
    reasons = [one.message for one in pod.status.conditions or () if one.status == "False" and one.message]
    return False, (reasons or ["its container has not started"])[0]


def _lines(log: Any) -> Iterator[str]:
    rest = b""
    for part in log.stream():
        *whole, rest = (rest + part).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except config.ConfigException as problem:
        raise UnavailableError(f"There is no cluster to submit to ({problem}); set KUBECONFIG.") from problem
    except client.ApiException as problem:
        said = json.loads(problem.body).get("message", "") if (problem.body or "").startswith("{") else problem.reason
        raise UnavailableError(f"The cluster refuses ({problem.status}): {said}") from problem
    except HTTPError as problem:
        raise UnavailableError(f"The cluster does not answer ({str(problem)[:200]}); check KUBECONFIG and the network.") from problem
