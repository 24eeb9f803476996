"""Connection requests of other people: fetched from the provider, and turned into notices."""

from __future__ import annotations

from collections.abc import Callable

from mimi_mmr.app.agent.account import AccountHolder
from mimi_mmr.app.agent.wakeup import Wakeup
from mimi_mmr.app.commands.names import address
from mimi_mmr.client import IncomingRequest
from mimi_mmr.uris import MimiUri


class ConnectionRequests:
    """The requests that the provider had when it was last asked."""

    def __init__(self, account: AccountHolder, changed: Wakeup, clock: Callable[[], float]) -> None:
        self.known: list[IncomingRequest] = []
        self._account = account
        self._changed = changed
        self._clock = clock

    async def refresh(self) -> list[IncomingRequest]:
        """Fetch and return all requests. Each new one becomes a notice, once."""
        before = {incoming.request.hash for incoming in self.known}
        self.known = await self._account.client.people.connection_requests()
        now = {incoming.request.hash for incoming in self.known}
        seen = self._account.vault.table("agent requests seen")
        for incoming in self.known:
            if incoming.request.hash not in seen:
                seen[incoming.request.hash] = b""
                self._notice(incoming.device.user)
        for gone in set(seen) - now:
            del seen[gone]
        if before != now:
            self._changed.wake()
        return self.known

    def _notice(self, user: MimiUri) -> None:
        text = f"{user} asks to connect: mimi-mmr contact accept {address(user)}"
        self._account.client.notices.add(text, self._clock())
