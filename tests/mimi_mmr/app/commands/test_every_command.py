"""Every command is whole: described, reachable at both ends, documented, and strict about its arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from typer.testing import CliRunner

import mimi_mmr
from mimi_mmr.app.agent.agent import Agent
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.agent.socket_messages import CommandRequest
from mimi_mmr.app.cli import app
from mimi_mmr.app.commands import NOUNS
from mimi_mmr.app.commands.agent import StopAgent
from mimi_mmr.app.commands.context import Say
from mimi_mmr.app.commands.errors import BadRequest
from mimi_mmr.app.commands.hints import hint_for
from mimi_mmr.app.commands.model import Argument, Command, Option
from mimi_mmr.app.commands.result import Result
from mimi_mmr.app.commands.status import ShowStatus
from mimi_mmr.app.commands.table import COMMANDS
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.errors import MmrError, RoomError

PAGE = Path(mimi_mmr.__file__).parent / "app" / "cli" / "README.md"
ROW = re.compile(r"^\| (.*?) \| (.*) \|$", re.MULTILINE)
NOBODY: Any = None  # these requests fail before they report anything

TYPED = [command for command in COMMANDS.values() if command.about.words]
ARGUMENTS = [(command, name) for command in COMMANDS.values() for name in command.model_fields]
# Arguments that are right, for commands that need some.
GIVEN: dict[str, dict[str, Any]] = {
    "account.create": {
        "user": "alice",
        "provider": "https://a.example",
        "domain": "a.example",
        "trust": "/t",
    },
    "account.trust": {"trust": "/t"},
    "account.passphrase": {"new": "long enough"},
    "device.remove": {"device": "tablet"},
    "contact.add": {"to": "bob@b.example"},
    "contact.only-contacts": {"setting": "on"},
    "room.rename": {"name": "x"},
    "room.join": {"link": "mimi-join:x"},
    "room.add": {"users": ["bob"]},
    "room.remove": {"who": ["bob", "3"]},
    "room.admin": {"who": "bob"},
    "room.send": {"text": "hello"},
    "asset.put": {"file": "/f"},
    "asset.get": {"number": 3},
    "room.shown": {"number": 3},
    "notices.shown": {"number": 3},
}
GIVEN["device.join"] = GIVEN["account.create"] | {"code": "x"}
FITTING = {"room": "friends", "user": "bob"}


def named(command: type[Command]) -> str:
    return command.about.name


def given(command: type[Command]) -> dict[str, Any]:
    """Arguments that the command takes."""
    found = {name: value for name, value in FITTING.items() if name in command.model_fields}
    return found | GIVEN.get(command.about.name, {})


def below(kind: type[Command]) -> Iterator[type[Command]]:
    for inner in kind.__subclasses__():
        yield inner
        yield from below(inner)


def test_the_table_has_every_command_once() -> None:
    assert len(TYPED) > 35
    defined = [command for command in below(Command) if "about" in vars(command)]
    assert {named(command) for command in defined} == set(COMMANDS)
    assert len(defined) == len(COMMANDS)
    words = [command.about.words for command in TYPED]
    assert len(set(words)) == len(words)
    assert {first for first, *_ in words} == set(NOUNS)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=named)
def test_a_command_and_each_of_its_arguments_has_help(command: type[Command]) -> None:
    assert command.about.help.endswith(".")
    assert command.__doc__ != command.__base__.__doc__
    assert set(command.shapes()) == set(command.model_fields)
    assert all(shape.help for shape in command.shapes().values())
    assert "run" in vars(command) or command.__base__ is not Command


@pytest.mark.parametrize("command", TYPED, ids=named)
def test_a_command_is_on_the_command_line_with_all_its_arguments(command: type[Command]) -> None:
    done = CliRunner().invoke(app, [*command.about.words, "--help"], env={"TERM": "dumb", "COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    for paragraph in command.about.help.split("\n\n"):
        assert paragraph in done.output
    for name, shape in command.shapes().items():
        assert shape.help in done.output, name
        for flag in () if isinstance(shape, Argument) else shape.names.split():
            assert f"{flag} " in done.output
    assert all(option in done.output for option in ("--home", "--json", "--passphrase-file"))


def test_help_of_a_noun_stands_once() -> None:
    assert ShowStatus.about.help == NOUNS["status"]


def test_what_is_not_on_the_command_line_completes_something_there_or_says_what_was_shown() -> None:
    completing = {
        shape.completes
        for command in TYPED
        for shape in command.shapes().values()
        if isinstance(shape, Argument) and shape.completes
    }
    shown = {COMMANDS["room.shown"], COMMANDS["notices.shown"]}
    assert completing | shown == set(COMMANDS.values()) - set(TYPED)


# --- the page of commands -----------------------------------------------------------------------------


def keys_of(kind: Any) -> set[str]:
    """The keys of a result's JSON, as its model has them."""
    model = get_args(kind)[0] if get_origin(kind) is list else kind
    assert issubclass(model, Result)
    return {field.serialization_alias or name for name, field in model.model_fields.items()}


def documented_rows() -> list[tuple[str, set[str]]]:
    """Each row of the page: which commands, which keys."""
    rows: list[tuple[str, set[str]]] = []
    for commands, keys in ROW.findall(PAGE.read_text().partition("## What")[2]):
        found = set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", keys)))
        rows.append((commands, found | (rows[-1][1] if keys.startswith("those, and") else set())))
    return rows


@pytest.mark.parametrize("command", TYPED, ids=named)
def test_the_page_of_commands_has_the_keys_of_each_result(command: type[Command]) -> None:
    about = command.about
    written = [keys for commands, keys in documented_rows() if f"`{' '.join(about.words)}`" in commands]
    if about.name == "room.link":  # whose page says what it prints with --revoke, too
        assert written == [{"room", "link"}]
        return
    printed = [about.item] if about.name == "room.read" else [about.item, about.result]
    assert written == [keys_of(kind) for kind in printed if kind is not None]


