"""Redis URL -> Feast's own form of it, which writers and readers of online features share."""

from urllib.parse import urlsplit

from promolift.errors import InputError


def connection_string(redis_url: str, **options: float) -> str:
    """'host:port,db=0,password=x,ssl=true', then `options` as they are. Raises InputError for anything but redis:// and rediss://."""
    parts = urlsplit(redis_url)
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
        raise InputError(f"'{redis_url}' is no Redis URL; write it as redis://host:6379/0.")
    named = {"db": parts.path.strip("/"), "username": parts.username, "password": parts.password}
    named |= {"ssl": "true" if parts.scheme == "rediss" else None}
    given = [f"{key}={value}" for key, value in {**named, **options}.items() if value]
    return ",".join([f"{parts.hostname}:{parts.port or 6379}", *given])
