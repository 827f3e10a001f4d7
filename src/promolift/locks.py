"""A file that one process at a time may hold: the one lock of run folders, searches and Redis servers."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from promolift.errors import UnavailableError, usable


@contextmanager
def held(path: Path, advice: str, taken: str) -> Iterator[IO[str]]:
    """Make and lock `path` (its folder too) and yield the open file; a process that inherits it holds the lock as well.

    Raises UnavailableError: with `advice` when it cannot be written, with the sentence `taken` when another process holds it.
    """
    with usable(path, advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise UnavailableError(taken) from problem
        yield file
