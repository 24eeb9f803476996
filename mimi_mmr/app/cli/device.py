"""`mimi-mmr device`: further devices of one user."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mimi_mmr.app.cli import terminal
from mimi_mmr.app.cli.account import (
    Device,
    Domain,
    Provider,
    Slot,
    TlsCa,
    Trust,
    User,
    opening,
    show_account,
)
from mimi_mmr.app.cli.caller import Caller, command

app = typer.Typer(no_args_is_help=True, help="Further devices of this account.")


@command(app, "list")
def devices(caller: Caller) -> None:
    """The account's devices."""
    rows = caller.ask("device.list")
    caller.show(
        rows,
        lambda found: terminal.show_table(
            ["device", ""],
            [[row["device"], "this one" if row["own"] else ""] for row in found],
            empty="No devices.",
        ),
    )


@command(app)
def add(
    caller: Caller,
    wait: Annotated[float, typer.Option(min=1, help="Seconds to wait for it.")] = 3600.0,
) -> None:
    """Show a code, and wait for the new device. With --json: a line with the code, and one when it is in."""
    for found in caller.items("device.add", wait=wait):
        if caller.json:
            terminal.show_json(found)
        elif "code" in found:
            terminal.say(
                f"On the new device, within the hour:\n\n    mimi-mmr device join --code {found['code']} …\n"
            )
        else:
            terminal.say(f"{found['device']} is in.")


@command(app)
def join(
    caller: Caller,
    user: User,
    provider: Provider,
    domain: Domain,
    trust: Trust,
    tls_ca: TlsCa = None,
    device: Device = None,
    key_package_slot: Slot = 60.0,
    code: Annotated[
        str | None, typer.Option("--code", help="As the other device shows it; asked for if left out.")
    ] = None,
) -> None:
    """Make this a further device of an account: `mimi-mmr device add` on the one there is shows a code."""
    given = opening(user, device, provider, domain, trust, tls_ca, key_package_slot)
    given["code"] = code or typer.prompt("Code", err=True)
    caller.start_new()
    view = caller.ask("device.join", **given)
    caller.show(view, show_account)


@command(app)
def remove(caller: Caller, name: Annotated[str, typer.Argument(help="The device's name.")]) -> None:
    """Shut a lost device out: of the account, of every room, of every key that it knew."""
    result: dict[str, Any] = caller.ask("device.remove", device=name)
    caller.show(result, lambda found: terminal.say(f"{found['device']} is shut out."))
