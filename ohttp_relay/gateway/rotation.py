"""Rotation of a stored key ring: reload it when another worker changed it, rotate it when due, erase old keys."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from ohttp_relay.errors import KeyFileError
from ohttp_relay.keys.ring import KeyRing

log = logging.getLogger(__name__)


class KeyKeeper:
    """Keeps the ring stored in `directory` current; any number of workers may do so at once.

    If the newest key is older than `lifetime` seconds, the ring gets a new one.  It is advertised `lead` seconds
    later, when every worker has read it.  Without a `lifetime` there is no rotation.  `interval`: seconds
    between two looks.
    """

    def __init__(
        self,
        ring: KeyRing,
        directory: str | os.PathLike[str],
        *,
        lifetime: float | None = None,
        lead: float = 60.0,
        interval: float = 5.0,
    ) -> None:
        self.ring = ring
        self._folder = Path(directory)
        self._lifetime = lifetime
        self._lead = lead
        self._interval = interval

    def tend(self) -> bool:
        """Reload, rotate and erase keys if due; tell whether the ring changed.  Raises KeyFileError."""
        changed = self.ring.reload()
        if not self._due():
            return changed
        with KeyRing.locked(self._folder):
            self.ring.reload()  # another worker may have been first
            if self._due():
                if self._lifetime is not None:
                    self.ring.rotate_if_due(self._lifetime, lead=self._lead)
                self.ring.save(self._folder)
        return True

    def _due(self) -> bool:
        return self.ring.has_expired() or (self._lifetime is not None and self.ring.is_due(self._lifetime))

    async def run(self) -> None:
        """Call `tend` every `interval` seconds, until cancelled."""
        while True:
            try:
                if self.tend():
                    log.info("key ring changed")
            except (KeyFileError, OSError) as error:  # go on with the keys in memory
                log.error("key ring: %s", type(error).__name__)  # noqa: TRY400
            await asyncio.sleep(self._interval)

    def attach(self, app: web.Application) -> None:
        """Run for as long as the application runs."""
        app.cleanup_ctx.append(self._context)

    async def _context(self, _: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self.run())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
