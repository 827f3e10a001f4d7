"""gold features -> the online store (Feast on Redis), so that serving reads what training read."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from components.subprogram import run_program
from promolift.contracts.artifacts import json_text
from promolift.redis_server import redis_server
from promolift.storage import write_text


def materialize(lake: str, redis_url: str, registry: str) -> dict[str, Any]:
    """Put each shopper's latest row online and register the views in the file `registry`.

    An empty `redis_url` starts a Redis of our own in `redis/` beside the registry and leaves its dump there. Returns {"shoppers",
    "features", "as_of", "version"}, kept in the lake's lineage too. Raises InputError for a missing table, UnavailableError when
    Redis cannot be had.
    """
    own = redis_server(Path(registry).parent / "redis")
    with nullcontext(redis_url) if redis_url else own as url:
        records = run_program("feature_repo", ["--lake", lake, "--redis-url", url, "--registry", registry])
    write_text(f"{lake}/lineage/materialize_features.json", json_text(records[-1]))
    return records[-1]
