"""Registry file and Redis URL -> a reader of one shopper's online features through Feast."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import feast
from feast.repo_config import RegistryConfig, RepoConfig
from feast.types import String
from redis.exceptions import RedisError

from promolift.errors import InputError, UnavailableError
from promolift.feast_redis import connection_string
from serving.kserve.prompt_store import PromptRedisOnlineStoreConfig
from serving.kserve.redis_client import TIMEOUT_S

PROJECT, SERVICE, ENTITY = "promolift", "shopper_features", "shopper_id"


@dataclass(frozen=True)
class Row:
    """A shopper's features by name as they are online (None: missing), and when they were true (seconds since 1970); None if unseen."""

    values: Mapping[str, Any]
    moment_s: float | None


class OnlineFeatures:
    """Reads the feature service of the registry. `version` is its features_hash tag, `defaults` each feature's value for nobody."""

    def __init__(self, registry: Path, redis_url: str) -> None:
        if not registry.is_file():
            raise UnavailableError(f"Feature registry {registry} does not exist; materialize the features first.")
        self._store = feast.FeatureStore(config=_config(registry, redis_url))
        try:
            self._service = self._store.get_feature_service(SERVICE)
        except feast.errors.FeatureServiceNotFoundException as problem:
            raise InputError(f"Registry {registry} has no feature service '{SERVICE}'; materialize the features again.") from problem
        self.version = str(self._service.tags.get("features_hash", "untagged"))
        self.defaults = _defaults(self._service)
        self._check(redis_url)

    def read(self, shopper_id: str) -> Row:
        """The shopper's row. Raises redis.RedisError when Redis does not answer in time."""
        answer = self._store.get_online_features(features=self._service, entity_rows=[{ENTITY: shopper_id}])
        columns = answer.to_dict(include_event_timestamps=True)
        moments = [seconds[0] for name, seconds in columns.items() if name.endswith("__ts") and name != f"{ENTITY}__ts"]
        values = {name: column[0] for name, column in columns.items() if not name.endswith("__ts") and name != ENTITY}
        # Feast gives every feature of an unknown shopper the moment 0.
        return Row(values, float(max(moments)) if any(moments) else None)

    def _check(self, redis_url: str) -> None:
        try:
            self.read("")
        except RedisError as problem:
            raise UnavailableError(f"Redis at {redis_url} does not answer ({problem}); start it or set PROMOLIFT_REDIS_URL.") from problem


def _defaults(service: feast.FeatureService) -> dict[str, float | str]:
    """By name in the service's order: what its field's tag says, a number unless the field is a text. Raises InputError without tags."""
    fields = [field for view in service.feature_view_projections for field in view.features]
    untagged = [f.name for f in fields if "default" not in f.tags]
    if untagged:
        raise InputError(f"The registry says no default of feature '{untagged[0]}': an earlier release wrote it. Materialize it again.")
    return {f.name: str(f.tags["default"]) if f.dtype == String else float(f.tags["default"]) for f in fields}


def _config(registry: Path, redis_url: str) -> RepoConfig:
    redis = connection_string(redis_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
    return RepoConfig(
        project=PROJECT,
        provider="local",
        # The registry changes only with a deployment, so it is read once and never again on the request path.
        registry=RegistryConfig(registry_type="file", path=str(registry.resolve()), cache_ttl_seconds=0),
        online_store={"type": PromptRedisOnlineStoreConfig().type, "connection_string": redis},
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )
