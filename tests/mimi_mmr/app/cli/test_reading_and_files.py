"""Real commands whose output or files fail, or whose agent has just started: nothing is lost, and nothing hangs."""

from __future__ import annotations

import asyncio
import shlex
import sys
from pathlib import Path

import pytest

from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.errors import StateError
from tests.mimi_mmr.app.cli.people import PASSPHRASE, PATIENCE, Done, Person, befriend, command, people
from tests.mimi_mmr.conftest import LiveWorld

TEXT = "a snowman: ☃"


async def in_shell(person: Person, script: str) -> Done:
    """A script in which `mimi` is the command, for this person."""
    mimi = shlex.join([sys.executable, "-m", "mimi_mmr"])
    environment = person.environment | {"MIMI_MMR_HOME": str(person.home)}
    return await command(program=("bash", "-c", f'mimi() {{ {mimi} "$@"; }}\n{script}'), env=environment)


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def texts(person: Person, *arguments: str) -> list[str]:
    return [message["text"] for message in await person.lines("room", "read", *arguments)]


async def test_what_was_not_written_is_not_read_and_files_go_through_the_commands_own_hands(
    live: LiveWorld, tmp_path: Path
) -> None:
    async with people(live, tmp_path, alice="a.example", bob="b.example") as (alice, bob):
        await befriend(alice, bob)
        await pipes_and_descriptors_are_read_by_the_command(alice, tmp_path)
        files = [message["number"] for message in await bob.lines("room", "read", "alice", "--wait", "60")]
        while len(files) < 2:
            files += [
                message["number"] for message in await bob.lines("room", "read", "alice", "--wait", "60")
            ]
        (tmp_path / "in").mkdir()
        await a_file_that_does_not_fit_leaves_nothing(bob, files[0], tmp_path / "in")
        await messages_that_can_not_be_written_stay_unread(alice, bob)
        await what_came_while_no_agent_ran_is_there_at_once_and_everything_can_be_read(alice, bob, live)


async def pipes_and_descriptors_are_read_by_the_command(alice: Person, tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_bytes(b"dear bob" * 1000)
    done = await in_shell(alice, f"mimi asset put bob /dev/fd/3 --name letter --json 3< {letter}")
    assert (done.status, done.json["name"], done.json["size"]) == (0, "letter", 8000), done
    done = await in_shell(alice, "printf hello | mimi asset put bob /dev/stdin --json")
    assert (done.status, done.json["name"], done.json["size"]) == (0, "stdin", 5), done
    done = await in_shell(alice, "mimi asset put bob /dev/zero")
    assert (done.status, "at most" in done.err) == (2, True), done
    with pytest.raises(StateError, match="in use by another process"):  # the agent still has its lock
        Vault.open(alice.home / "state", PASSPHRASE)


async def a_file_that_does_not_fit_leaves_nothing(bob: Person, number: int, directory: Path) -> None:
    copy = directory.parent / "copy"
    assert (await in_shell(bob, f"mimi asset get alice {number} --out - > {copy}")).err == ""
    assert copy.read_bytes() == b"dear bob" * 1000
    get = f"mimi asset get alice {number} --out {directory}"
    done = await in_shell(bob, f"ulimit -f 1; {get}")
    assert (done.status, "can't be written" in done.err) == (1, True), done
    assert names(directory) == []
    assert (await in_shell(bob, get)).status == 0
    assert (directory / "letter").read_bytes() == b"dear bob" * 1000


async def messages_that_can_not_be_written_stay_unread(alice: Person, bob: Person) -> None:
    await alice.ask("room", "send", "bob", TEXT)
    done = await in_shell(bob, "mimi room read alice --wait 60 > /dev/full")
    assert done.status == 1
    assert "standard output can't be written to: No space left on device" in done.err
    done = await in_shell(bob, "mimi room read alice >&-")
    assert (done.status, "it is closed" in done.err) == (1, True), done
    done = await in_shell(bob, "PYTHONIOENCODING=iso-8859-1 mimi room read alice")
    assert (done.status, "a snowman: ?" in done.out) == (0, True), done
    assert await texts(bob, "alice") == []


async def what_came_while_no_agent_ran_is_there_at_once_and_everything_can_be_read(
    alice: Person, bob: Person, live: LiveWorld
) -> None:
    before = await texts(bob, "alice", "--all")
    await bob.ask("agent", "stop")
    await alice.ask("room", "send", "bob", "news")
    async with asyncio.timeout(PATIENCE):
        for provider in live.providers.values():
            while await provider.hub_store.destinations():
                pass
    # no --wait: the provider has it
    assert await texts(bob, "alice") == ["news"]
    assert await texts(bob, "alice", "--all") == [*before, "news"]
