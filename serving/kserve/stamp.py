"""Envelope, box and start time -> the envelope with the box's version and time in it; how every box of the graph signs its work."""

from time import perf_counter
from typing import Any, Protocol

from promolift.contracts.decisions import Envelope


class Box(Protocol):
    """One box of the graph: takes the whole envelope and returns it whole."""

    name: str

    def __call__(self, envelope: Envelope) -> Envelope:
        """The envelope with this box's part filled in."""
        ...


def stamped(envelope: Envelope, name: str, version: str, started: float, **changes: Any) -> Envelope:
    """The envelope with `changes`, and under `name` the version and the milliseconds since `started` (perf_counter)."""
    versions = {**envelope.versions, **changes.pop("versions", {}), name: version}
    timings = {**envelope.timings_ms, **changes.pop("timings_ms", {}), name: round((perf_counter() - started) * 1000, 3)}
    found = object.__new__(Envelope)  # a quarter of the time of dataclasses.replace, which every box of every decision would pay
    found.__dict__.update(envelope.__dict__, **changes, versions=versions, timings_ms=timings)
    return found
