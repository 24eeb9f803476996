"""One home's agent: the vault, the client in it, and what it does for commands and by itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mimi_mmr.app.agent.background import Background
from mimi_mmr.app.agent.errors import AgentError, BadRequest, NoAccount
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.agent.operations import OPERATIONS
from mimi_mmr.app.agent.server import Say
from mimi_mmr.app.agent.settings import Settings
from mimi_mmr.app.agent.wire import Given, Request
from mimi_mmr.client import Client
from mimi_mmr.client.people.contacts import IncomingRequest
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.errors import CertificateRejected, ConfigError, MmrError

_SETTINGS = b"settings"
_ENTERING = b"entering"  # there is one: the client is a further device of an account, or was to become one


class Bell:
    """Rung when something has happened; whoever waits looks again.

    `rung` is how often it was: who has noted that before looking misses nothing that happens meanwhile.
    """

    def __init__(self) -> None:
        self.rung = 0
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake everybody who waits."""
        self.rung += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seconds: float | None = None, *, after: int | None = None) -> None:
        """Until it rings, or has rung `after` that many times already, or so many seconds have passed."""
        if after is None or after == self.rung:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._event.wait(), seconds)


class Agent:
    """Everything between the socket and the client.

    `happened` rings when something came in, `wanted` when a command has given the background something to do.
    """

    def __init__(self, home: Home, vault: Vault, *, clock: Callable[[], float] = time.time) -> None:
        """For a vault that is open, with an account in it or not."""
        self.home = home
        self.vault = vault
        self.clock = clock
        self.stopping = asyncio.Event()
        self.happened = Bell()
        self.wanted = Bell()
        self.requests: list[IncomingRequest] = []
        self.background = Background(self)
        self.used = clock()
        self._client: Client | None = None
        self._closed: MmrError | None = None

    # --- the client ----------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """The client; raises `NoAccount` before there is an account, or why it can't be opened."""
        if self._closed is not None:
            raise self._closed
        if self._client is None or not self.has_account:
            raise NoAccount("there is no account in this home yet")
        return self._client

    @property
    def has_account(self) -> bool:
        """Whether there is one."""
        return self._client is not None and self._client.registered

    @property
    def unfinished(self) -> Client | None:
        """A client whose registration was not heard of: it may be tried again."""
        return self._client if self._client is not None and not self._client.registered else None

    @property
    def entering(self) -> Client | None:
        """A further device that is not in yet: it may try again with another code, after whatever has ended it."""
        began = self._client is not None and _ENTERING in self.vault.table("agent")
        return self._client if began and self._client and self._client.devices_room is None else None

    @property
    def settings(self) -> Settings | None:
        """What the client is opened with; None before there is one."""
        row = self.vault.table("agent").get(_SETTINGS)
        return Settings(**json.loads(row)) if row is not None else None

    def keep_settings(self, settings: Settings) -> None:
        """Open the client with these from the next start on."""
        self.vault.table("agent")[_SETTINGS] = json.dumps(asdict(settings)).encode()

    def open(self) -> None:
        """Restore the client that the vault holds, if it holds one and its settings still lead somewhere."""
        settings = self.settings
        if settings is None:
            return
        try:
            self._restore(settings)
        except (ConfigError, CertificateRejected) as error:
            self._closed = error  # which a command can mend
            return
        if self._client is not None and self._client.registered:
            self.background.start()

    def _restore(self, settings: Settings) -> None:
        self._client = Client.restore(
            self.vault,
            settings.trust(),
            ssl_context=settings.tls(),
            key_package_slot=settings.key_package_slot,
        )

    def begin(
        self, settings: Settings, make: Callable[[Settings, Vault], Client], *, entering: bool = False
    ) -> Client:
        """Put a new client into the vault, or one `entering` an account; once it has registered, call `begun`."""
        if self.settings is not None:
            raise AgentError("there is an account in this home already; another one needs another --home")
        with self.vault.transaction():
            self.keep_settings(settings)
            if entering:
                self.vault.table("agent")[_ENTERING] = b""
            self._client = make(settings, self.vault)
        return self._client

    def begun(self) -> None:
        """The client has its account: follow what comes in."""
        self.background.start()

    async def abandon(self) -> None:
        """Delete the state; the agent ends, since there is nothing left to hold."""
        await self.background.stop()
        if self._client is not None:
            await self._client.close()
        self._client = None
        self.vault.close()
        for path in (self.home.state, self.home.state.with_name(f"{self.home.state.name}-journal")):
            path.unlink(missing_ok=True)
        self.stopping.set()

    async def close(self) -> None:
        """Stop what runs by itself, and close the vault."""
        await self.background.stop()
        if self._client is not None:
            await self._client.close()
        self.vault.close()

    # --- commands ------------------------------------------------------------------------------------

    async def handle(self, request: Request, say: Say) -> dict[str, Any]:
        """Do what a command asks for; gives the fields of the last line."""
        self.used = self.clock()
        operation = OPERATIONS.get(request.do)
        if operation is None:
            raise BadRequest(f"expected one of the agent's operations, got {request.do[:64]!r}")
        result = await operation.run(self, request.given, say)
        self.used = self.clock()
        if operation.changes and self.has_account:
            self.background.tend_soon()
        answer: dict[str, Any] = {"result": result}
        if request.notices and self._client is not None:
            answer["notices"] = [notice.text for notice in self._client.notices.take()]
        return answer

    @staticmethod
    def only_waits(do: str) -> bool:
        """Whether nothing is lost when this is broken off."""
        return do in OPERATIONS and OPERATIONS[do].only_waits

    # --- what several operations want ----------------------------------------------------------------

    async def refresh_requests(self) -> list[IncomingRequest]:
        """Who wants to connect, asked of the provider; a new one is a notice, once."""
        before = {incoming.request.hash for incoming in self.requests}
        seen = self.vault.table("agent requests seen")
        self.requests = await self.client.connection_requests()
        for incoming in self.requests:
            if incoming.request.hash not in seen:
                seen[incoming.request.hash] = b""
                user = incoming.device.user
                self.client.notices.add(
                    f"{user} asks to connect: mimi-mmr contact accept {user.name}@{user.domain}", self.clock()
                )
        for gone in set(seen) - {incoming.request.hash for incoming in self.requests}:
            del seen[gone]
        if before != {incoming.request.hash for incoming in self.requests}:
            self.happened.ring()
        return self.requests

    def given_path(self, given: Given, name: str) -> Path:
        """A path that a command gave; absolute, since the two have different working directories."""
        path = Path(given.text(name))
        if not path.is_absolute():
            raise BadRequest(f"expected an absolute path as {name!r}")
        return path
