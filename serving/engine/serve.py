"""A plan and settings -> the engine served on a socket until SIGINT or SIGTERM, what is in flight finished.

SIGHUP reads rules and model anew.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvicorn

from promolift.errors import PromoliftError
from promolift.policy.ledger import Ledger
from promolift.settings import Settings
from serving.engine.app import Engine, Limits, application
from serving.engine.auth import Authenticator, Issuer
from serving.engine.backends import Backend, FusedBackend, GraphBackend
from serving.engine.door import Door, Terms
from serving.engine.metrics import Metrics
from serving.engine.operations import Operations
from serving.kserve.boxes import Sources, keys_of, policy_of
from serving.kserve.fused import FusedGraph, fused
from serving.kserve.redis_client import client
from serving.kserve.spool import spill_to

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Where things are: what the boxes need, the graph's URL (None: boxes in this process), API keys, the lake of the log, threads."""

    sources: Sources
    graph: str | None
    keys: Path
    lake: str
    threads: int


async def serve(plan: Plan, settings: Settings, listener: socket.socket, announcement: str) -> None:
    """Serve until stopped. Raises what cannot start."""
    make = partial(fused, plan.sources, settings)
    backend: Backend = GraphBackend(plan.graph) if plan.graph else FusedBackend(make, plan.threads)
    door = Door(backend, Terms(policy_of(settings), settings.deadline_ms, spill_to(plan.sources.spill)))
    ledger = Ledger(client(plan.sources.redis_url))
    operations = Operations(ledger, keys_of(settings), plan.lake, settings.pace_step)
    authenticator = Authenticator(plan.keys, _issuer(settings))
    limits = Limits(settings.requests_per_s, settings.body_bytes)
    app = application(Engine(door, operations, authenticator, limits, Metrics(ledger)), door.close)
    config = uvicorn.Config(
        app, http="httptools", lifespan="on", access_log=False, log_config=None, timeout_keep_alive=180,
        timeout_graceful_shutdown=20,
    )  # fmt: skip
    if isinstance(backend, FusedBackend):
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, lambda: loop.create_task(_reload(backend, make)))
    print(announcement, flush=True)
    await uvicorn.Server(config).serve(sockets=[listener])


async def _reload(backend: FusedBackend, make: Callable[[], FusedGraph]) -> None:
    """New boxes for every thread; decisions go on with the old ones until the new ones stand, and stay with them if they cannot."""
    try:
        await asyncio.to_thread(backend.replace, make)
        log.info("rules and model were read anew")
    except PromoliftError as problem:
        log.error("rules and model stay as they were: %s", problem)


def _issuer(settings: Settings) -> Issuer | None:
    return Issuer(settings.jwks_url, settings.jwt_issuer, settings.jwt_audience) if settings.jwks_url else None
