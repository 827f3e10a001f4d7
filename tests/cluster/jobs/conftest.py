"""Spark's namespace and a bucket of its own on the current kube context; they need the image of group spark, but no deployment."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployment.__main__ import main
from deployment.kubectl import Kubectl, chosen, need_images
from pipelines.build_images import image_name
from promolift.errors import PromoliftError
from promolift.storage import s3


@pytest.fixture
def settled() -> None:
    """Nothing of the deployment is asked here."""


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """Address of an empty bucket, which goes afterwards."""
    if "AWS_ENDPOINT_URL" not in os.environ:
        pytest.skip("no S3 to test: AWS_ENDPOINT_URL is not set")
    name, system = f"promolift-test-{uuid.uuid4().hex[:8]}", s3(allow_bucket_creation=True, allow_bucket_deletion=True)
    system.create_dir(name)
    yield f"s3a://{name}"
    system.delete_dir(name)


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """A cluster on which Spark's pods may run."""
    os.environ["PROMOLIFT_SPARK_IMAGE"], os.environ["YES"] = image_name("spark"), "1"
    try:
        found = chosen("")
        need_images(found, [image_name("spark")])
    except PromoliftError as problem:
        pytest.skip(f"no cluster for Spark's pods: {problem}")
    out: Path = tmp_path_factory.mktemp("spark")
    assert main(["spark", "--out", str(out)]) == 0
    yield found
    assert main(["spark", "--remove", "--out", str(out)]) == 0
