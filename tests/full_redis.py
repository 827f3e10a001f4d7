"""A Redis whose volume is full: it may write only so many bytes of its append-only file."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from promolift.redis_server import free_port, redis_program

BLOCK = 512
"""Bytes that a shell's `ulimit -f` counts by."""


@contextmanager
def full_redis(folder: Path, room: int, *, fsync: str = "everysec") -> Iterator[str]:
    """Its URL. Writing beyond `room` bytes fails as it does where no space is left; with `fsync` always Redis ends itself then."""
    folder.mkdir()
    port, limit = free_port(), f"ulimit -f {room // BLOCK}; trap '' XFSZ; exec \"$@\""
    server = [redis_program(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    options = ["--appendonly", "yes", "--appendfsync", fsync]
    with subprocess.Popen(["sh", "-c", limit, "sh", *server, *options], stdout=subprocess.DEVNULL) as process:
        try:
            with redis.Redis(port=port, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.1), 100)) as client:
                client.ping()
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()
