"""`mimi-mmr room`: rooms, who is in them, what is said there."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mimi_mmr.app.cli import completion, terminal
from mimi_mmr.app.cli.caller import Caller, command
from mimi_mmr.app.cli.contact import UserArgument

app = typer.Typer(no_args_is_help=True, help="Rooms, who is in them, what is said there.")

RoomArgument = Annotated[
    str,
    typer.Argument(
        metavar="ROOM",
        help="Its name, the beginning of its id, or its URI; or a contact.",
        autocompletion=completion.rooms,
    ),
]
UserArguments = Annotated[
    list[str], typer.Argument(metavar="USER…", help="Contacts.", autocompletion=completion.users)
]
UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
LARGE = 50


def duration(text: str) -> float:
    """Seconds of `30m`, `12h`, `1d` or `2w`."""
    found = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if not found:
        raise typer.BadParameter("expected a number and m, h, d or w, as in 1d")
    return int(found[1]) * UNITS[found[2]]


def _name(view: dict[str, Any]) -> str:
    return view["name"] or (terminal.person(view["with"]) if view["with"] else "")


def _done(said: str) -> Any:
    return lambda view: terminal.say(f"{said} {_name(view) or view['id']} ({view['id']})")


@command(app)
def create(
    caller: Caller,
    name: Annotated[str | None, typer.Option("--name", help="Members alone can read it.")] = None,
    identities: Annotated[
        Literal["everyone", "admins", "nobody"], typer.Option("--identities", help="Who sees members' names.")
    ] = "everyone",
) -> None:
    """Make a room at one's own provider."""
    caller.show(caller.ask("room.create", name=name, identities=identities), _done("Made"))


@command(app, "list")
def rooms(caller: Caller) -> None:
    """Rooms, and what is unread there."""

    def human(found: list[dict[str, Any]]) -> None:
        rows = [
            [
                view["id"],
                _name(view),
                view["kind"],
                view["members"],
                view["unread"] or "",
                "" if view["state"] == "joined" else view["state"],
            ]
            for view in found
        ]
        terminal.show_table(
            ["id", "name", "kind", "people", "unread", ""], rows, empty="No rooms yet: mimi-mmr room create"
        )

    caller.show(caller.ask("room.list"), human)


@command(app)
def add(
    caller: Caller,
    room: RoomArgument,
    users: UserArguments,
    wait: Annotated[
        float,
        typer.Option("--wait", min=0, help="Seconds to wait for somebody who has just become a contact."),
    ] = 30.0,
) -> None:
    """Add contacts to a room."""
    found = caller.ask("room.add", room=room, users=users, wait=wait)
    caller.show(found, _done(f"Added {', '.join(users)} to"))


@command(app)
def remove(
    caller: Caller,
    room: RoomArgument,
    who: Annotated[
        list[str], typer.Argument(metavar="USER|LEAF…", help="A name, pseudonym, or leaf as `who` shows it.")
    ],
) -> None:
    """Remove people from a room."""
    caller.show(caller.ask("room.remove", room=room, who=who), _done("Removed them from"))


@command(app)
def admin(
    caller: Caller,
    room: RoomArgument,
    who: Annotated[str, typer.Argument(metavar="USER|LEAF", help="A name, pseudonym, or leaf.")],
    revoke: Annotated[bool, typer.Option("--revoke", help="Make them an ordinary member.")] = False,
) -> None:
    """Make a member an admin."""
    caller.show(caller.ask("room.admin", room=room, who=who, revoke=revoke), _done("Changed roles in"))


@command(app)
def leave(
    caller: Caller,
    room: RoomArgument,
    forget: Annotated[
        bool, typer.Option("--forget", help="Drop it here and now, whoever is told or not.")
    ] = False,
) -> None:
    """Leave a room; another member has to take one out, which happens when one is there. Then: forget it."""
    found = caller.ask("room.leave", room=room, forget=forget)
    said = "Forgotten." if found["forgotten"] else "The others were told; one of them will take you out."
    caller.show(found, lambda _: terminal.say(said))


