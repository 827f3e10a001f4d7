"""What a scenario does to the service while it is under load: a part stops, dies or hangs, and comes back."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from promolift.contracts.decisions import NODES
from promolift.redis_server import start_redis, stop_redis


class Redis:
    """A Redis of the scenario's own, so that it can be stopped and started without the service."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process, self.url = start_redis(folder)
        self._port = int(self.url.split(":")[2].split("/")[0])

    def restart(self, pause_s: float) -> None:
        """Stop it, wait, start it again on the same port with the same data."""
        self.stop()
        time.sleep(pause_s)
        self._process, _ = start_redis(self._folder, self._port)

    def stop(self) -> None:
        """Saved and stopped."""
        stop_redis(self._process)


def disturb(scenario: str, seconds: float, served: Mapping[str, Any], store: Redis) -> None:
    """Do the scenario's harm in the middle of its `seconds`; returns at once where it has none."""
    harms: dict[str, Callable[[], None]] = {
        "redis_restart": lambda: store.restart(seconds / 6),
        "predictor_killed": lambda: os.kill(served["pids"]["predictor"], signal.SIGKILL),
        "each_killed": lambda: kill_each([served["pids"][name] for name in (*NODES, "graph")], seconds / 10),
        "slow_features": lambda: hang(served["pids"]["transformer"], seconds / 6),
    }
    if scenario in harms:
        time.sleep(seconds / 3)
        harms[scenario]()


def kill_each(pids: Sequence[int], pause_s: float) -> None:
    """Kill one process after the other; whoever started them starts them again."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        time.sleep(pause_s)


def hang(pid: int, seconds: float) -> None:
    """Stop a process for 0.4 s of every half second."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.4)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.1)


def ended(process: "subprocess.Popen[Any]", limit_s: float) -> int:
    """Its exit status, killed when it takes longer."""
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
