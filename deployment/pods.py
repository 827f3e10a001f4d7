"""Documents -> the pods that they start, whatever kind starts them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployment.schemas import name_of
from promolift.kubectl import Document


@dataclass(frozen=True)
class Pod:
    """One workload's pods: who starts them, their labels and specification, whether several run at once, and how they are replaced."""

    owner: str
    labels: Mapping[str, str]
    spec: Document
    several: bool = True
    update: Document | None = None

    @property
    def containers(self) -> Sequence[Document]:
        """Those that run as long as the pod, the main one first."""
        found: Sequence[Document] = self.spec.get("containers", ())
        return found


def pods_of(documents: Sequence[Document]) -> Iterator[Pod]:
    """Every workload's pods. A graph's router is KServe's own: it is not among them."""
    for document in documents:
        kind, spec = document["kind"], document.get("spec", {})
        if kind in {"Deployment", "StatefulSet"}:
            template = spec["template"]
            strategy = spec.get("strategy", {})
            several = kind == "Deployment" and strategy.get("type") != "Recreate"
            yield Pod(
                name_of(document), template["metadata"].get("labels", {}), template["spec"], several,
                strategy.get("rollingUpdate"),
            )  # fmt: skip
        elif kind == "InferenceService":
            update = spec["predictor"].get("deploymentStrategy", {}).get("rollingUpdate")
            yield Pod(name_of(document), _labels(document), spec["predictor"], update=update)


def _labels(document: Document) -> dict[str, str]:
    """KServe gives pods the labels of their InferenceService, and its name."""
    name = document["metadata"]["name"]
    return {**document["metadata"].get("labels", {}), "serving.kserve.io/inferenceservice": name}


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects a pod with these labels; an empty one selects every pod."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(_holds(rule, labels) for rule in selector.get("matchExpressions", ()))


def _holds(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    inside = labels.get(rule["key"]) in rule.get("values", ())
    return {
        "In": inside, "NotIn": not inside, "Exists": rule["key"] in labels, "DoesNotExist": rule["key"] not in labels,
    }[rule["operator"]]  # fmt: skip
