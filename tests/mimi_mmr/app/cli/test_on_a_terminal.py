"""What commands look like on a terminal, and while they go on."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.progress import Progress

from mimi_mmr.app.cli import contact, room
from mimi_mmr.app.commands.contact import ContactResult
from mimi_mmr.app.commands.member import AddMembers
from tests.mimi_mmr.app.cli.people import PATIENCE, Person, befriend, people, typing
from tests.mimi_mmr.conftest import LiveWorld
from tests.mimi_mmr.provider.settings.settings_world import clean_environment


async def test_tables_on_a_terminal_lines_elsewhere(live: LiveWorld, tmp_path: Path) -> None:
    async with people(live, tmp_path, alice="a.example") as (alice,):
        made = await alice.ask("room", "create", "--name", "friends [bold]")

        async def seen(*arguments: str) -> list[list[str]]:
            status, said = await asyncio.to_thread(typing, arguments, alice.home, [], "never")
            assert status == 0, said
            return [re.split(r" {2,}", line.strip()) for line in said.splitlines() if line.strip()]

        assert await seen("contact", "requests") == [["Nobody asks to connect."]]
        head, row = await seen("room", "list")
        assert head[:2] == ["id", "name"]
        assert row[:2] == [made["id"], "friends [bold]"]
        head, row = await seen("room", "who", made["id"])
        assert (head[1], row[1]) == ("who", "alice@a.example")
        done = await alice.run("contact", "requests")
        assert (done.status, done.out) == (0, "")  # no rows, no lines


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (["mimi://b.example/u/bob"], "Added bob@b.example to shed (0123abcd)"),
        ([], "Nobody was added, all are in it already: shed (0123abcd)"),
    ],
)
def test_who_was_added_and_who_was_in_already(
    added: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    about = {
        "room": "mimi://a.example/r/0123abcd",
        "id": "0123abcd",
        "name": "shed",
        "kind": "room",
        "with": None,
        "members": 2,
        "identities": "everyone",
        "role": "admin",
        "unread": 0,
        "lost": 0,
        "state": "joined",
        "problems": [],
    }
    room._show_added(AddMembers.about.result_from_json(about | {"added": added}))
    assert capsys.readouterr().out == f"{said}\n"


def test_a_contact_whose_connection_a_block_has_ended_is_no_contact_in_waiting() -> None:
    bob = ContactResult(
        user="mimi://b.example/u/bob", standing="pinned", blocked=False, ready=False, room=None
    )
    assert contact._standing(bob) == "pinned, not connected: mimi-mmr contact add CODE connects again"
    waiting = bob.model_copy(update={"room": "mimi://a.example/r/0123abcd"})
    assert contact._standing(waiting) == "pinned, not ready for rooms yet"


async def test_a_contact_code_as_a_qr_code(live: LiveWorld, tmp_path: Path) -> None:
    async with people(live, tmp_path, alice="a.example") as (alice,):
        shown = (await alice.run("contact", "code", "--qr")).out.splitlines()
        assert shown[-1] == (await alice.ask("account", "show"))["contact_code"]
        assert len(shown) > 20
        assert set("".join(shown[:-1])) & set("\u2580\u2584\u2588")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell has what it starts in the background ignore SIGINT, and so does all that this starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


async def follow(person: Person, name: str) -> Process:
    arguments = ["room", "read", name, "--follow", "--json", "--home", str(person.home)]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mimi_mmr", *arguments), stdout=PIPE, stderr=PIPE, env=clean_environment()
    )


@pytest.mark.nightly  # a minute of commands, each a process
@pytest.mark.usefixtures("interruptible")
async def test_following_a_room_until_interrupted(live: LiveWorld, tmp_path: Path) -> None:
    async with people(live, tmp_path, alice="a.example", bob="b.example") as (alice, bob):
        await befriend(alice, bob)
        for ending in (signal.SIGINT, signal.SIGKILL):
            reading = await follow(bob, "alice")
            assert reading.stdout is not None
            for text in ("one", "two"):
                await alice.ask("room", "send", "bob", text)
                async with asyncio.timeout(PATIENCE):
                    assert json.loads(await reading.stdout.readline())["text"] == text
            if ending is signal.SIGINT:
                reading.send_signal(ending)
            else:
                os.kill(bob.agent, ending)  # not the command, but its agent
            async with asyncio.timeout(PATIENCE):
                _, err = await reading.communicate()
            assert reading.returncode == (130 if ending is signal.SIGINT else 4)
            assert b"Traceback" not in err
        again = [line["text"] for line in await bob.lines("room", "read", "alice")]
        assert again in ([], ["two"])  # what was shown stays read, but for what the agent was killed over


def test_the_progress_of_many_members_is_shown_and_of_few_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Progress] = []
    start = Progress.start
    monkeypatch.setattr(Progress, "start", lambda self: (shown.append(self), start(self))[1])
    with room.progress_of_many() as on_progress:
        (task,) = shown[0].tasks
        on_progress(1, 3)
        assert not task.visible
        on_progress(10, 1000)
        assert (task.visible, task.completed, task.total) == (True, 10, 1000)
