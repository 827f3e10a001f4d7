"""gold features -> the online store (Feast on Redis), so that serving reads what training read."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from components.subprogram import run_program
from promolift.contracts.artifacts import write_json
from promolift.redis_server import redis_server


def materialize(lake: str, redis_url: str, registry: str) -> dict[str, Any]:
    """Put each shopper's latest row online and register the views in the file `registry`.

    An empty `redis_url` starts a Redis of our own in `redis/` beside the lake and leaves its dump there. Returns {"shoppers",
    "features", "as_of", "version"}, kept in the lake's lineage too. Raises InputError for a missing table, UnavailableError when
    Redis cannot be had.
    """
    own = redis_server(Path(lake).parent / "redis")
    with nullcontext(redis_url) if redis_url else own as url:
        records = run_program("feature_repo", ["--lake", lake, "--redis-url", url, "--registry", registry])
    write_json(Path(lake) / "lineage" / "materialize_features.json", records[-1])
    return records[-1]
