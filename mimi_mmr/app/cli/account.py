"""`mimi-mmr account`: this device's account."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from mimi_mmr.app.agent import launch
from mimi_mmr.app.cli import passphrase, terminal
from mimi_mmr.app.cli.caller import Caller, command
from mimi_mmr.errors import ConfigError
from mimi_mmr.uris import check_domain, check_name

app = typer.Typer(no_args_is_help=True, help="This device's account.")

Provider = Annotated[str, typer.Option("--provider", help="The provider's https://host[:port].")]
Domain = Annotated[str, typer.Option("--domain", help="Its domain, as in its users' names.")]
Trust = Annotated[
    Path,
    typer.Option(
        "--trust", help="Directory with every provider's CA, as <domain>.pem.", exists=True, file_okay=False
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        help="Roots (PEM) for providers' TLS, instead of the system's.",
        exists=True,
        dir_okay=False,
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", help="This device's name. Default: its host's, and two digits.")
]
Slot = Annotated[
    float,
    typer.Option(
        "--key-package-slot",
        min=0.05,
        max=3600,
        help="Seconds between the times at which KeyPackages are made, with everybody else's. Less makes the first"
        " ones come sooner, and tells when they were made.",
    ),
]
User = Annotated[
    str, typer.Argument(metavar="USER", help="The name at the provider: lower-case letters, digits, . _ ~ -")
]


def opening(
    user: str, device: str | None, provider: str, domain: str, trust: Path, tls_ca: Path | None, slot: float
) -> dict[str, Any]:
    """What the agent is told of an account to be; what is wrong is said before anything is made of it."""
    device = device or default_device()
    for name in (user, device):
        check_name(name)
    check_domain(domain)
    if not (trust / f"{domain}.pem").is_file():
        raise ConfigError(f"--trust: expected {domain}.pem in {trust.absolute()}")
    return {
        "user": user,
        "device": device,
        "provider": provider,
        "domain": domain,
        "trust": str(trust.absolute()),
        "tls_ca": str(tls_ca.absolute()) if tls_ca else None,
        "key_package_slot": slot,
    }


def default_device() -> str:
    """A name for this device: other devices and members of rooms see it."""
    host = socket.gethostname().partition(".")[0].lower()
    plain = "".join(letter for letter in host if letter.isascii() and letter.isalnum())[:32] or "device"
    return f"{plain}-{secrets.randbelow(90) + 10}"


def show_account(view: dict[str, Any]) -> None:
    """For people."""
    terminal.show_fields(
        [
            ("user", terminal.person(view["user"])),
            ("device", view["device"]),
            ("provider", view["provider"]),
            ("contact code", view["contact_code"]),
            ("requests", "from contacts only" if view["only_contacts"] else "from everybody"),
        ]
    )


@command(app)
def create(
    caller: Caller,
    user: User,
    provider: Provider,
    domain: Domain,
    trust: Trust,
    tls_ca: TlsCa = None,
    device: Device = None,
    key_package_slot: Slot = 60.0,
) -> None:
    """Make an account at a provider, with this device as its first."""
    given = opening(user, device, provider, domain, trust, tls_ca, key_package_slot)
    caller.start_new()
    view = caller.ask("account.create", **given)
    caller.show(view, show_account)


@command(app)
def show(caller: Caller) -> None:
    """Who this is, and the contact code."""
    caller.show(caller.ask("account.show"), show_account)


@command(app)
def trust(caller: Caller, trust: Trust, tls_ca: TlsCa = None) -> None:
    """Take trust anchors from another directory, or anew after a provider's CA was put there."""
    roots = str(tls_ca.absolute()) if tls_ca else None
    found = caller.ask("account.trust", trust=str(trust.absolute()), tls_ca=roots)
    launch.wait_for_end(caller.home)
    caller.show(
        found, lambda view: terminal.say(f"Trusted from the next command on: {', '.join(view['domains'])}.")
    )


@command(app, "passphrase")
def change_passphrase(
    caller: Caller,
    new_file: Annotated[
        Path | None,
        typer.Option("--new-passphrase-file", help="Its first line is the new one.", dir_okay=False),
    ] = None,
) -> None:
    """Give the state another passphrase."""
    with caller.link() as link:
        new = passphrase.given_passphrase(new_file) if new_file else passphrase.ask_new_passphrase()
        result = link.ask("account.passphrase", new=new)
    caller.show(result, lambda _: terminal.say("The state opens with the new passphrase from now on."))


@command(app)
def delete(
    caller: Caller,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    local: Annotated[
        bool, typer.Option("--local", help="Only the state here; the provider is not told.")
    ] = False,
) -> None:
    """Leave every room, close the account and delete its state. Nobody can take its name again."""
    if not yes:
        typer.confirm("Everything of this account is then gone, for good. Delete it?", abort=True, err=True)
    result = caller.ask("account.delete", local=local)
    launch.wait_for_end(caller.home)

    def human(found: dict[str, Any]) -> None:
        for problem in found["problems"]:
            terminal.note(f"note: a room could not be left: {problem}")
        terminal.say(f"{terminal.person(found['user'])} is deleted.")

    caller.show(result, human)
