"""A finished run -> served on a cluster that is there for trying things out, and taken off it again without a trace."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from deployment import release
from deployment.policies import broken
from deployment.render import MANIFESTS, Build, Release, kinds, render
from deployment.schemas import mistakes
from deployment.secret_values import make_secrets
from promolift.contracts.artifacts import write_json
from promolift.errors import ConflictError, ExpectationError, UnavailableError
from promolift.kubectl import NAMESPACE, Document, Kubectl, need_images, need_kserve
from promolift.promotion.graph_change import NODE

OUT, RECORD = Path("build/deploy"), "deployed.json"
FIRST = ("Namespace", "ServiceAccount", "ConfigMap", "PersistentVolume", "StatefulSet")
"""What Redis needs; the rest is applied once the model's address is known."""
IMAGE = "{.spec.template.spec.containers[0].image}"
WAIT_S, REPEATEDLY = 240, 3


@dataclass(frozen=True)
class Plan:
    """What to deploy: the run, the images' registry ("": carried to the nodes), and where to keep what was rendered and the API key."""

    run: Path
    registry: str
    out: Path


@dataclass(frozen=True)
class Deployed:
    """What was deployed: context, run folder, model."""

    context: str
    run: Path
    release: Release


def deploy(kubectl: Kubectl, plan: Plan) -> None:
    """Deploy the run. Whatever fails, a new deployment is removed again, and one that stood before is put back.

    Raises the sentence of what is missing before anything is applied.
    """
    build = Build("local", components=() if _has_storage(kubectl) else ("node-volume",), registry=plan.registry)
    release.manifest_of(plan.run)
    release.credentials()
    need_kserve(kubectl)
    _need_no_canary(kubectl)
    if not plan.registry:
        need_images(kubectl, list(build.images().values()))
    before = _standing(kubectl, plan)
    try:
        _deploy(kubectl, plan, build)
    except BaseException:  # an interrupt or a mistake of our own leaves nothing half applied either
        _take_back(kubectl, plan, before)
        raise


def _need_no_canary(kubectl: Kubectl) -> None:
    """Raises ConflictError while a promotion has its candidate in the graph: applying the manifests would end it behind its back."""
    found = kubectl.attempt("-n", NAMESPACE, "get", "inferencegraph", "promo-decision", "-o", "json")
    if found.returncode == 0 and NODE in json.loads(found.stdout)["spec"]["nodes"]:
        raise ConflictError("A canary is in the graph promo-decision; let its promotion end, or roll it back, and deploy again.")


def deployed(kubectl: Kubectl, out: Path) -> Deployed:
    """What `deploy` left on this context. Raises UnavailableError for nothing."""
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
        found = Deployed(record["context"], Path(record["run"]), Release(**record["release"]))
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise UnavailableError(f"Nothing was deployed from here ({problem}); do it with `make deploy-local`.") from problem
    if found.context != kubectl.context or kubectl.attempt("-n", NAMESPACE, "get", "inferencegraph", "promo-decision").returncode:
        raise UnavailableError(f"Context '{kubectl.context}' has no graph promo-decision of ours; deploy it with `make deploy-local`.")
    return found


def undeploy(kubectl: Kubectl, plan: Plan) -> None:
    """Delete the namespace, the volume with its folder on the node, and the bucket."""
    _say("deleting namespace, volume and bucket")
    _remove(kubectl, plan)
    release.forget()


def _remove(kubectl: Kubectl, plan: Plan) -> None:
    """Delete everything but what is in S3."""
    image = kubectl.attempt("-n", NAMESPACE, "get", "statefulset", "promo-redis", "-o", f"jsonpath={IMAGE}").stdout
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true", f"--timeout={WAIT_S}s")
    if kubectl.attempt("get", "pv", "promo-redis").returncode == 0:
        _node_folder(kubectl, image or Build("local", registry=plan.registry).images()["online"], "remove")
        kubectl("delete", "pv", "promo-redis", "--ignore-not-found", f"--timeout={WAIT_S}s")
    for name in ("manifests.yaml", "kustomization.yaml", "api_keys.json", "api_key", "registry.db", RECORD):
        (plan.out / name).unlink(missing_ok=True)


