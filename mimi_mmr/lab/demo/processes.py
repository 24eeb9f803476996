"""The world's parties as separate processes, each of which serves on the socket that was opened for it."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import Process
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from mimi_mmr.errors import MmrError
from mimi_mmr.lab.demo.world import Party, World

START_SECONDS = 30.0
STOP_SECONDS = 15.0


class Processes:
    """Starts every party on entry; stops all on exit."""

    def __init__(self, world: World) -> None:
        """Prepare the processes of this world."""
        self._world = world
        self._stack = AsyncExitStack()
        self._running: dict[str, Process] = {}

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*(self._start(party, "serve") for party in self._world.providers.values()))
            await self._start(self._world.asset_host, "asset-host")
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def _start(self, party: Party, command: str) -> None:
        with log_file(party).open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "mimi_mmr", command, "--config", str(party.config)),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                pass_fds=[party.socket.fileno()],
            )
        self._running[party.name] = process
        if process.stdout is None:
            raise MmrError(f"{party.name} has no output to wait for")
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
        if b"serves on" not in line:
            said = log_file(party).read_text().strip().splitlines()
            raise MmrError(f"{party.name} did not start: {said[-1] if said else 'it said nothing'}")

    async def stop(self) -> None:
        """Ask every process to end, and wait for all; kill one that does not end, and raise an error."""
        running = {name: process for name, process in self._running.items() if process.returncode is None}
        for process in running.values():
            process.terminate()
        waiting = {name: asyncio.create_task(process.wait()) for name, process in running.items()}
        late = []
        try:
            if waiting:
                await asyncio.wait(waiting.values(), timeout=STOP_SECONDS)
        finally:  # also if this wait is cancelled: no process is left running
            for name, process in running.items():
                if process.returncode is None:
                    late.append(name)
                    process.kill()
        await asyncio.gather(*waiting.values())
        self._running.clear()
        if late:
            raise MmrError(f"{', '.join(late)} did not stop within {STOP_SECONDS:.0f} s")


def log_file(party: Party) -> Path:
    """Return the path of a party's log."""
    return party.directory / "log.jsonl"
