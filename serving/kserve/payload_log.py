"""A box's requests and answers -> copies of both as CloudEvents, as KServe's agent sends them (`logger`, mode all).

For a graph that this machine serves; on a cluster the InferenceService's `logger` does it. Like the agent's, the queue is short and no
copy is sent twice; other than there, nobody waits for it: what does not fit is dropped (notes: kserve.md 2.4).
"""

import asyncio
import uuid

import aiohttp

from serving.detector.events import REQUEST, RESPONSE

SLOTS, TIMEOUT_S = 100, 2.0


class PayloadLog:
    """Copies for one detector; `work` is its sender and has to run in the loop that serves."""

    def __init__(self, url: str, service: str) -> None:
        self._url, self._service = url, service
        self._queue: asyncio.Queue[tuple[str, bytes, bytes]] = asyncio.Queue(SLOTS)
        self._away = False

    def __call__(self, request: bytes, answer: bytes) -> None:
        """Queue both; drop them where the queue is full."""
        if not self._queue.full():
            self._queue.put_nowait((str(uuid.uuid4()), request, answer))

    async def work(self) -> None:
        """Send what is queued, for as long as the loop runs. A detector that is away costs its copies, nothing else."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                name, request, answer = await self._queue.get()
                for kind, body in ((REQUEST, request), (RESPONSE, answer)):
                    await self._send(session, name, kind, body)

    async def _send(self, session: aiohttp.ClientSession, name: str, kind: str, body: bytes) -> None:
        headers = {
            "ce-id": name, "ce-type": kind, "ce-source": "promolift/payload-log", "ce-specversion": "1.0",
            "ce-inferenceservicename": self._service, "content-type": "application/json",
        }  # fmt: skip
        try:
            async with session.post(self._url, data=body, headers=headers):
                self._away = False
        except (aiohttp.ClientError, TimeoutError) as problem:
            if not self._away:
                print(f"copies do not reach {self._url} ({type(problem).__name__}); they are lost until it answers", flush=True)
            self._away = True
