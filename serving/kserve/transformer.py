"""Envelope with a request -> envelope with the shopper's online features, how old they are and what is wrong with them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Protocol

from redis.exceptions import RedisError

from promolift.contracts.decisions import Degraded, Envelope, Shopper
from serving.kserve.redis_client import Breaker
from serving.kserve.stamp import stamped


class FeatureRow(Protocol):
    """What is online of one shopper."""

    @property
    def values(self) -> Mapping[str, Any]:
        """Feature values by name; None where one is missing."""
        ...

    @property
    def moment_s(self) -> float | None:
        """When they were true (seconds since 1970); None for a shopper never seen."""
        ...


class FeatureReader(Protocol):
    """Where features are read; `version` says which definitions, `defaults` the value of every feature for a shopper never seen."""

    version: str

    @property
    def defaults(self) -> Mapping[str, float | str]:
        """By name, in the service's order."""
        ...

    def read(self, shopper_id: str) -> FeatureRow:
        """The row of one shopper. Raises redis.RedisError."""
        ...


@dataclass(frozen=True)
class Ages:
    """From which age on features are stale (used, and said so) and expired (not used), in seconds before the request's moment."""

    stale_s: float
    expired_s: float

    def of(self, age_s: float) -> tuple[Degraded, ...]:
        """What an age means."""
        if age_s > self.expired_s:
            return ("expired_features",)
        return ("stale_features",) if age_s > self.stale_s else ()


class Transformer:
    """The first box: stamps the time of arrival and the deadline, and adds the features of the one shopper."""

    name = "transformer"

    def __init__(self, features: FeatureReader, ages: Ages) -> None:
        self._features = features
        self._ages = ages
        self._breaker = Breaker()

    def __call__(self, envelope: Envelope) -> Envelope:
        """The envelope with `shopper` and `received_at`; it never fails for want of features."""
        started = perf_counter()
        arrived = datetime.fromtimestamp(time.time(), UTC).isoformat()
        version, shopper = self._features.version, Shopper(dict(self._features.defaults), found=False)
        degraded: tuple[Degraded, ...] = ()
        try:
            row = self._breaker(self._features.read, envelope.request.shopper_id)
        except (RedisError, OSError) as problem:
            version += f" (not read: {type(problem).__name__}; defaults are used)"
            degraded = ("features_unavailable",)
        else:
            shopper = _shopper(row, self._features.defaults, envelope.request.moment)
            degraded = ("no_features",) if shopper.age_s is None else self._ages.of(shopper.age_s)
        return stamped(
            envelope, self.name, version, started, shopper=shopper, received_at=envelope.received_at or arrived,
            degraded=(*envelope.degraded, *degraded),
        )  # fmt: skip


def _shopper(row: FeatureRow, defaults: Mapping[str, float | str], moment: str) -> Shopper:
    values = row.values
    known = {name: float(value) if type(value) is int else value for name, value in values.items() if value is not None}
    features = {name: known.get(name, default) for name, default in defaults.items()}
    if row.moment_s is None:
        return Shopper(features, found=False)
    return Shopper(features, found=True, age_s=datetime.fromisoformat(moment).timestamp() - row.moment_s)
