"""The deployment on a cluster under Locust's load, held to the scenario `cluster` of the service-level file."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from loadtests.run import Load, judged, under_load
from loadtests.service_level import FILE, read_service_level
from promolift.kubectl import NAMESPACE, Kubectl


def measure(kubectl: Kubectl, load: Load) -> dict[str, Any]:
    """What Locust measured of the graph's Service, with `breaches`; load.html and load.json in the load's folder."""
    level = read_service_level(FILE, load.scenario)
    with address(kubectl, "promo-decision") as url:
        return judged(load, level, under_load(load, url, ""))


@contextmanager
def address(kubectl: Kubectl, service: str) -> Iterator[str]:
    """URL of a Service: its own address where this machine reaches it, else a port that kubectl forwards (to one pod, and slower)."""
    host = kubectl.get("-n", NAMESPACE, "service", service)["spec"]["clusterIP"]
    if reachable(host, 80):
        yield f"http://{host}/"
    else:
        with kubectl.forwarded(f"svc/{service}", 80) as port:
            yield f"http://127.0.0.1:{port}/"


def reachable(host: str, port: int) -> bool:
    """Whether a TCP connection can be had within a second."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
