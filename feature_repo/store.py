"""Registry and Redis -> an open Feast store; its latest rows put online."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from feast import FeatureStore
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from feature_repo.definitions import VIEW, service, shopper, view
from promolift.contracts.artifacts import read_source_card
from promolift.contracts.features import features_of
from promolift.contracts.tables import FEATURES
from promolift.errors import InputError, UnavailableError
from promolift.feast_redis import connection_string, shown
from promolift.storage import Place, delta_options, spelled

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def open_store(redis_url: str, registry: Path) -> FeatureStore:
    """The store that feature_store.yaml describes, on this Redis and this registry file."""
    registry.parent.mkdir(parents=True, exist_ok=True)
    os.environ["FEAST_REDIS"], os.environ["FEAST_REGISTRY"] = connection_string(redis_url), str(registry.resolve())
    return FeatureStore(fs_yaml_file=Path(__file__).with_name("feature_store.yaml"))


def materialize(lake: Place, redis_url: str, registry: Path) -> dict[str, Any]:
    """Register the definitions and put each shopper's latest row online.

    Returns {"shoppers", "features", "as_of": ISO 8601 of the newest moment, "version": Delta version}.
    Raises InputError for a missing or empty table, UnavailableError when Redis does not answer or has no room.
    """
    version, moments, shoppers = _latest(f"{lake}/{FEATURES.path}")
    store = open_store(redis_url, registry)
    features = features_of(read_source_card(lake))
    served = view(spelled(lake), features)
    try:
        store.apply([shopper(), served, service(served, features)])
        store.materialize(BEGINNING, moments, feature_views=[VIEW], disable_event_timestamp=False)
    except RedisConnectionError as error:
        raise UnavailableError(f"Redis at {shown(redis_url)} does not answer ({error}); start it or set PROMOLIFT_REDIS_URL.") from error
    except ResponseError as error:  # MISCONF: its volume is full; OOM: its memory; NOPERM: the user may not write
        why = str(error).rpartition("caused error: ")[2]
        raise UnavailableError(
            f"Redis at {shown(redis_url)} does not keep the features ({why}); give it room, or the user the right to write, and try again."
        ) from error
    return {"shoppers": shoppers, "features": len(features.names), "as_of": moments.isoformat(), "version": version}


def _latest(path: str) -> tuple[int, datetime, int]:
    """Delta version, newest moment and number of shoppers of the gold table."""
    try:
        table = DeltaTable(path, storage_options=delta_options())
    except TableNotFoundError as error:
        raise InputError(f"There is no Delta table at {path}; run `python -m spark_jobs build_features` first.") from error
    keys = table.to_pyarrow_table(columns=["shopper_id", "moment"])
    if keys.num_rows == 0:
        raise InputError(f"The table at {path} is empty, so there is nothing to put online; check the Spark jobs' output.")
    return table.version(), pc.max(keys["moment"]).as_py(), pc.count_distinct(keys["shopper_id"]).as_py()
