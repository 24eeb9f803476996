"""A shell completes commands always, rooms and people from an agent that is running, and starts none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.mimi_mmr.app.cli.people import Person, befriend, command, people
from tests.mimi_mmr.conftest import LiveWorld


async def complete(person: Person, line: str) -> set[str]:
    """What bash would offer."""
    environment = {
        "MIMI_MMR_HOME": str(person.home),
        "_MIMI_MMR_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    done = await command(env=environment, program=[str(Path(sys.executable).with_name("mimi-mmr"))])
    return set(done.out.split("\n")) - {""}


@pytest.mark.nightly  # a minute of commands, each a process
async def test_commands_rooms_and_people(live: LiveWorld, tmp_path: Path) -> None:
    async with people(live, tmp_path, alice="a.example", bob="b.example") as (alice, bob):
        await befriend(alice, bob)
        room = await alice.ask("room", "create", "--name", "friends")
        await alice.ask("room", "create", "--name", "two words")
        assert {"account", "device", "contact", "room", "asset", "agent", "status"} <= await complete(
            alice, "mimi-mmr "
        )
        assert await complete(alice, "mimi-mmr room re") == {"remove", "rename", "reveal", "read"}
        assert await complete(alice, "mimi-mmr room send fr") == {"friends"}
        assert room["id"] in await complete(alice, "mimi-mmr room send ")
        assert await complete(alice, "mimi-mmr room add friends b") == {"bob@b.example"}
        assert await complete(alice, "mimi-mmr contact block bo") == {"bob@b.example"}
        await alice.ask("agent", "stop")
        assert await complete(alice, "mimi-mmr room send fr") == set()
        assert await complete(alice, "mimi-mmr room who --") >= {"--home", "--json"}
        assert (await alice.run("agent", "status")).status == 4