def _deploy(kubectl: Kubectl, plan: Plan, build: Build) -> None:
    documents = _checked(build, plan.out)
    _say("namespace, secrets and Redis")
    kubectl.apply(kinds(documents, "Namespace"))
    make_secrets(kubectl, plan.out)
    if build.components:
        _node_folder(kubectl, build.images()["online"], "make")
    kubectl.apply([*kinds(documents, *FIRST), *_named(documents, "Service", "promo-redis")])
    kubectl("-n", NAMESPACE, "rollout", "status", "statefulset/promo-redis", f"--timeout={WAIT_S}s")
    _say("features into Redis, the model to S3")
    registry = plan.out / "registry.db"
    _features_online(kubectl, plan.run, registry)
    delivered = release.deliver(plan.run, registry)
    documents = _checked(Build(build.overlay, delivered, build.components, build.registry), plan.out)
    kubectl.apply(documents, "--dry-run=server")
    _say(f"boxes, graph, engine and relay for {delivered.uri}")
    given_up = _given_up(kubectl)
    kubectl.apply(documents)
    wait(kubectl, given_up)
    write_json(plan.out / RECORD, Deployed(kubectl.context, plan.run.resolve(), delivered))


def _features_online(kubectl: Kubectl, run: Path, registry: Path) -> None:
    """The run's features in the deployment's Redis. Raises UnavailableError, with the last words of a Redis that ended meanwhile."""
    with kubectl.forwarded("pod/promo-redis-0", 6379) as port:
        try:
            release.materialize(run, f"redis://:{kubectl.secret('promo-secrets', 'redis_password')}@127.0.0.1:{port}/0", registry)
        except UnavailableError as problem:
            said = kubectl.attempt("-n", NAMESPACE, "logs", "promo-redis-0", "--previous", "--tail=2").stdout
            if not said.strip():
                raise
            words = " ".join(said.split())
            raise UnavailableError(
                f"{problem} Its container ended with: {words} If its volume is full, enlarge the claim data-promo-redis-0 and deploy again."
            ) from problem


def _checked(build: Build, out: Path) -> list[Document]:
    documents = render(build, out)
    wrong = [*mistakes(documents), *broken(documents)]
    if wrong:
        raise ExpectationError("The manifests are not fit to be applied: " + " ".join(wrong))
    return documents


def wait(kubectl: Kubectl, before: set[str]) -> None:
    """Until boxes, graph and programs are ready.

    Raises UnavailableError that says what is not, and why; at once for a container that ended REPEATEDLY, unless its pod is one of
    `before`, which an earlier deployment left.
    """
    deadline, said = time.monotonic() + WAIT_S, ""
    while lacking := missing(kubectl):
        if (line := ", ".join(lacking)) != said:
            _say(f"waiting for {line}")
            said = line
        if _given_up(kubectl) - before or time.monotonic() > deadline:
            raise UnavailableError(f"Not ready: {said}. {_reasons(kubectl)}")
        time.sleep(2)


def missing(kubectl: Kubectl) -> list[str]:
    """What is not ready in the form that was applied last; an old pod that still answers does not count."""
    found = kubectl.get("-n", NAMESPACE, "inferenceservice,inferencegraph,deployment")["items"]
    ready = {"promo-decision": False} | {item["metadata"]["name"]: _ready(item) for item in found}
    return [name for name, is_ready in ready.items() if not is_ready]


def _ready(item: Document) -> bool:
    status, generation = item.get("status", {}), item["metadata"]["generation"]
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions", ())}
    if item["kind"] == "Deployment":
        counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")}
        return status.get("observedGeneration") == generation and counts == {item["spec"]["replicas"]}
    if item["kind"] == "InferenceService" and status.get("observedGeneration") != generation:
        return False
    return conditions.get("Ready") == "True"


