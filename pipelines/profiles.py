"""A task -> the same task with the resources, retries and node that a cluster gives it; a local run strips them again."""

from dataclasses import dataclass
from typing import Any, Literal

from kfp import kubernetes


@dataclass(frozen=True)
class Profile:
    """Requests (the limit on memory equals its request; the processor is not limited) and the longest a task may take."""

    cpu: str
    memory: str
    timeout_s: int
    gpus: int = 0


PROFILES: dict[str, Profile] = {
    "small": Profile("1", "4G", 1800),
    "spark": Profile("4", "8G", 3600),
    "train": Profile("4", "8G", 3600),
    "train-gpu": Profile("4", "16G", 3600, gpus=1),
}
RETRIES = 2
"""For evicted pods and lost nodes. A stage that refuses its input fails again at once; every stage may safely run twice."""
S3_SECRET, S3_KEYS = "promo-s3", ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ALLOW_HTTP")
REDIS_SECRET, REDIS_KEY = "promo-redis", "PROMOLIFT_REDIS_URL"
"""Secrets of the namespace of runs, and their keys, which are the names of the variables; one that is missing sets nothing."""


def sized(task: Any, profile: Literal["small", "spark", "train", "train-gpu"]) -> Any:
    """Give `task` the profile's resources, a timeout and retries, and S3's address and keys from a Secret, where there is one."""
    wanted = PROFILES[profile]
    task.set_cpu_request(wanted.cpu).set_memory_request(wanted.memory).set_memory_limit(wanted.memory)
    task.set_retry(RETRIES, backoff_duration="30s", backoff_factor=2, backoff_max_duration="300s")
    kubernetes.set_timeout(task, wanted.timeout_s)
    kubernetes.use_secret_as_env(task, S3_SECRET, {name: name for name in S3_KEYS}, optional=True)
    if wanted.gpus:
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(wanted.gpus)
        kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
    return task


def with_redis(task: Any) -> Any:
    """Give `task` Redis' address from a Secret, where there is one: a URL with a password is no parameter that a server shows."""
    return kubernetes.use_secret_as_env(task, REDIS_SECRET, {REDIS_KEY: REDIS_KEY}, optional=True)
