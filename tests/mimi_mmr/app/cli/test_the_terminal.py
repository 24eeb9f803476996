"""What others wrote reaches a terminal as text, and nothing but."""

from __future__ import annotations

import ast
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimi_mmr.app.cli import terminal
from mimi_mmr.app.cli.asset import _show_sent
from mimi_mmr.app.cli.room import show_message
from mimi_mmr.app.commands.asset import SentFileResult, safe_name
from mimi_mmr.app.commands.message import MessageResult
from tests.mimi_mmr.app.cli.people import befriend, people
from tests.mimi_mmr.conftest import LiveWorld

HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp\u2066\x00\r\x08 [bold red]not markup[/] \u2028\ud800".replace(
        "\ud800", ""
    )
)


@given(st.text())
def test_what_is_said_is_one_line_and_commands_no_terminal(text: str) -> None:
    line = terminal.one_line(text)
    assert "\n" not in line
    assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Co", "Zl", "Zp") for letter in line)


def test_a_newline_in_a_name_does_not_break_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    _show_sent(SentFileResult(room="mimi://a.example/r/1", name="a\nerror: b\r\n\u2028c", size=3))
    terminal.note("note: added to the room a\nb")
    assert capsys.readouterr() == ("Sent a error: b  c, 3 bytes.\n", "note: added to the room a b\n")


def test_every_column_has_a_heading() -> None:
    found = [
        heading.value
        for path in Path(terminal.__file__).parent.glob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "show_table"
        for heading in ast.walk(call.args[0])
        if isinstance(heading, ast.Constant)
    ]
    assert len(found) >= 8
    assert all(isinstance(heading, str) and heading for heading in found)


@given(st.text())
def test_a_files_name_leads_nowhere_else(name: str) -> None:
    safe = safe_name(name)
    assert safe
    assert "/" not in safe
    assert "\\" not in safe
    assert safe[0] not in ".-"
    assert len(safe.encode()) <= 200
    assert safe.isprintable()


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        (".bashrc", "bashrc"),
        ("-rf", "rf"),
        ("", "file"),
        ("a\x1b[31m.txt", "a_[31m.txt"),
    ],
)
def test_names_of_files(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_people_are_called_as_people_write_them() -> None:
    said = "mimi://b.example/u/bob accepted; mimi://a.example/u/al.ice. And mimi://a.example/r/1"
    assert (
        terminal.with_addresses(said) == "bob@b.example accepted; al.ice@a.example. And mimi://a.example/r/1"
    )


def test_a_message_cannot_look_like_two(capsys: pytest.CaptureFixture[str]) -> None:
    sender = {"user": None, "pseudonym": "mimi://a.example/p/0123456789", "standing": "hidden"}
    show_message(
        MessageResult.model_validate(
            {
                "room": "mimi://a.example/r/0123456789",
                "number": 1,
                "received": 0,
                "own": False,
                "from": sender,
                "kind": "text",
                "text": "hello\n1970-01-01 00:00  alice@a.example: send money",
            }
        )
    )
    first, second = capsys.readouterr().out.splitlines()
    assert "hidden 01234567: hello" in first
    assert second.startswith("    ")


async def test_hostile_names_and_texts_from_end_to_end(live: LiveWorld, tmp_path: Path) -> None:
    async with people(live, tmp_path, alice="a.example", bob="b.example") as (alice, bob):
        await befriend(alice, bob)
        hostile = HOSTILE.replace("\x00", "")  # which no argument can hold
        await alice.ask("room", "rename", "bob", hostile)
        sent = tmp_path / "evil\x1b[31m\n.txt"
        sent.write_text("x")
        await alice.ask("room", "send", "bob", hostile)
        await alice.ask("asset", "put", "bob", str(sent))
        seen = ""
        while "file" not in seen:
            seen += (await bob.run("room", "read", "alice", "--wait", "60")).out
        for arguments in (
            ["room", "list"],
            ["room", "who", "alice"],
            ["status"],
            ["room", "read", "alice", "--all"],
        ):
            done = await bob.run(*arguments)
            assert done.status == 0, done
            seen += done.out + done.err
        assert not set(seen) & set("\x1b\x07\x9b\u202e\u2066\r\x08\u2028")
        assert "[bold red]not markup[/]" in seen
        done = await bob.run("room", "list", "--json")
        assert done.out.isascii()
        assert json.loads(done.out)[0]["name"].startswith("\x1b]0;owned")


@pytest.mark.parametrize("seconds", [2**64 - 1, 2**64 // 1000, 253_402_300_800])
def test_a_time_beyond_the_year_9999_is_shown(seconds: int) -> None:
    assert terminal.when(seconds).startswith("9999-12-31")
