"""One home's agent: its account, its background tasks, and the running of commands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mimi_mmr.app.agent.account import AccountHolder
from mimi_mmr.app.agent.background import Background
from mimi_mmr.app.agent.connection_requests import ConnectionRequests
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.agent.socket_messages import CommandRequest
from mimi_mmr.app.agent.wakeup import Wakeup
from mimi_mmr.app.commands.context import Say
from mimi_mmr.app.commands.errors import BadRequest
from mimi_mmr.app.commands.table import COMMANDS
from mimi_mmr.client import Client
from mimi_mmr.client.storage.vault import Vault

MAX_SHOWN = 64


class Agent:
    """The objects that commands use (`AgentContext`), wired together. `used` is the time of the last command."""

    def __init__(self, home: Home, vault: Vault, *, clock: Callable[[], float] = time.time) -> None:
        """Take an open vault, with an account in it or not."""
        self.changed = Wakeup()
        self.account = AccountHolder(vault)
        self.requests = ConnectionRequests(self.account, self.changed, clock)
        self.background = Background(self.account, self.requests, self.changed, clock)
        self.stopping = asyncio.Event()
        self.used = clock()
        self._home = home
        self._clock = clock

    # --- what commands use ----------------------------------------------------------------------------

    @property
    def home(self) -> Path:
        """The home directory."""
        return self._home.path

    @property
    def client(self) -> Client:
        """The client of the account. Raises as `AccountHolder.client` does."""
        return self.account.client

    def stop(self) -> None:
        """End the agent once the running commands are done."""
        self.stopping.set()

    async def delete_state(self) -> None:
        """Delete the vault, and end the agent."""
        await self.close()
        state = self._home.state
        for path in (state, state.with_name(f"{state.name}-journal")):
            path.unlink(missing_ok=True)
        self.stop()

    # --- its life -------------------------------------------------------------------------------------

    def open(self) -> None:
        """Restore the client, if there is one, and start the background tasks."""
        self.account.open()
        if self.account.registered:
            self.background.start()

    async def close(self) -> None:
        """Stop the background tasks, and close the vault."""
        await self.background.stop()
        await self.account.close()

    async def handle(self, request: CommandRequest, say: Say) -> dict[str, Any]:
        """Run a command; return the fields of the answer's last line. Raise `MmrError`."""
        self.used = self._clock()
        model = COMMANDS.get(request.command)
        if model is None:
            raise BadRequest(f"this agent has no command {request.command[:MAX_SHOWN]!r}")
        result = await model.from_request(request.arguments).run(self, say)
        self.used = self._clock()
        if model.about.changes and self.account.registered:
            self.background.tend_soon()
        answer: dict[str, Any] = {"result": model.about.result_to_json(result)}
        client = self.account.begun
        if request.notices and client is not None:
            answer["notices"] = [
                {"number": number, "text": notice.text} for number, notice in client.notices.numbered()
            ]
        return answer

    @staticmethod
    def only_waits(command: str) -> bool:
        """Return whether a command may be cancelled without losing anything."""
        return command in COMMANDS and COMMANDS[command].about.only_waits
