"""Envelope with a request -> envelope with the shopper's online features; a shopper never seen, or no Redis, means defaults."""

from collections.abc import Mapping
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Protocol

from redis.exceptions import RedisError

from promolift.contracts.decisions import Envelope, Shopper
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


class Transformer:
    """The first box: stamps the time of arrival and adds the features of the one shopper."""

    name = "transformer"

    def __init__(self, features: FeatureReader) -> None:
        self._features = features

    def __call__(self, envelope: Envelope) -> Envelope:
        """The envelope with `shopper` and `received_at`; it never fails for want of features."""
        started = perf_counter()
        arrived = datetime.now(UTC).isoformat()
        version, shopper = self._features.version, Shopper(dict(self._features.defaults), found=False)
        try:
            row = self._features.read(envelope.request.shopper_id)
        except (RedisError, OSError) as problem:
            version += f" (not read: {type(problem).__name__}; defaults are used)"
        else:
            shopper = _shopper(row, self._features.defaults, envelope.request.moment)
        return stamped(envelope, self.name, version, started, shopper=shopper, received_at=arrived)


def _shopper(row: FeatureRow, defaults: Mapping[str, float | str], moment: str) -> Shopper:
    features = dict(defaults)
    for name, default in defaults.items():
        value = row.values.get(name)
        if value is not None:
            features[name] = str(value) if isinstance(default, str) else float(value)
    if row.moment_s is None:
        return Shopper(features, found=False)
    return Shopper(features, found=True, age_s=datetime.fromisoformat(moment).timestamp() - row.moment_s)
