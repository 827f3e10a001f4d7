"""An overlay, the images' tags and a delivered model -> the documents that a cluster takes, by `kubectl kustomize`."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipelines.build_images import image_name
from pipelines.images import ROOT
from promolift.errors import PromoliftError, UnavailableError
from promolift.kubectl import Document

MANIFESTS = ROOT / "manifests"
OVERLAYS = ("local", "production", "spark")
"""The served graph on one node and on a platform; the namespace of Spark's pods."""
GROUPS = ("serving", "online", "detector")


@dataclass(frozen=True)
class Release:
    """A model as it was delivered: the folder's address and the digest of the model file."""

    uri: str
    sha256: str


UNNAMED = Release("s3://promolift/models/none", "0" * 64)
"""What is rendered where no model is meant: well formed, and refused by every box."""


@dataclass(frozen=True)
class Build:
    """What to render: the overlay, the model, components to add, and the registry before the images' names ("": none)."""

    overlay: str
    release: Release = UNNAMED
    components: tuple[str, ...] = ()
    registry: str = ""

    def images(self) -> dict[str, str]:
        """Full name by group."""
        return {group: image_name(group, self.registry) for group in GROUPS}


def render(build: Build, folder: Path) -> list[Document]:
    """The documents. `folder` keeps the kustomization that was rendered and manifests.yaml. Raises UnavailableError without kubectl."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(_kustomization(build, folder), sort_keys=False), encoding="utf-8")
    text = _kustomize(folder)
    (folder / "manifests.yaml").write_text(text, encoding="utf-8")
    return [document for document in yaml.safe_load_all(text) if document]


def _kustomization(build: Build, folder: Path) -> Document:
    def place(*parts: str) -> str:
        return os.path.relpath(MANIFESTS.joinpath(*parts), folder.resolve())

    model = [
        {"op": "replace", "path": f"/spec/predictor/containers/0/env/{index}/value", "value": value}
        for index, value in enumerate((build.release.uri, build.release.sha256))
    ]
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [place("overlays", build.overlay)],
        "components": [place("components", name) for name in build.components],
        "images": [_image(group, name) for group, name in build.images().items()],
        "patches": [{"target": {"kind": "InferenceService"}, "patch": yaml.safe_dump(model)}],
    }


def _image(group: str, name: str) -> dict[str, str]:
    place, _, tag = name.rpartition(":")
    return {"name": f"promolift/{group}", "newName": place, "newTag": tag}


def _kustomize(folder: Path) -> str:
    try:
        found = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    except FileNotFoundError as problem:
        raise UnavailableError("Rendering needs the program kubectl, which is not on the PATH; install it.") from problem
    if found.returncode:
        raise PromoliftError(f"kustomize refuses the manifests: {found.stderr.strip()}")
    return found.stdout


def kinds(documents: Sequence[Document], *wanted: str) -> list[Document]:
    """The documents of these kinds, in their order."""
    return [document for document in documents if document["kind"] in wanted]
