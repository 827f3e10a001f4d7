"""Windows in Redis: the rows of each version and day, once per event, whatever replica took it and in whatever order.

Bounded: a day keeps a uniform sample of at most MOST_ROWS rows, days end after KEEP_S, marks of events after MARK_S, and at most
MOST_WAITING questions wait for their answer. A question without an answer for OVERDUE_S becomes a row without scores.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np

from promolift.drift.columns import Columns, Rows

MOST_ROWS, KEEP_S, MARK_S = 5_000, 40 * 86_400, 3_600
MOST_WAITING, OVERDUE_S = 20_000, 60.0
LOOKING_S = 60
_HERE = Path(__file__).parent
_PREFIX = "drift:"


@dataclass(frozen=True)
class Seen:
    """One event as it is stored: `version` and `day` say which window, `row` is what `columns.row_of` made."""

    id: str
    kind: Literal["request", "response"]
    version: str
    day: int
    row: bytes


class Store:
    """The detector's keys, all below `drift:`. `client`: redis.asyncio."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._draw = Random()  # noqa: S311 (which rows are kept is sampling, no secret)
        self._add, self._ask = (client.register_script((_HERE / name).read_text(encoding="utf-8")) for name in ("add.lua", "ask.lua"))

    async def write(self, events: Sequence[Seen], now: float) -> list[int]:
        """Store a batch in one round trip: 1 for a new one, 0 for a duplicate or an answered question, -1 where too many wait."""
        pipe = self._client.pipeline(transaction=False)
        for event in events:
            await (self._added(pipe, event) if event.kind == "response" else self._asked(pipe, event, now))
        return [int(answer) for answer in await pipe.execute()]

    async def _added(self, pipe: Any, event: Seen) -> None:
        of = f"{_PREFIX}{event.version}:"
        keys = [_mark("response", event.id), f"{of}rows:{event.day}", f"{of}count:{event.day}", f"{of}days", *_waiting(event.id)]
        arguments = [event.row, MOST_ROWS, self._draw.random(), event.day, KEEP_S, event.id, MARK_S]
        await self._add(keys=keys, args=arguments, client=pipe)

    async def _asked(self, pipe: Any, event: Seen, now: float) -> None:
        waiting, row = _waiting(event.id)
        content = event.version.encode() + b"\0" + str(event.day).encode() + b"\0" + event.row
        arguments = [event.id, now, content, int(10 * OVERDUE_S), MARK_S, MOST_WAITING]
        await self._ask(keys=[_mark("request", event.id), _mark("response", event.id), waiting, row], args=arguments, client=pipe)

    async def settle(self, now: float) -> int:
        """Make rows of questions that nobody answered in time; returns how many. Two replicas that do so at once make one row."""
        overdue = await self._client.zrangebyscore(f"{_PREFIX}waiting", "-inf", now - OVERDUE_S, start=0, num=500)
        found = []
        for name in (raw.decode() for raw in overdue):
            content = await self._client.get(f"{_PREFIX}asked:{name}")
            if content is None:
                await self._client.zrem(f"{_PREFIX}waiting", name)
                continue
            version, day, row = content.split(b"\0", 2)
            found.append(Seen(name, "response", version.decode(), int(day), row))
        return sum(await self.write(found, now)) if found else 0

    async def days(self, version: str) -> list[int]:
        """Days with rows, ascending; those that Redis has let go are forgotten."""
        found = [int(day) for day in await self._client.zrange(f"{_PREFIX}{version}:days", 0, -1)]
        return [day for day in found if await self._client.exists(f"{_PREFIX}{version}:rows:{day}")]

    async def rows(self, version: str, columns: Columns, day: int) -> Rows:
        """The rows of a day; such as another reference of the version had written are left out."""
        size = columns.dtype.itemsize
        found = [row for row in await self._client.lrange(f"{_PREFIX}{version}:rows:{day}", 0, -1) if len(row) == size]
        return np.frombuffer(b"".join(found), columns.dtype)

    async def counted(self, version: str, day: int) -> int:
        """Rows of a day before sampling."""
        return int(await self._client.get(f"{_PREFIX}{version}:count:{day}") or 0)

    async def begin_look(self, version: str, day: int) -> bool:
        """Whether this process may make the look: nobody has made it, and nobody is at it."""
        if await self._client.hexists(f"{_PREFIX}{version}:looks", day):
            return False
        return bool(await self._client.set(f"{_PREFIX}{version}:looking:{day}", 1, nx=True, ex=LOOKING_S))

    async def end_look(self, version: str, day: int, document: dict[str, Any]) -> bool:
        """Keep a look; False where one of that day is kept already."""
        return bool(await self._client.hsetnx(f"{_PREFIX}{version}:looks", day, json.dumps(document)))

    async def looks(self, version: str) -> list[dict[str, Any]]:
        """Every look at a version, oldest first."""
        found = await self._client.hgetall(f"{_PREFIX}{version}:looks")
        return [json.loads(found[day]) for day in sorted(found, key=int)]

    async def note_unfitted(self, version: str) -> None:
        """Count an event of a version that has no reference."""
        await self._client.hincrby(f"{_PREFIX}not_fitted", version, 1)

    async def not_fitted(self) -> dict[str, int]:
        """Events by version without a reference."""
        return {name.decode(): int(count) for name, count in (await self._client.hgetall(f"{_PREFIX}not_fitted")).items()}

    async def served(self, service: str, version: str = "") -> str:
        """The version that an InferenceService answered with last; notes it where one is given."""
        if version:
            await self._client.hset(f"{_PREFIX}served", service, version)
            return version
        return (await self._client.hget(f"{_PREFIX}served", service) or b"").decode()


def _mark(kind: str, name: str) -> str:
    return f"{_PREFIX}mark:{kind}:{name}"


def _waiting(name: str) -> tuple[str, str]:
    return f"{_PREFIX}waiting", f"{_PREFIX}asked:{name}"