def test_the_page_of_commands_has_the_keys_inside_of_results() -> None:
    rows = dict(documented_rows())
    contacts = COMMANDS["contact.list"].about.result.model_fields["contacts"].annotation
    assert next(keys for commands, keys in rows.items() if "each of `contacts`" in commands) == keys_of(
        contacts
    )
    members = COMMANDS["room.who"].about.result.model_fields["hidden"].annotation
    assert rows["each of these three"] == keys_of(members)


# --- strictness ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS.values(), ids=named)
def test_arguments_reach_the_agent_as_they_were_given(command: type[Command]) -> None:
    made = command.from_request(given(command))
    sent = json.loads(json.dumps(made.to_request()))
    local = {name for name, shape in command.shapes().items() if isinstance(shape, Option) and shape.local}
    assert set(sent) == set(command.model_fields) - local
    assert command.from_request(sent) == made
    with pytest.raises(ValueError, match="frozen"):
        made.surplus = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(("command", "name"), ARGUMENTS, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("wrong", [{"secret": "5ecret"}, ["5ecret", 5], "5ecret" * 100_000, float("inf")])
def test_an_argument_of_another_type_or_size_is_refused_by_its_name(
    command: type[Command], name: str, wrong: object
) -> None:
    with pytest.raises(MmrError) as caught:
        command.from_request(given(command) | {name: wrong})
    if not isinstance(caught.value, RoomError):  # the client's own word for a text that is too long
        assert isinstance(caught.value, BadRequest)
        assert str(caught.value).startswith(f"{named(command)}: argument {name!r}: ")
    assert "5ecret" not in str(caught.value)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=named)
def test_a_missing_or_surplus_argument_is_refused_by_its_name(command: type[Command]) -> None:
    with pytest.raises(BadRequest, match="argument 'surplus'"):
        command.from_request(given(command) | {"surplus": 1})
    for name, field in command.model_fields.items():
        if field.is_required():
            with pytest.raises(BadRequest, match=f"argument '{name}'"):
                command.from_request({key: value for key, value in given(command).items() if key != name})


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("room.link", {"uses": 0}),
        ("room.link", {"uses": 10_001}),
        ("room.link", {"expires": "soon"}),
        ("room.link", {"expires": "1234567d"}),
        ("room.link", {"expires": "٣d"}),
        ("room.send", {"text": ""}),
        ("room.send", {"text": "x" * 60_001}),
        ("room.add", {"users": []}),
        ("room.add", {"users": ["x"] * 1001}),
        ("room.add", {"wait": -1.0}),
        ("room.add", {"wait": True}),
        ("room.read", {"follow": 1}),
        ("room.create", {"identities": "some"}),
        ("asset.put", {"file": "not/absolute"}),
        ("asset.get", {"number": 3.5}),
        ("account.create", {"key_package_slot": 0.01}),
        ("device.add", {"wait": 0.5}),
        ("account.passphrase", {"new": "7 chars"}),
    ],
)
def test_limits(command: str, wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(BadRequest, match=f"argument '{name}'"):
        COMMANDS[command].from_request(given(COMMANDS[command]) | wrong)


# --- both ends ----------------------------------------------------------------------------------------


async def test_an_agent_says_what_is_wrong_with_a_request_of_another_version(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.make()
    agent = Agent(home, Vault.create(home.state, "passphrase"))
    say: Say = NOBODY
    try:
        for request, said in (
            (CommandRequest("room.dance", {}), "no command 'room.dance'"),
            (CommandRequest("x" * 100_000, {}), "no command"),
            (CommandRequest("room.send", {"room": "friends", "body": "hello"}), "room.send: argument 'text'"),
        ):
            with pytest.raises(BadRequest, match=said) as caught:
                await agent.handle(request, say)
            assert len(str(caught.value)) < 200
            assert "agent stop" in hint_for(caught.value.code, "room send")
        for command in COMMANDS.values():
            with pytest.raises(BadRequest, match="argument 'surplus'"):
                await agent.handle(CommandRequest(named(command), given(command) | {"surplus": 1}), say)
        # What the hint says works with every version: these words are the same in all of them.
        assert CommandRequest(named(StopAgent), {}).to_line() == b'{"do":"stop","given":{},"notices":false}\n'
        assert set((await agent.handle(CommandRequest("stop", {}), say))["result"]) == {"pid"}
        assert agent.stopping.is_set()
    finally:
        await agent.close()


def test_what_typer_can_not_check_is_a_usage_error_that_names_the_argument(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    env = {"TERM": "dumb", "COLUMNS": "300"}
    done = CliRunner().invoke(app, ["room", "link", "x", "--expires", "soon", "--home", home], env=env)
    assert done.exit_code == 2
    assert "--expires" in done.output
    assert "as in 1d" in done.output
    done = CliRunner().invoke(app, ["room", "who", "x" * 5000, "--home", home], env=env)
    assert done.exit_code == 2
    assert "ROOM" in done.output
    assert "4096" in done.output
    assert "xxx" not in done.output


def test_only_waiting_commands_may_be_broken_off() -> None:
    assert {name for name in COMMANDS if Agent.only_waits(name)} == {"room.read", "device.add", "asset.get"}
    assert not Agent.only_waits("room.dance")


def test_a_command_hides_what_is_secret() -> None:
    for name, secret in (("account.passphrase", "new"), ("device.join", "code")):
        command = COMMANDS[name]
        made = command.from_request(given(command) | {secret: "5ecret code"})
        assert getattr(made, secret) == "5ecret code"
        assert "5ecret" not in repr(made)
