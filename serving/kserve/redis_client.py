"""Redis URL -> a client that answers within a decision's deadline or not at all."""

from collections.abc import Callable
from typing import Any, TypeVar

import pybreaker
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from promolift.errors import InputError, UnavailableError
from promolift.feast_redis import shown

T = TypeVar("T")
TIMEOUT_S = 1.0
"""Of what is no decision; a decision has PROMOLIFT_REDIS_TIMEOUT_MS: a slower Redis is treated as absent, features are then unknown
and a promo that no budget covers is not given."""
FAILURES, PAUSE_S = 5, 1.0


def client(url: str, timeout_s: float = TIMEOUT_S) -> Any:
    """A client that connects when it is used. Raises InputError for no URL.

    One immediate retry heals a connection that Redis closed (our scripts are idempotent); redis-py's own default waits for seconds.
    """
    try:
        return redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 1))
    except ValueError as problem:
        raise InputError(f"'{shown(url)}' is no Redis URL; write it as redis://host:6379/0.") from problem


class Line:
    """One connection for one thread, without what a pool does around every command."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        self._connection = client(url, timeout_s).connection_pool.make_connection()

    def __call__(self, *command: Any) -> Any:
        """Redis' answer, asked once more where Redis had closed the connection. Raises redis.RedisError."""
        try:
            return self._ask(command)
        except redis.TimeoutError:
            raise
        except redis.ConnectionError:
            return self._ask(command)

    def _ask(self, command: tuple[Any, ...]) -> Any:
        self._connection.send_command(*command)
        return self._connection.read_response()


def connect(url: str, timeout_s: float = TIMEOUT_S) -> Any:
    """The same, answered once. Raises UnavailableError when nobody answers."""
    found = client(url, timeout_s)
    try:
        found.ping()
    except redis.RedisError as problem:
        place = shown(url)
        if isinstance(problem, redis.AuthenticationError):
            raise UnavailableError(f"Redis at {place} refuses the password of PROMOLIFT_REDIS_URL ({problem}); correct it.") from problem
        raise UnavailableError(f"Redis at {place} does not answer ({problem}); start it or set PROMOLIFT_REDIS_URL.") from problem
    return found


class Breaker:
    """A circuit breaker: after FAILURES failures in a row calls fail at once, until one that is let through after PAUSE_S succeeds."""

    def __init__(self) -> None:
        self._circuit = pybreaker.CircuitBreaker(fail_max=FAILURES, reset_timeout=PAUSE_S, exclude=[_ours])

    def __call__(self, call: Callable[..., T], *arguments: Any) -> T:
        """The call's answer. Raises redis.ConnectionError while the circuit is open, else what the call raises."""
        try:
            answer: T = self._circuit.call(call, *arguments)
        except pybreaker.CircuitBreakerError as problem:
            raise redis.ConnectionError(f"not asked: {FAILURES} calls in a row had failed") from problem
        return answer

    @property
    def closed(self) -> bool:
        """Whether calls go through."""
        return bool(self._circuit.current_state == pybreaker.STATE_CLOSED)


def _ours(problem: Exception) -> bool:
    """Whether an error says nothing about Redis' health."""
    return not isinstance(problem, redis.ConnectionError | redis.TimeoutError | OSError)
