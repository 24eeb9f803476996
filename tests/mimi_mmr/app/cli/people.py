"""People at their terminals: real commands, real agents, real providers."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.agent.launch import wait_for_end
from tests.mimi_mmr.conftest import LiveWorld
from tests.mimi_mmr.provider.settings.settings_world import clean_environment

PATIENCE = 90.0
PASSPHRASE = "a passphrase that nobody else has"


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.err.splitlines()[-1])["error"]
        return found


async def command(
    *arguments: str,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    program: Sequence[str] = (sys.executable, "-m", "mimi_mmr"),
) -> Done:
    """Run `mimi-mmr` to its end."""
    process = await asyncio.create_subprocess_exec(
        *program,
        *arguments,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env=clean_environment() | (env or {}),
        cwd=cwd,
        start_new_session=True,  # no terminal to ask on
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


@dataclass
class Person:
    """Somebody with a home of their own."""

    name: str
    domain: str
    home: Path
    live: LiveWorld | None = None
    environment: dict[str, str] = field(default_factory=lambda: {"MIMI_MMR_PASSPHRASE": PASSPHRASE})

    async def run(self, *arguments: str, env: dict[str, str] | None = None) -> Done:
        environment = self.environment | {"MIMI_MMR_HOME": str(self.home)}
        return await command(*arguments, env=environment if env is None else env)

    async def ask(self, *arguments: str) -> Any:
        """A command that is to work; what it says as JSON."""
        done = await self.run(*arguments, "--json")
        assert done.status == 0, done
        return done.json

    async def lines(self, *arguments: str) -> list[Any]:
        """A command that says a line of JSON for each of many things."""
        done = await self.run(*arguments, "--json")
        assert done.status == 0, done
        return [json.loads(line) for line in done.out.splitlines()]

    def opening(self) -> list[str]:
        """Where the provider is, as options."""
        assert self.live is not None
        world = self.live.world
        return [
            *("--provider", world.providers[self.domain].url),
            *("--domain", self.domain),
            *("--trust", str(world.trust_dir)),
            *("--tls-ca", str(world.ca_file)),
            *("--key-package-slot", "0.05"),
        ]

    async def create(self) -> Any:
        return await self.ask("account", "create", self.name, "--device", "phone", *self.opening())

    async def read(self, room: str) -> list[str]:
        """What is new in a room, waited for."""
        return [message["text"] for message in await self.lines("room", "read", room, "--wait", "60")]

    @property
    def agent(self) -> int:
        """The agent's process."""
        return int((self.home / "agent.lock").read_text())

    async def kill(self) -> None:
        """The agent dies, at once."""
        os.kill(self.agent, signal.SIGKILL)
        await asyncio.to_thread(wait_for_end, Home(self.home))

    def reap(self) -> None:
        """At the end: no agent is left, whatever happened."""
        with suppress(OSError, ValueError):
            command_line = Path(f"/proc/{self.agent}/cmdline").read_bytes()
            if str(self.home).encode() in command_line:
                os.kill(self.agent, signal.SIGKILL)


@asynccontextmanager
async def people(live: LiveWorld, directory: Path, **names: str) -> AsyncIterator[list[Person]]:
    """Registered people, by name and domain."""
    found = [Person(name, domain, directory / name, live) for name, domain in names.items()]
    try:
        await asyncio.gather(*(person.create() for person in found))
        yield found
    finally:
        for person in found:
            person.reap()


def typing(arguments: Sequence[str], home: Path, answers: Sequence[str], prompt: str) -> tuple[int, str]:
    """Somebody at a terminal: a command, answered at each prompt; its status, and all that stood there."""
    child, terminal = pty.fork()
    if not child:
        environment = clean_environment() | {"TERM": "dumb", "MIMI_MMR_HOME": str(home)}
        program = [sys.executable, "-m", "mimi_mmr", *arguments]
        os.execve(sys.executable, program, environment)  # noqa: S606  # this very Python
    said, given = b"", 0
    while True:
        try:
            chunk = os.read(terminal, 4096)
        except OSError:  # the terminal has gone with its last process
            break
        said += chunk
        while given < len(answers) and len(re.findall(prompt.encode(), said)) > given:
            os.write(terminal, f"{answers[given]}\n".encode())
            given += 1
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.decode(errors="replace")


async def until(person: Person, what: str, *arguments: str, wanted: Any) -> Any:
    """Ask until the answer is as wanted: the agent does it by itself, and each answer comes from it."""
    end = asyncio.get_running_loop().time() + PATIENCE
    while asyncio.get_running_loop().time() < end:
        found = await person.ask(*arguments)
        if wanted(found):
            return found
    raise AssertionError((what, found, await person.ask("status")))


async def befriend(asking: Person, asked: Person) -> None:
    """The two connect, with a contact code, and are ready to be added to rooms."""
    code = (await asked.ask("contact", "code"))["code"]
    await asking.ask("contact", "add", code)
    await asked.ask("contact", "accept", asking.name)
    for person, other in ((asking, asked), (asked, asking)):
        await until(person, f"{other.name} ready", "contact", "list", wanted=ready(other))


def ready(other: Person) -> Any:
    """Whether a contact list has somebody who can be added."""
    uri = f"mimi://{other.domain}/u/{other.name}"
    return lambda found: any(entry["user"] == uri and entry["ready"] for entry in found["contacts"])
