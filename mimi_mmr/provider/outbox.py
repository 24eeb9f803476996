"""Fan-out: deliver accepted events to each provider in order, at least once, until the provider confirms."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mimi_mmr.errors import MmrError, PeerRefused
from mimi_mmr.provider.store.hub import HubStore

FIRST_DELAY = 0.2
LONGEST_DELAY = 60.0

log = logging.getLogger(__name__)

Send = Callable[[str, bytes], Awaitable[object]]


class OutboxWorker:
    """The outbox worker: one task per provider with waiting events, so that a slow provider delays no other."""

    def __init__(self, store: HubStore, send: Send) -> None:
        """Deliver from `store` with `send(domain, body)`, which raises if the provider does not confirm."""
        self._store = store
        self._send = send
        self._wake = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._workers: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Start delivering, first what is already in the store."""
        self._main = asyncio.create_task(self._run(), name="outbox")
        self.wake()

    def wake(self) -> None:
        """Tell the worker that the outbox has new events."""
        self._wake.set()

    async def close(self) -> None:
        """Stop; unconfirmed events stay in the store for the next start."""
        tasks = [task for task in (self._main, *self._workers.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                waiting = await self._store.destinations()
            except Exception as error:  # any error: a worker that ended would never deliver again
                log.error("outbox failed: %s", type(error).__name__)  # noqa: TRY400
                await asyncio.sleep(FIRST_DELAY)
                self._wake.set()
                continue
            for domain in waiting:
                running = self._workers.get(domain)
                if running is None or running.done():
                    self._workers[domain] = asyncio.create_task(self._drain(domain), name=f"outbox {domain}")

    async def _drain(self, domain: str) -> None:
        delay = FIRST_DELAY
        while True:
            try:
                if not await self._deliver_pending(domain):
                    break
                delay = FIRST_DELAY
            except Exception as error:
                reason = error.code if isinstance(error, MmrError) else type(error).__name__
                log.warning("fan-out to %s failed: %s", domain, reason)
                await asyncio.sleep(delay)
                delay = min(2 * delay, LONGEST_DELAY)
        self._wake.set()  # an event may have arrived after this task's last look

    async def _deliver_pending(self, domain: str) -> int:
        """Deliver a provider's waiting notifications in order, up to the first failure; return how many there were.

        A notification that the provider refuses for good is dropped and logged: it must not delay the next ones.
        """
        items = await self._store.pending(domain)
        for item in items:
            try:
                await self._send(item.destination, item.body)
            except PeerRefused:
                log.warning("a notification was refused for good by %s", domain)
            await self._store.delivered(item)
        return len(items)
