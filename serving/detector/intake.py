"""Events -> the store: answered in milliseconds, written in batches, never more than a bounded backlog."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

import prometheus_client as prometheus
from redis.exceptions import RedisError

from promolift.drift.columns import day_of, row_of
from promolift.drift.reference import Reference
from serving.detector.events import Event, EventError, Reason
from serving.detector.store import Seen, Store

BACKLOG, BATCH, PAUSE_S, SETTLE_S = 5_000, 16, 0.5, 5.0
"""Rows of a batch are made in one go, for which answers wait, so it is small."""
FAR_S = 86_400.0
"""An event whose time is further from this clock is refused: it would open a window of another day."""
EVENTS = prometheus.Counter("promolift_detector_events", "Events by what became of them.", ["result"])
WAITING = prometheus.Gauge("promolift_detector_backlog", "Events that are taken and not yet written.")


class Intake:
    """Takes events and writes them. `references` by version; `moments`: days go by what requests say, not by this clock."""

    def __init__(self, store: Store, references: Mapping[str, Reference], moments: bool) -> None:
        self._store, self._references, self._moments = store, references, moments
        self._queue: asyncio.Queue[Event] = asyncio.Queue(BACKLOG)
        self._served: dict[str, str] = {}

    def take(self, event: Event) -> None:
        """Queue an event. Raises EventError for one of another time, and where the backlog is full."""
        if not self._moments and event.seconds is not None and abs(event.seconds - time.time()) > FAR_S:
            raise EventError("clock", "The CloudEvent's time is more than a day from the detector's clock; correct the clocks.")
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            raise EventError("dropped", f"{BACKLOG} events wait already; this one is not taken.") from None

    async def write_forever(self) -> None:
        """Write what comes, for as long as the process lives; a Redis that is away is waited for."""
        while True:
            batch = [await self._queue.get()]
            while len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            await self._write(batch)
            WAITING.set(self._queue.qsize())

    async def settle_forever(self) -> None:
        """Make rows of questions that nobody answered, for as long as the process lives."""
        while True:
            await asyncio.sleep(SETTLE_S)
            try:
                EVENTS.labels("unanswered").inc(await self._store.settle(time.time()))
            except RedisError as problem:
                print(f"unanswered questions wait for Redis ({problem})", flush=True)

    async def drain(self) -> None:
        """Write what is queued, once: for the last moments of a process, which waits for no Redis."""
        with suppress(RedisError):
            while not self._queue.empty():
                await self._try([self._queue.get_nowait()])

    async def _write(self, batch: list[Event]) -> None:
        while True:
            try:
                return await self._try(batch)
            except RedisError as problem:
                print(f"Redis does not take events ({problem}); tried again", flush=True)
                await asyncio.sleep(PAUSE_S)

    async def _try(self, batch: list[Event]) -> None:
        seen = [found for event in batch if (found := await self._seen(event))]
        for event, answer in zip(seen, await self._store.write(seen, time.time()) if seen else [], strict=True):
            EVENTS.labels(_told(event, answer)).inc()

    async def _seen(self, event: Event) -> Seen | None:
        version = await self._version(event)
        reference = self._references.get(version)
        if reference is None:
            EVENTS.labels("not_fitted" if version else "unknown_version").inc()
            if version:
                await self._store.note_unfitted(version)
            return None
        day = day_of(_moment(event) if self._moments else event.seconds or time.time())
        try:
            return Seen(event.id, event.kind, version, day, row_of(reference.columns, event.envelope, day))
        # Whatever is wrong with one event must not be the end of all others.
        except (ArithmeticError, LookupError, TypeError, ValueError) as problem:
            EVENTS.labels("no_envelope").inc()
            print(f"event {event.id} cannot be a row ({type(problem).__name__}: {problem})", flush=True)
            return None

    async def _version(self, event: Event) -> str:
        """An answer names its model; a question is for the one that its service answered with last."""
        if event.envelope.scores:
            version = event.envelope.scores.model_version
            if event.service and self._served.get(event.service) != version:
                self._served[event.service] = await self._store.served(event.service, version)
            return version
        if event.service not in self._served:
            self._served[event.service] = await self._store.served(event.service)
        return self._served[event.service]


def _moment(event: Event) -> float:
    return datetime.fromisoformat(event.envelope.request.moment).timestamp()


def _told(event: Seen, answer: int) -> Reason:
    if answer == 1:
        return "added" if event.kind == "response" else "asked"
    return "duplicate" if answer == 0 else "dropped"
