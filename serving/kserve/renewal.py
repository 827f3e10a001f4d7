"""What is served, read anew at SIGHUP, or said why not and left as it was."""

import asyncio
import signal
from collections.abc import Callable
from typing import TypeVar

from promolift.errors import PromoliftError

T = TypeVar("T")


def renewed_by_hangup(replace: Callable[[T], None], read: Callable[[], T]) -> None:
    """From now on SIGHUP calls `replace(read())` in the running loop; a file that is wrong changes nothing."""

    def renew() -> None:
        try:
            replace(read())
            print("read anew", flush=True)
        except PromoliftError as problem:
            print(f"stays as it was: {problem}", flush=True)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, renew)
