"""Redis URL -> Feast's own form of it, which writers and readers of online features share, and the form that may be printed.

Also what both do before they load Feast.
"""

import re
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

from promolift.errors import InputError


def skip_type_checks() -> None:
    """To be called before Feast is imported: it then takes two seconds instead of seven.

    Feast has its classes checked at run time by typeguard, which compiles every method anew when they are imported. typeguard itself
    leaves them out of production, where Python runs with -O; we keep our assertions and leave out only those checks.
    """
    import typeguard  # noqa: PLC0415 (only who loads Feast has it)

    def unchecked(target: Any = None, **options: Any) -> Any:
        return partial(unchecked, **options) if target is None else target

    typeguard.typechecked = unchecked


def shown(redis_url: str) -> str:
    """The URL with its password hidden, for messages and logs."""
    return re.sub(r"(//[^:@/]*):.*@", r"\1:***@", redis_url)


def connection_string(redis_url: str, **options: float) -> str:
    """'host:port,db=0,password=x,ssl=true', then `options` as they are. Raises InputError for anything but redis:// and rediss://."""
    try:
        parts = urlsplit(redis_url)
        host, port = parts.hostname, parts.port or 6379
    except ValueError as problem:  # a port that is no number, a bracket left open
        raise InputError(f"'{shown(redis_url)}' is no Redis URL ({problem}); write it as redis://host:6379/0.") from problem
    database = parts.path.strip("/")
    if parts.scheme not in {"redis", "rediss"} or not host or not (database or "0").isdecimal():
        raise InputError(f"'{shown(redis_url)}' is no Redis URL; write it as redis://host:6379/0.")
    named = {"db": database, "username": unquote(parts.username or ""), "password": unquote(parts.password or "")}
    named |= {"ssl": "true" if parts.scheme == "rediss" else ""}
    if any("," in value for value in named.values()):
        raise InputError("The user or password of the Redis URL holds a comma, at which Feast would cut it; choose another.")
    given = [f"{key}={value}" for key, value in {**named, **options}.items() if value]
    return ",".join([f"{host}:{port}", *given])
