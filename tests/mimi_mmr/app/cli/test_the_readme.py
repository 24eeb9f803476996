"""The two halves of the walk-through run as they are printed, in four shells; and the page of commands is true."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from contextlib import ExitStack, suppress
from pathlib import Path

import mimi_mmr
from tests.mimi_mmr.app.cli.people import PASSPHRASE, Person, command
from tests.mimi_mmr.provider.settings.settings_world import clean_environment

ROOT = Path(mimi_mmr.__file__).parent.parent
PATIENCE = 120.0
DONE = "the block is done"
INSTALL = "python3 -m venv .venv && .venv/bin/pip install -e .    # as `make` does\n"
BLOCKS = re.compile(r"^```sh\n# terminal (\d): [^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    """(terminal, commands) in their order: the front page's half, then the walk-through's."""
    first, second = (ROOT / "README.md").read_text(), (ROOT / "docs" / "walkthrough.md").read_text()
    found = BLOCKS.findall(first), BLOCKS.findall(second)
    assert all(found)
    return [*found[0], *found[1]]


def free_ports() -> int:
    """The first of four neighbours that nobody listens on."""
    while True:
        with ExitStack() as stack, suppress(OSError, OverflowError):
            port: int = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for number in range(1, 4):
                stack.enter_context(socket.create_server(("127.0.0.1", port + number)))
            return port


class Shell:
    """A terminal in which somebody types blocks of commands; the first that fails ends it."""

    def __init__(self, process: Process) -> None:
        self.process = process

    @classmethod
    async def open(cls, directory: Path) -> Shell:
        environment = clean_environment() | {"MIMI_MMR_PASSPHRASE": PASSPHRASE}
        return cls(
            await asyncio.create_subprocess_exec(
                "bash",
                "-e",
                stdin=PIPE,
                stdout=PIPE,
                stderr=STDOUT,
                cwd=directory,
                env=environment,
                start_new_session=True,
            )
        )

    async def type(self, commands: str) -> str:
        """Type a block; what was said up to its end."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{commands}\necho {DONE}\n".encode())
        return await self.until(DONE)

    async def until(self, words: str) -> str:
        assert self.process.stdout is not None
        said = ""
        async with asyncio.timeout(PATIENCE):
            while words not in said:
                line = (await self.process.stdout.readline()).decode()
                assert line, said
                said += line
        return said

    async def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)  # the shell, and what it has in the background
        await self.process.communicate()


async def test_the_walk_through_runs_as_printed(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    typed, port = blocks(), free_ports()
    assert INSTALL in typed[0][1]
    shells = {number: await Shell.open(tmp_path) for number in "1234"}
    said = dict.fromkeys(shells, "")
    try:
        for number, commands in typed:
            commands = commands.replace(INSTALL, "").replace("local try", f"local try --port {port}")
            commands = commands.replace("8461", str(port)).replace("8462", str(port + 1))
            said[number] += await shells[number].type(commands)
            if "serve" in commands:
                for _ in range(2):
                    said[number] += await shells[number].until("serves on")
    finally:
        for name, domain in (("alice", "a.example"), ("bob", "b.example"), ("tablet", "a.example")):
            Person(name, domain, tmp_path / "try" / name).reap()
        for shell in shells.values():
            await shell.close()
    alice, bob = said["2"], said["3"]
    assert "bob@b.example accepted" in alice
    assert "alice@a.example: hello, Bob" in bob
    assert "bob@b.example: hello, Alice" in alice
    assert re.search(r"bob@b.example\t.*verified", alice)
    assert "stopped" in alice
    assert (tmp_path / "try" / "from-bob.txt").read_text() == "plant them in October\n"
    assert "alice@a.example: from the tablet" in bob
    assert re.search(r"bob@b.example\tpinned, blocked", alice)


async def test_every_command_is_on_the_page_of_commands() -> None:
    page = (ROOT / "mimi_mmr" / "app" / "cli" / "README.md").read_text()
    table = page.partition("## What `--json` prints")[2]
    for group in ("account", "contact", "device", "room", "asset", "agent"):
        done = await command(group, "--help", env={"TERM": "dumb", "COLUMNS": "200"})
        named = re.findall(r"^│ ([a-z-]+) ", done.out.partition("Commands")[2], re.MULTILINE)
        assert named, done
        for name in named:
            # `agent run` is the agent itself, and prints no JSON.
            assert f"`{group} {name}`" in table or (group, name) == ("agent", "run")


def documented(of: str) -> set[str]:
    """Keys that the page of commands gives for a command."""
    page = (ROOT / "mimi_mmr" / "app" / "cli" / "README.md").read_text()
    for commands, keys in re.findall(r"^\| (.*?) \| (.*) \|$", page.partition("## What")[2], re.MULTILINE):
        if of in commands:
            return set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", keys)))
    raise AssertionError(of)
