"""A script of `pods/` -> run inside the cluster, where a caller of the Services would be."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from promolift.kubectl import NAMESPACE, Kubectl

PODS = Path(__file__).with_name("pods")
CALLERS = "promolift-callers"
WRITABLE = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
AS_NOBODY = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}


def pod(kubectl: Kubectl, namespace: str, name: str, script: str, arguments: Sequence[str], files: dict[str, str]) -> list[Any]:
    """A pod that runs the script in the engine's image, and the ConfigMap that brings script and files."""
    metadata = {"name": name, "namespace": namespace, "labels": {"app": name}}
    engine = kubectl.get("-n", NAMESPACE, "deployment", "promo-engine")["spec"]["template"]["spec"]["containers"][0]
    container = {
        "name": "main", "image": engine["image"], "imagePullPolicy": "IfNotPresent",
        "command": ["python", f"/scripts/{script}", *arguments], "securityContext": WRITABLE,
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [{"name": "scripts", "mountPath": "/scripts", "readOnly": True}],
    }  # fmt: skip
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {script: (PODS / script).read_text(), **files}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False,
            "securityContext": AS_NOBODY, "containers": [container],
            "volumes": [{"name": "scripts", "configMap": {"name": name}}],
        }},
    ]  # fmt: skip


def load(kubectl: Kubectl, name: str, url: str, bodies: Sequence[Any], seconds: int, rate: int, *headers: str) -> dict[str, Any]:
    """What a caller in another namespace measured of `url`."""
    return call(kubectl, name, "load.py", [url, str(seconds), str(rate), *headers], bodies, seconds + 60)


def call(kubectl: Kubectl, name: str, script: str, arguments: Sequence[str], bodies: Sequence[Any], most_s: int) -> dict[str, Any]:
    """The last line that a script printed in a pod of the callers' namespace."""
    kubectl.apply(pod(kubectl, CALLERS, name, script, arguments, {"bodies.json": json.dumps(bodies)}))
    try:
        wanted = "--for=jsonpath={.status.phase}=Succeeded"
        if kubectl.attempt("-n", CALLERS, "wait", f"pod/{name}", wanted, f"--timeout={most_s}s").returncode:
            raise AssertionError(f"{script} did not end well: {kubectl.attempt('-n', CALLERS, 'logs', name).stdout}")
        measured: dict[str, Any] = json.loads(kubectl("-n", CALLERS, "logs", name).strip().splitlines()[-1])
        return measured
    finally:
        kubectl("-n", CALLERS, "delete", "pod,configmap", "-l", f"app={name}", "--wait=true")


def during(work: Callable[[], dict[str, Any]], disturb: Callable[[], None], after_s: float) -> dict[str, Any]:
    """The work's result, with `disturb` called while it runs."""
    failed: list[BaseException] = []

    def later() -> None:
        time.sleep(after_s)
        try:
            disturb()
        except BaseException as problem:
            failed.append(problem)

    thread = threading.Thread(target=later)
    thread.start()
    found = work()
    thread.join()
    if failed:
        raise failed[0]
    return found
