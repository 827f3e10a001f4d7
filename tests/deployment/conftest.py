"""Rendered overlays."""

import shutil
from pathlib import Path

import pytest

from deployment.render import Build, Document, Release, render

RELEASE = Release("s3://promolift/models/net-1", "ab" * 32)


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """The local overlay, with a volume of the node."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl, which renders manifests, is not on the PATH")
    return render(Build("local", components=("node-volume",)), tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="session")
def production(tmp_path_factory: pytest.TempPathFactory, local: list[Document]) -> list[Document]:
    """The production overlay."""
    return render(Build("production", RELEASE, registry="registry.example.com/shop"), tmp_path_factory.mktemp("production"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test renders to."""
    return tmp_path / "rendered"
