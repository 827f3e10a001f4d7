"""Redis URL -> a client that answers within a decision's deadline or not at all."""

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from promolift.errors import InputError, UnavailableError

TIMEOUT_S = 0.25
"""A slower Redis is treated as absent: features are then defaults, and a promo that no budget covers is not given."""


def connect(url: str, timeout_s: float = TIMEOUT_S) -> redis.Redis:
    """A client that has been answered once. Raises InputError for no URL, UnavailableError when nobody answers.

    One immediate retry heals a connection that Redis closed (our scripts are idempotent); redis-py's own default waits for seconds.
    """
    try:
        client = redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 1))
        client.ping()
    except ValueError as problem:
        raise InputError(f"'{url}' is no Redis URL; write it as redis://host:6379/0.") from problem
    except redis.RedisError as problem:
        raise UnavailableError(f"Redis at {url} does not answer ({problem}); start it or set PROMOLIFT_REDIS_URL.") from problem
    return client
