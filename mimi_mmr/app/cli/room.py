"""`mimi-mmr room` on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from mimi_mmr.app.cli import terminal
from mimi_mmr.app.cli.from_models import Front, command_line, shown_by
from mimi_mmr.app.cli.invocation import Invocation
from mimi_mmr.app.cli.safe_text import safe
from mimi_mmr.app.commands.member import (
    AddedResult,
    AddMembers,
    ChangeAdmin,
    MemberResult,
    MembersResult,
    RemoveMembers,
    ShowMembers,
)
from mimi_mmr.app.commands.message import MessageResult, ReadMessages, SendMessage, ShownMessages
from mimi_mmr.app.commands.room import (
    CreateRoom,
    HealRoom,
    JoinLinkResult,
    JoinRoom,
    LeaveRoom,
    LeftResult,
    LinkRoom,
    ListRooms,
    RenameRoom,
    RevealName,
    RoomResult,
)

LARGE = 50


# --- rooms --------------------------------------------------------------------------------------------


def _name(room: RoomResult) -> str:
    return room.name or (terminal.person(room.with_) if room.with_ else "")


def _show_done(said: str, room: RoomResult) -> None:
    terminal.say(f"{said} {_name(room) or room.id} ({room.id})")


def _done(said: str) -> Front:
    """Return a front that prints this text about the room in the result."""
    return shown_by(lambda room: _show_done(said, room))


def _show_rooms(rooms: list[RoomResult]) -> None:
    rows = [
        [
            room.id,
            _name(room),
            room.kind,
            room.members,
            room.unread or "",
            "" if room.state == "joined" else room.state,
        ]
        for room in rooms
    ]
    terminal.show_table(
        ["id", "name", "kind", "people", "unread", "state"], rows, empty="No rooms yet: mimi-mmr room create"
    )


def _show_left(left: LeftResult) -> None:
    told = "You have left. The other members were told; one of their devices will remove you."
    terminal.say("The room and its messages are deleted here." if left.forgotten else told)


def _show_link(made: JoinLinkResult) -> None:
    terminal.say(made.link or "No link of this room works any more.")


# --- members ------------------------------------------------------------------------------------------


def _add(invocation: Invocation, command: AddMembers) -> None:
    invocation.show(command, invocation.ask(command), _show_added)


def _show_added(room: AddedResult) -> None:
    added = ", ".join(terminal.person(user) for user in room.added)
    _show_done(f"Added {added} to" if added else "Nobody was added, all are in it already:", room)


def _who(invocation: Invocation, command: ShowMembers) -> None:
    if invocation.json or not sys.stderr.isatty():
        found = invocation.ask(command)
    else:
        with progress_of_many() as on_progress:
            found = invocation.ask(command, on_progress=on_progress)
    invocation.show(command, found, _show_members)


@contextmanager
def progress_of_many() -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr while members are verified, if there are many."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", visible=False)

        def on_progress(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=total >= LARGE)

        yield on_progress


def _show_members(found: MembersResult) -> None:
    """Show one table, verified members first."""
    rows = [
        [
            member.leaf,
            terminal.person(member.user) if member.user else f"({member.standing})",
            member.device or member.pseudonym.rpartition("/")[2][:8],
            member.role,
            _remark(member),
        ]
        for member in (*found.verified, *found.unverified, *found.hidden)
    ]
    terminal.show_table(["leaf", "who", "device", "role", "standing"], rows, empty="Nobody.")
    for problem in found.room.problems:
        terminal.note(f"note: {problem}")


def _remark(member: MemberResult) -> str:
    if member.own:
        return "me"
    return f"{member.standing}: {member.why}" if member.why else member.standing


# --- messages -----------------------------------------------------------------------------------------


def _read(invocation: Invocation, command: ReadMessages) -> None:
    """Show messages. Those that are written out are read, also if this ends early."""
    shown: ShownMessages | None = None
    try:
        for kind, value in invocation.stream(command):
            if kind == "result":
                return
            message: MessageResult = command.about.item_from_json(value)
            if invocation.json:
                terminal.show_json(value)
            else:
                show_message(message)
            sys.stdout.flush()
            shown = ShownMessages(room=message.room, number=message.number)
            if command.follow:
                invocation.confirm(shown)
    finally:
        if shown is not None and not command.follow:
            invocation.confirm(shown)


def show_message(message: MessageResult) -> None:
    """Show a message: the time, the sender and how sure that is, the text. Further lines are indented."""
    text = safe(message.text).replace("\n", "\n    ")
    if message.asset is not None:
        name = terminal.one_line(message.asset.name)
        text = f"[file {message.number}: {name}, {message.asset.size} bytes]"
    typer.echo(f"{terminal.when(message.received)}  {terminal.one_line(_sender(message))}: {text}")


def _sender(message: MessageResult) -> str:
    if message.own:
        return "me"
    if message.from_.standing == "hidden":
        return f"hidden {message.from_.pseudonym.rpartition('/')[2][:8]}"
    return terminal.person(message.from_.user) if message.from_.standing == "verified" else "UNVERIFIED"


app = command_line(
    "room",
    {
        CreateRoom: _done("Made"),
        ListRooms: shown_by(_show_rooms),
        AddMembers: Front(_add),
        RemoveMembers: _done("Removed them from"),
        ChangeAdmin: _done("Changed roles in"),
        ShowMembers: Front(_who),
        SendMessage: shown_by(lambda _: None),
        ReadMessages: Front(_read),
        LinkRoom: shown_by(_show_link),
        JoinRoom: _done("Joined"),
        LeaveRoom: shown_by(_show_left),
        RenameRoom: _done("It is now"),
        RevealName: _done("Your name is now shown in"),
        HealRoom: _done("Healed"),
    },
)
