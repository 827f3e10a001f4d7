"""Registry file and Redis URL -> a reader of one shopper's online features, from where Feast keeps them.

Feast says what is online, under which key and in which form; the read itself is one HMGET on a connection of ours. Feast's own
`get_online_features` gives the same values (a test holds that) and takes longer than a whole decision may (notes: online.md 0.6).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import feast
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RegistryConfig, RepoConfig
from feast.types import String
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped] # protobuf has no types

from promolift.errors import InputError, UnavailableError
from promolift.feast_redis import connection_string
from serving.kserve.redis_client import TIMEOUT_S, Line

_FLOAT, _FLOAT_TAG = struct.Struct("<f"), 0x35
"""How protobuf writes field 6 (float_val) of Feast's Value: this byte, then four of the number."""
PROJECT, SERVICE, ENTITY = "promolift", "shopper_features", "shopper_id"


@dataclass(frozen=True)
class Row:
    """A shopper's features by name as they are online (None: missing), and when they were true (seconds since 1970); None if unseen."""

    values: Mapping[str, Any]
    moment_s: float | None


class OnlineFeatures:
    """Reads the feature service of the registry. `version` is its features_hash tag, `defaults` each feature's value for nobody."""

    def __init__(self, registry: Path, redis_url: str, timeout_s: float = TIMEOUT_S) -> None:
        if not registry.is_file():
            raise UnavailableError(f"Feature registry {registry} does not exist; materialize the features first.")
        self._config = _config(registry, redis_url)
        store = feast.FeatureStore(config=self._config)
        try:
            service = store.get_feature_service(SERVICE)
        except feast.errors.FeatureServiceNotFoundException as problem:
            raise InputError(f"Registry {registry} has no feature service '{SERVICE}'; materialize the features again.") from problem
        self.version = str(service.tags.get("features_hash", "untagged"))
        self.defaults = _defaults(service)
        self._redis = Line(redis_url, timeout_s)
        self._store = RedisOnlineStore()
        self._names, self._fields = _layout(store, service, self._store)

    def read(self, shopper_id: str) -> Row:
        """The shopper's row. Raises redis.RedisError when Redis does not answer in time."""
        entity = EntityKey(join_keys=[ENTITY], entity_values=[Value(string_val=shopper_id)])
        (key,) = self._store._generate_redis_keys_for_entities(self._config, [entity])
        found = self._redis("HMGET", key, *self._fields)
        values = {name: _value(text) for name, text in zip(self._names, found, strict=False)}
        moments = [Timestamp.FromString(text).seconds for text in found[len(self._names) :] if text]
        return Row(values, float(max(moments)) if moments else None)


def _value(text: bytes | None) -> Any:
    """What a stored value holds; None for nothing. Nearly all are floats, of which protobuf's parser takes the most of a read's time."""
    if not text:
        return None
    if text[0] == _FLOAT_TAG and len(text) == 5:
        return _FLOAT.unpack_from(text, 1)[0]
    value = Value.FromString(text)
    kind = value.WhichOneof("val")
    return None if kind is None or kind == "null_val" else getattr(value, kind)


def _layout(store: feast.FeatureStore, service: feast.FeatureService, online: RedisOnlineStore) -> tuple[list[str], list[bytes]]:
    """Names of the features, and the fields of a shopper's hash that hold them, followed by those of the views' times."""
    names: list[str] = []
    fields: list[bytes] = []
    times: list[bytes] = []
    for projection in service.feature_view_projections:
        view = store.get_feature_view(projection.name)
        requested, keys = online._generate_hset_keys_for_features(view, [f.name for f in projection.features])
        names += requested[:-1]
        fields += keys[:-1]
        times.append(keys[-1])
    return names, [*fields, *times]


def _defaults(service: feast.FeatureService) -> dict[str, float | str]:
    """By name in the service's order: what its field's tag says, a number unless the field is a text. Raises InputError without tags."""
    fields = [field for view in service.feature_view_projections for field in view.features]
    untagged = [f.name for f in fields if "default" not in f.tags]
    if untagged:
        raise InputError(f"The registry says no default of feature '{untagged[0]}': an earlier release wrote it. Materialize it again.")
    return {f.name: str(f.tags["default"]) if f.dtype == String else float(f.tags["default"]) for f in fields}


def _config(registry: Path, redis_url: str) -> RepoConfig:
    return RepoConfig(
        project=PROJECT,
        provider="local",
        # The registry changes only with a deployment, so it is read once and never again on the request path.
        registry=RegistryConfig(registry_type="file", path=str(registry.resolve()), cache_ttl_seconds=0),
        online_store=RedisOnlineStoreConfig(connection_string=connection_string(redis_url)),
        entity_key_serialization_version=3,
    )
