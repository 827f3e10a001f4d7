"""Commands -> child processes that are watched together and stopped together, last one first."""

import math
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from promolift.errors import PromoliftError, UnavailableError, usable

STOP_S, RESTART_S = 20.0, 10.0
WRITABLE = "serve a run in a folder that can be written"
READY_SIGNS = (" listens on ", " drains ")
"""What the line holds by which each of our programs says that it is ready."""


@dataclass
class Child:
    """One process: its name, its output's log file, how to start it, and, once it has said so, the line that it is ready.

    `again`: start it once more when it dies, as a cluster does, unless it did within RESTART_S before.
    """

    name: str
    process: subprocess.Popen[str]
    log: Path
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    again: bool = False
    restarted: float = -math.inf
    ready: "queue.Queue[str]" = field(default_factory=queue.Queue)
    copier: threading.Thread | None = None


class Processes:
    """Starts `python -m` programs in sessions of their own, so that an interrupt at the terminal reaches only us."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []
        with usable(logs, WRITABLE):
            logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Start one program; its output goes to `<name>.log`, a line with one of READY_SIGNS says it is ready."""
        path = self._logs / f"{name}.log"
        with usable(path, WRITABLE):
            path.write_text("", encoding="utf-8")
        command = [sys.executable, "-m", module, *arguments]
        child = Child(name, _popen(command, environment), path, command, environment)
        _follow(child)
        self._children.append(child)
        return child

    def keep(self, child: Child, free: str, taken: str) -> None:
        """Start the child again, should it die, with what it took (a port) in the place of the argument that left it the choice."""
        child.command = [taken if part == free else part for part in child.command]
        child.again = True

    def wait_ready(self, child: Child, deadline: float) -> str:
        """The child's ready line. Raises its own sentence when it ends instead, UnavailableError after `deadline` (monotonic)."""
        while time.monotonic() < deadline:
            try:
                return child.ready.get(timeout=0.05)
            except queue.Empty:
                if child.process.poll() is not None:
                    raise _failure(child) from None
        raise UnavailableError(f"{child.name} was not ready in time; its output is in {child.log}.")

    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {child.name: child.process.pid for child in self._children}

    def drop(self, name: str) -> None:
        """Terminate the children of this name, if there are any, and forget them."""
        for child in [child for child in self._children if child.name == name]:
            self._children.remove(child)
            _end(child)

    def signal(self, number: int, names: Sequence[str]) -> None:
        """Send a signal to the children of these names."""
        for child in self._children:
            if child.name in names:
                child.process.send_signal(number)

    def watch(self, stopped: Callable[[float], bool], also: Callable[[], None]) -> None:
        """Return when `stopped(seconds)` is true; call `also` twice a second. Raises the sentence of a child that ends before."""
        while not stopped(0.5):
            also()
            for child in self._children:
                if child.process.poll() is not None:
                    self._restart(child)

    def _restart(self, child: Child) -> None:
        now = time.monotonic()
        if not child.again or now - child.restarted < RESTART_S:
            raise _failure(child)
        print(f"{child.name} ended with status {child.process.returncode} and is started again", flush=True)
        child.restarted, child.process = now, _popen(child.command, child.environment)
        _follow(child)

    def stop(self) -> None:
        """Terminate every child that still runs, the last one started first, and wait for each."""
        for child in reversed(self._children):
            _end(child)


def _end(child: Child) -> None:
    child.process.terminate()
    try:
        child.process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.process.kill()
        child.process.wait()


def _popen(command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command, env=dict(environment), text=True, bufsize=1, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def _follow(child: Child) -> None:
    """Copy what it says to its log."""
    child.copier = threading.Thread(target=_copy, args=(child, child.process), daemon=True)
    child.copier.start()


def _copy(child: Child, process: "subprocess.Popen[str]") -> None:
    with child.log.open("a", encoding="utf-8") as log:
        for line in process.stdout or ():
            log.write(line)
            log.flush()
            if any(sign in line for sign in READY_SIGNS):
                child.ready.put(line.strip())


def _failure(child: Child) -> PromoliftError:
    """The error that a child's exit status and last line tell."""
    if child.copier is not None:
        child.copier.join(STOP_S)
    lines = [line for line in child.log.read_text(encoding="utf-8").splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    kinds = {kind.exit_status: kind for kind in PromoliftError.__subclasses__()}
    kind = kinds.get(child.process.returncode, PromoliftError)
    sentence = last.removeprefix(f"{kind.__name__}: ")
    return kind(sentence if sentence != last else f"{child.name} ended with status {child.process.returncode}: {last}; see {child.log}.")
