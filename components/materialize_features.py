"""gold features -> the online store (Feast on Redis), so that serving reads what training read."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from components.subprogram import run_program
from promolift.contracts.artifacts import json_text
from promolift.redis_server import redis_server
from promolift.settings import load
from promolift.storage import write_text


def materialize(lake: str, redis_url: str, registry: str) -> dict[str, Any]:
    """Put each shopper's latest row online and register the views in the file `registry`.

    An empty `redis_url` means that of the settings; where there is none either, a Redis of our own is started in `redis/` beside the
    registry and leaves its dump there. Returns {"shoppers", "features", "as_of", "version"}, kept in the lake's lineage too. Raises
    InputError for a missing table, UnavailableError when Redis cannot be had.
    """
    redis_url = redis_url or load().redis_url
    own = redis_server(Path(registry).parent / "redis")
    with nullcontext(redis_url) if redis_url else own as url:
        # the URL by the environment: it may have a password, and everybody on a machine sees a program's arguments
        records = run_program("feature_repo", ["--lake", lake, "--registry", registry], PROMOLIFT_REDIS_URL=url)
    write_text(f"{lake}/lineage/materialize_features.json", json_text(records[-1]))
    return records[-1]
