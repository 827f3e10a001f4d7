"""A request -> its answer within the deadline, whatever becomes of the graph; the same request id has the same answer."""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, replace

from promolift.contracts.decisions import Envelope, Reason, Request
from promolift.contracts.engine import Answer, answer_of
from promolift.errors import ConflictError
from promolift.policy.constraints import Policy
from serving.engine.backends import Backend, now_iso
from serving.kserve.constraints import Spill, fingerprint, without_ledger

RESERVE_S = 0.004
"""Of the deadline kept back for making and sending the answer that stands in for a late one."""
REMEMBERED = 100_000


@dataclass(frozen=True)
class Terms:
    """What the door needs to answer by itself."""

    policy: Policy
    deadline_ms: int
    spill: Spill


class Door:
    """Asks the backend and answers in its place when it fails or is late: a complete, logged no_promo."""

    def __init__(self, backend: Backend, terms: Terms) -> None:
        self._backend, self._terms = backend, terms
        # Answers that the ledger does not know yet: a retry that comes before it does must get the same one.
        self._own: OrderedDict[str, tuple[str, Envelope]] = OrderedDict()

    async def decide(self, request: Request) -> Answer:
        """The answer. Raises ConflictError or RequestError for a request id used with other parameters."""
        started, received_at = time.perf_counter(), now_iso()
        own = self._own.get(request.request_id)
        if own is not None:
            return _repeated(own, request)
        limit_ms = request.deadline_ms or self._terms.deadline_ms
        left_s = max(0.001, limit_ms / 1000 - RESERVE_S)
        bounded = replace(request, deadline_ms=limit_ms)
        try:
            envelope = await self._backend.decide(bounded, received_at, left_s)
        except TimeoutError:
            envelope = self._answer(bounded, received_at, "deadline", f"no decision within {limit_ms} ms")
        except OSError as problem:
            envelope = self._answer(bounded, received_at, "graph_unavailable", str(problem))
        timings = {**envelope.timings_ms, "engine": round((time.perf_counter() - started) * 1000, 3)}
        return replace(answer_of(envelope), timings_ms=timings)

    async def decide_all(self, requests: tuple[Request, ...]) -> list[Answer | BaseException]:
        """Of each its answer, or what was raised."""
        return await asyncio.gather(*map(self.decide, requests), return_exceptions=True)

    async def ready(self) -> bool:
        """Whether the backend can decide."""
        return await self._backend.ready()

    async def close(self) -> None:
        """Finish what is in flight."""
        await self._backend.close()

    def _answer(self, request: Request, received_at: str, reason: Reason, cause: str) -> Envelope:
        envelope = without_ledger(Envelope(request, received_at=received_at), self._terms.policy, reason, self._terms.spill, cause)
        self._own[request.request_id] = (fingerprint(request), envelope)
        if len(self._own) > REMEMBERED:
            self._own.popitem(last=False)
        return envelope


def _repeated(own: tuple[str, Envelope], request: Request) -> Answer:
    if own[0] != fingerprint(request):
        raise ConflictError(f"Request id '{request.request_id}' was used before with other parameters; use a new id for a new request.")
    return replace(answer_of(own[1]), repeated=True)