def _containers(pod: Document) -> list[Document]:
    status = pod["status"]
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def _given_up(kubectl: Kubectl) -> set[str]:
    """Pods with a container that ended again and again."""
    pods = kubectl.get("-n", NAMESPACE, "pods")["items"]
    ended = {pod["metadata"]["name"]: [c for c in _containers(pod) if not c["ready"] and c["restartCount"] >= REPEATEDLY] for pod in pods}
    return {name for name, containers in ended.items() if containers}


def _reasons(kubectl: Kubectl) -> str:
    """What every container that does not run says of itself, by its state and the last line of its log."""
    found = []
    for pod in kubectl.get("-n", NAMESPACE, "pods")["items"]:
        name = pod["metadata"]["name"]
        for container in (state for state in _containers(pod) if not state["ready"] and not _finished(state)):
            log = kubectl.attempt("-n", NAMESPACE, "logs", name, "-c", container["name"], "--tail=1").stdout.strip()
            why = next((state.get("reason") or "running" for state in container["state"].values()), "unknown")
            found.append(f"{name}, {container['name']}: {why} {log}".rstrip())
        conditions = pod["status"].get("conditions", ())
        found += [f"{name}: {c['message']}" for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"]
    return "; ".join(found)


def _finished(state: Document) -> bool:
    return bool(state["state"].get("terminated", {}).get("exitCode") == 0)


def _has_storage(kubectl: Kubectl) -> bool:
    """Whether the cluster makes volumes by itself."""
    default = "storageclass.kubernetes.io/is-default-class"
    classes = kubectl.get("storageclass")["items"]
    return any(found["metadata"].get("annotations", {}).get(default) == "true" for found in classes)


def _node_folder(kubectl: Kubectl, image: str, action: str) -> None:
    """Make or remove the folder of the volume on the node. Raises UnavailableError when the node does not let us."""
    job = yaml.safe_load((MANIFESTS / "components/node-volume/job.yaml").read_text(encoding="utf-8"))
    container, name = job["spec"]["template"]["spec"]["containers"][0], job["metadata"]["name"]
    container["image"], container["env"][0]["value"] = image, action
    kubectl("-n", "kube-system", "delete", "job", name, "--ignore-not-found")
    kubectl.apply([job])
    done = kubectl.attempt("-n", "kube-system", "wait", "job", name, "--for=condition=Complete", "--timeout=60s").returncode == 0
    said = kubectl.attempt("-n", "kube-system", "logs", f"job/{name}").stderr.strip()
    kubectl("-n", "kube-system", "delete", "job", name)
    if not done:
        raise UnavailableError(f"The job {name} could not {action} the folder /var/lib/promolift on the node. {said}")


def _named(documents: Sequence[Document], kind: str, name: str) -> list[Document]:
    return [document for document in kinds(documents, kind) if document["metadata"]["name"] == name]


def _standing(kubectl: Kubectl, plan: Plan) -> list[Document] | None:
    """What was applied last, where the namespace is there; None for a new deployment."""
    if kubectl.attempt("get", "namespace", NAMESPACE).returncode:
        return None
    path = plan.out / "manifests.yaml"
    return [d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if d] if path.exists() else []


def _take_back(kubectl: Kubectl, plan: Plan, before: list[Document] | None) -> None:
    if before is None:
        _say("it failed, so what was applied is removed again")
        _remove(kubectl, plan)
    elif before:
        _say("it failed, so what stood before is applied again")
        (plan.out / "manifests.yaml").write_text(yaml.safe_dump_all(before), encoding="utf-8")
        kubectl.apply(before)
    else:
        _say(f"it failed; {plan.out} does not know what stood before, so the cluster is as the failure left it")


def _say(line: str) -> None:
    print(f"deploy: {line}", flush=True)
