"""HOST:PORT -> a bound socket, or one sentence that says why not."""

import socket

from promolift.errors import InputError, UnavailableError


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`. Raises InputError for anything else."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65_535:
        raise InputError(f"'{text}' is no address; write HOST:PORT, for example 127.0.0.1:8080.")
    return host.strip("[]") or "127.0.0.1", int(port)


def bind(address: str) -> socket.socket:
    """A TCP socket bound to the address. Raises InputError for a bad address, UnavailableError when it cannot be had."""
    host, port = split_address(address)
    # Event loops switch Nagle's algorithm off only where the protocol is named; without that an answer waits 40 ms for an ACK.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Listening now makes a second server on the port fail here too, not only at its first request.
        listener.listen(1024)
    except OSError as problem:
        listener.close()
        raise UnavailableError(f"Cannot listen on {host}:{port} ({problem.strerror}); stop its owner or name another port.") from problem
    return listener
