"""Documents -> what breaks our rules, a function each, with its reason; `tests/deployment/broken` has a manifest for each."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from deployment.pods import Pod, pods_of, selects
from deployment.render import kinds
from deployment.schemas import name_of
from promolift.kubectl import Document

TAGGED = re.compile(r"^[\w./-]+(:[0-9]+/[\w./-]+)?:[\w.-]+-[0-9a-f]{12}-[0-9a-f]{12}$|@sha256:[0-9a-f]{64}$")
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|SALT|_KEY|REDIS_URL")
URL_WITH_PASSWORD = re.compile(r"[a-z0-9+]+://[^/\s:@]*:[^/\s@]+@")
Policy = Callable[[Sequence[Document]], Iterator[str]]


def broken(documents: Sequence[Document], policies: Sequence[Policy] | None = None) -> list[str]:
    """A sentence for each breach: the rule, the document, what to do."""
    return [f"{policy.__name__}: {line}" for policy in policies or POLICIES for line in policy(documents)]


def pinned_images(documents: Sequence[Document]) -> Iterator[str]:
    """A tag that says its content: a node's copy is then the right one, and a pipeline's cache is too."""
    for pod, container in _every(documents):
        if not TAGGED.search(container.get("image", "")):
            yield f"{pod.owner} runs {container.get('image')}; name an image by a tag of two content hashes, or by digest."
        if container.get("imagePullPolicy") != "IfNotPresent":
            yield f"{pod.owner}, container {container['name']}: set imagePullPolicy to IfNotPresent."


def restricted(documents: Sequence[Document]) -> Iterator[str]:
    """Pod Security `restricted`, with a root file system that nobody writes."""
    for pod, container in _every(documents):
        own, whole = container.get("securityContext", {}), pod.spec.get("securityContext", {})
        kept = {
            "allowPrivilegeEscalation: false": own.get("allowPrivilegeEscalation") is False,
            "readOnlyRootFilesystem: true": own.get("readOnlyRootFilesystem") is True,
            "capabilities: drop ALL": own.get("capabilities", {}).get("drop") == ["ALL"] and not own["capabilities"].get("add"),
            "runAsNonRoot: true": own.get("runAsNonRoot", whole.get("runAsNonRoot")) is True,
            "seccompProfile: RuntimeDefault": own.get("seccompProfile", whole.get("seccompProfile")) == {"type": "RuntimeDefault"},
        }
        missing = [name for name, holds in kept.items() if not holds]
        if missing:
            yield f"{pod.owner}, container {container['name']} lacks {'; '.join(missing)}."
    for pod in pods_of(documents):
        shared = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.spec.get(name)]
        shared += [f"hostPath of volume {volume['name']}" for volume in pod.spec.get("volumes", ()) if "hostPath" in volume]
        if shared:
            yield f"{pod.owner} has {', '.join(shared)} of its node; a pod gets nothing of it."


def bounded(documents: Sequence[Document]) -> Iterator[str]:
    """Requests for the scheduler, a limit of memory against leaks; a limit of CPU would only make it slow."""
    for pod, container in _every(documents):
        resources = container.get("resources", {})
        wanted = {"requests.cpu": "requests", "requests.memory": "requests", "limits.memory": "limits"}
        missing = [name for name, part in wanted.items() if name.split(".")[1] not in resources.get(part, {})]
        if missing:
            yield f"{pod.owner}, container {container['name']} sets no {', '.join(missing)}."


def probed(documents: Sequence[Document]) -> Iterator[str]:
    """What hangs is started again, and what is not ready gets no requests."""
    for pod in pods_of(documents):
        for container in pod.containers:
            wanted = ["livenessProbe", *(["readinessProbe", "startupProbe"] if container.get("ports") else [])]
            missing = [name for name in wanted if name not in container]
            if missing:
                yield f"{pod.owner}, container {container['name']} has no {', '.join(missing)}."


def tokenless(documents: Sequence[Document]) -> Iterator[str]:
    """An account of its own, and no token of the API server where none is needed."""
    accounts = {document["metadata"]["name"]: document for document in kinds(documents, "ServiceAccount")}
    for pod in pods_of(documents):
        name = pod.spec.get("serviceAccountName", "default")
        if accounts.get(name, {}).get("automountServiceAccountToken") is not False:
            yield f"{pod.owner} runs as ServiceAccount {name}; give it one of ours with automountServiceAccountToken: false."
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.owner} gets a token of the API server; set automountServiceAccountToken: false."


def secrets_by_reference(documents: Sequence[Document]) -> Iterator[str]:
    """Manifests are read by many; a secret in them is none."""
    for document in kinds(documents, "Secret"):
        yield f"{name_of(document)} is a secret in text; make it in the cluster and only name it."
    for pod, container in _every(documents):
        for variable in container.get("env", ()):
            if SECRET_NAME.search(variable["name"]) and "valueFrom" not in variable:
                yield f"{pod.owner} sets {variable['name']} in text; take it from a Secret with valueFrom."
    for document in documents:
        if any(URL_WITH_PASSWORD.search(text) for text in _texts(document)):
            yield f"{name_of(document)} holds a URL with a password; put it in a Secret."


def denied_by_default(documents: Sequence[Document]) -> Iterator[str]:
    """Nothing talks to anything that no policy names."""
    policies = [document["spec"] for document in kinds(documents, "NetworkPolicy")]
    if not any(
        spec["podSelector"] == {} and set(spec["policyTypes"]) == {"Ingress", "Egress"} and "ingress" not in spec for spec in policies
    ):
        yield "No NetworkPolicy denies everything by default; add one with an empty podSelector and both policyTypes."
    named = [spec for spec in policies if spec["podSelector"]]
    for pod in pods_of(documents):
        if not any(selects(spec["podSelector"], pod.labels) for spec in named):
            yield f"{pod.owner}: no NetworkPolicy says whom it may talk to."
    for spec in policies:
        if any(rule == {} for part in ("ingress", "egress") for rule in spec.get(part, ())):
            yield f"A NetworkPolicy of {spec['podSelector']} allows everything; name peers or ports."


def disruptible(documents: Sequence[Document]) -> Iterator[str]:
    """A drained node takes one pod at a time, and always may."""
    budgets = [document["spec"] for document in kinds(documents, "PodDisruptionBudget")]
    for pod in (pod for pod in pods_of(documents) if pod.several):
        found = [spec for spec in budgets if selects(spec["selector"], pod.labels)]
        if not any(spec.get("maxUnavailable") == 1 for spec in found):
            yield f"{pod.owner} has no PodDisruptionBudget with maxUnavailable: 1."


def updated_without_gap(documents: Sequence[Document]) -> Iterator[str]:
    """A new pod is ready before an old one goes, which first waits until nobody sends it requests; replicas spread over nodes."""
    for pod in (pod for pod in pods_of(documents) if pod.several):
        if (pod.update or {}).get("maxUnavailable") != 0:
            yield f"{pod.owner}: set maxUnavailable of its rolling update to 0."
        if "preStop" not in pod.containers[0].get("lifecycle", {}):
            yield f"{pod.owner}: its main container has no preStop that outlasts the Service's forgetting."
        if not pod.spec.get("topologySpreadConstraints"):
            yield f"{pod.owner}: set topologySpreadConstraints."


def graph_complete(documents: Sequence[Document]) -> Iterator[str]:
    """Every step of the graph is a service here, in the mode in which a graph finds it."""
    services = {document["metadata"]["name"]: document for document in kinds(documents, "InferenceService")}
    for graph in kinds(documents, "InferenceGraph"):
        steps = [step for node in graph["spec"]["nodes"].values() for step in node["steps"]]
        for name in (step["serviceName"] for step in steps if "serviceName" in step):
            if name not in services:
                yield f"{name_of(graph)} asks {name}, and there is no such InferenceService."
        if not any(step["name"] == "constraints" for step in steps):
            yield f"{name_of(graph)} has no step constraints, which reserves the budget and writes the log."
    for document in (*services.values(), *kinds(documents, "InferenceGraph")):
        if document["metadata"].get("annotations", {}).get("serving.kserve.io/deploymentMode") != "Standard":
            yield f"{name_of(document)}: set the annotation serving.kserve.io/deploymentMode to Standard."


def in_one_namespace(documents: Sequence[Document]) -> Iterator[str]:
    """A graph finds services of its own namespace only, and that namespace warns of pods that are not `restricted`."""
    spaces = kinds(documents, "Namespace")
    names = {document["metadata"]["name"] for document in spaces}
    for document in documents:
        space_name = document["metadata"].get("namespace")
        if document["kind"] not in {"Namespace", "PersistentVolume"} and space_name not in names:
            yield f"{name_of(document)} is in namespace {space_name}, not in {', '.join(names) or 'one of ours'}."
    for space in spaces:
        if space["metadata"].get("labels", {}).get("pod-security.kubernetes.io/warn") != "restricted":
            yield f"{name_of(space)}: set the label pod-security.kubernetes.io/warn to restricted."


POLICIES: tuple[Policy, ...] = (
    pinned_images, restricted, bounded, probed, tokenless, secrets_by_reference, denied_by_default, disruptible, updated_without_gap,
    graph_complete, in_one_namespace,
)  # fmt: skip


def _every(documents: Sequence[Document]) -> Iterator[tuple[Pod, Document]]:
    for pod in pods_of(documents):
        for container in (*pod.spec.get("initContainers", ()), *pod.containers):
            yield pod, container


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
