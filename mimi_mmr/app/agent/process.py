"""The agent as a process: one for each home. A signal, a command, or a time without commands ends it."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from mimi_mmr.app.agent.agent import Agent
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.agent.server import Server
from mimi_mmr.app.agent.socket_messages import error_answer
from mimi_mmr.app.commands.errors import AgentError, AgentRunning, SystemFailed
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.errors import MmrError
from mimi_mmr.provider import logs
from mimi_mmr.provider.process_lock import Held, process_lock
from mimi_mmr.provider.run import run


@dataclass(frozen=True, slots=True)
class Opening:
    """How to open a home's state: `create` if there is none yet; end after `idle` seconds without commands."""

    passphrase: str
    create: bool = False
    idle: float | None = None


def run_agent(home: Home, opening: Opening, ready: Callable[[], None]) -> None:
    """Serve until the agent is to end; call `ready` once commands are answered. Raise `MmrError`."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold every key
    logs.configure("info")
    home.make()
    with _alone(home):
        run(_serve(home, opening, ready))


def run_from_pipe(home: Home) -> int:
    """Run an agent that a command starts: read an `Opening` from stdin, write one line to stdout when ready.

    Return the exit status.
    """
    try:
        given = json.loads(sys.stdin.readline())
        opening = Opening(given["passphrase"], given["create"], given["idle"])
        run_agent(home, opening, lambda: _tell({"ready": True}))
    except MmrError as error:
        _tell(error_answer(error))
        return 1
    except OSError as error:
        _tell(error_answer(SystemFailed.of(error)))
        return 1
    except Exception as error:
        # no traceback: it would go to the log, and may hold secrets
        _tell(error_answer(AgentError(f"the agent failed: {type(error).__name__}")))
        return 1
    return 0


def _tell(value: dict[str, Any]) -> None:
    """Write one line to the process that started this one, which reads only this line."""
    with suppress(OSError):
        os.write(1, json.dumps(value).encode() + b"\n")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)
    os.close(nothing)


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(process_lock(home.lock))
        except Held as error:
            raise AgentRunning(f"an agent is running for {home.path}, as process {error.owner}") from None
        yield


async def _serve(home: Home, opening: Opening, ready: Callable[[], None]) -> None:
    vault = (Vault.create if opening.create else Vault.open)(home.state, opening.passphrase)
    agent = Agent(home, vault)
    try:
        agent.open()
        server = Server(home, agent.handle, agent.only_waits, os.geteuid())
        try:
            await server.start()
        except OSError as error:
            raise AgentError(f"{home.socket} can't be listened on: {error.strerror}") from None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, agent.stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # a closed terminal does not end the agent
        ready()
        await _until_done(agent, server, opening.idle)
        await server.stop()
    finally:
        await agent.close()


async def _until_done(agent: Agent, server: Server, idle: float | None) -> None:
    if idle is None:
        await agent.stopping.wait()
        return
    while not agent.stopping.is_set():
        left = idle if server.busy else agent.used + idle - time.time()
        if left <= 0:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(left):
                await agent.stopping.wait()
