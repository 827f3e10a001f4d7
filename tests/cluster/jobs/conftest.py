"""Spark's namespace and a bucket of its own on the current kube context; they need the image of group spark, but no deployment."""

import os
import uuid
from collections.abc import Iterator

import pytest

from deployment.__main__ import main
from pipelines.build_images import image_name
from promolift.errors import PromoliftError
from promolift.kubectl import Kubectl, chosen, need_images
from promolift.storage import reached


@pytest.fixture
def settled() -> None:
    """Nothing of the deployment is asked here."""


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """Address of an empty bucket, which goes afterwards."""
    if "AWS_ENDPOINT_URL" not in os.environ:
        pytest.skip("no S3 to test: AWS_ENDPOINT_URL is not set")
    place = f"s3a://promolift-test-{uuid.uuid4().hex[:8]}"
    with reached(place, allow_bucket_creation=True, allow_bucket_deletion=True) as (system, name):
        system.create_dir(name)
        yield place
        system.delete_dir(name)


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """A cluster on which Spark's pods may run."""
    try:
        found = chosen("")
        need_images(found, [image_name("spark")])
    except PromoliftError as problem:
        pytest.skip(f"no cluster for Spark's pods: {problem}")
    out = str(tmp_path_factory.mktemp("spark"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PROMOLIFT_SPARK_IMAGE", image_name("spark"))
        environment.setenv("YES", "1")
        assert main(["spark", "--out", out]) == 0
        yield found
        assert main(["spark", "--remove", "--out", out]) == 0