@command(app)
def link(
    caller: Caller,
    room: RoomArgument,
    uses: Annotated[int, typer.Option("--uses", min=1, max=10_000, help="How many may come in by it.")] = 1,
    expires: Annotated[str, typer.Option("--expires", help="30m, 12h, 1d, 2w…")] = "1d",
    revoke: Annotated[bool, typer.Option("--revoke", help="No link of this room works any more.")] = False,
) -> None:
    """Make a link that lets whoever has it into a room."""
    if revoke:
        found = caller.ask("room.revoke-links", room=room)
        caller.show(found, lambda _: terminal.say("No link of this room works any more."))
        return
    found = caller.ask("room.link", room=room, uses=uses, lifetime=duration(expires))
    caller.show(found, lambda view: terminal.say(view["link"]))


@command(app)
def join(
    caller: Caller, link: Annotated[str, typer.Argument(metavar="LINK", help="As a member made it.")]
) -> None:
    """Come into a room by a link."""
    caller.show(caller.ask("room.join", link=link), _done("Joined"))


@command(app)
def rename(
    caller: Caller, room: RoomArgument, name: Annotated[str, typer.Argument(help="Its new name.")]
) -> None:
    """Give a room another name."""
    caller.show(caller.ask("room.rename", room=room, name=name), _done("It is now"))


@command(app)
def reveal(caller: Caller, room: RoomArgument) -> None:
    """Show one's name in a room that hides names. This can't be taken back."""
    caller.show(caller.ask("room.reveal", room=room), _done("Your name is now shown in"))


@command(app)
def heal(caller: Caller, room: RoomArgument) -> None:
    """Fresh keys for this device in a room; a commit that nobody can follow is undone, for an admin."""
    caller.show(caller.ask("room.heal", room=room), _done("Healed"))


@command(app)
def send(
    caller: Caller,
    room: RoomArgument,
    text: Annotated[str, typer.Argument(help="The message; - reads it from stdin.")],
) -> None:
    """Send a message."""
    said = sys.stdin.read().removesuffix("\n") if text == "-" else text
    caller.show(caller.ask("room.send", room=room, text=said), lambda _: None)


@command(app)
def read(
    caller: Caller,
    room: RoomArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    wait: Annotated[
        float | None,
        typer.Option("--wait", min=0, help="If there is nothing, wait so many seconds for something."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="What was read before, too, and one's own.")
    ] = False,
) -> None:
    """Read what is new in a room. With --json: one line for each message."""
    for found in caller.items("room.read", room=room, follow=follow, wait=wait, all=everything):
        if "told" in found:
            return
        if caller.json:
            terminal.show_json(found)
        else:
            terminal.show_message(found)
        sys.stdout.flush()


@command(app)
def who(caller: Caller, room: RoomArgument) -> None:
    """Who is in a room: verified, unverified, hidden."""
    if caller.json or not sys.stderr.isatty():
        found = caller.ask("room.who", room=room)
    else:
        with _progress_of_many() as on_progress:
            found = caller.ask("room.who", on_progress=on_progress, room=room)
    caller.show(found, show_members)


@contextmanager
def _progress_of_many() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, once there are many."""
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", visible=False)

        def on_progress(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=total >= LARGE)

        yield on_progress


def show_members(found: dict[str, Any]) -> None:
    """Three tables in one: who is verified comes first."""
    rows = [
        [
            member["leaf"],
            terminal.person(member["user"]) if member["user"] else f"({standing})",
            member["device"] or member["pseudonym"].rpartition("/")[2][:8],
            member["role"],
            "me" if member["own"] else standing if not member["why"] else f"{standing}: {member['why']}",
        ]
        for standing in ("verified", "unverified", "hidden")
        for member in found[standing]
    ]
    terminal.show_table(["leaf", "who", "device", "role", ""], rows, empty="Nobody.")
    for problem in found["room"]["problems"]:
        terminal.note(f"note: {problem}")


__all__ = ["RoomArgument", "UserArgument", "app"]
