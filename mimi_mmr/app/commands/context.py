"""The parts of the agent that a command may use, as protocols. The agent's classes implement them.

They are protocols because the command line imports the commands, too, and has to start fast without the client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from mimi_mmr.app.commands.result import Result
    from mimi_mmr.client import Client, DeviceInvitation, IncomingRequest, Membership


_T = TypeVar("_T")


class WakeupAccess(Protocol):
    """A repeatable signal that tasks wait for."""

    def wake(self) -> None:
        """Wake all tasks that wait."""

    async def wait(self, seconds: float | None = None) -> None:
        """Wait for a wake-up, at most `seconds`."""

    async def until(self, look: Callable[[], Awaitable[_T | None]], seconds: float | None = None) -> _T:
        """Call a function, and again after each wake-up, until it finds something; return that.

        Raise `TimeoutError` after `seconds`.
        """


class Say(Protocol):
    """What a command gets and reports besides its arguments and its result."""

    @property
    def content(self) -> bytes:
        """The bytes of the file that came with the command; empty if none came."""

    def progress(self, done: int, total: int) -> None:
        """Report how much is done."""

    def note(self, text: str) -> None:
        """Tell the person something at once, such as what the command waits for."""

    async def item(self, value: Result) -> None:
        """Report one item of several; wait if the reader is slow."""

    async def file(self, data: bytes) -> None:
        """Send the bytes of a file; wait if the reader is slow."""


@dataclass(frozen=True, slots=True)
class Anchors:
    """Whom to trust: each provider's CA by its domain, and the roots for TLS (None: the system's), in PEM."""

    trust: Mapping[str, str]
    tls_ca: str | None


@dataclass(frozen=True, slots=True)
class NewClient:
    """The settings of a new client: names, the provider's URL, trust anchors.

    `device` is None for the name that was begun with, or else the default.
    """

    user: str
    device: str | None
    domain: str
    provider: str
    anchors: Anchors
    key_package_slot: float


class AccountAccess(Protocol):
    """The vault of this home and the client in it."""

    @property
    def client(self) -> Client:
        """The client.

        Raises `NoAccount` if there is no account yet, `Unfinished` if it was begun, or the error with which the
        client failed to open.
        """

    @property
    def registered(self) -> bool:
        """Whether the home has an account."""

    @property
    def unfinished(self) -> Client | None:
        """A client that is not registered yet: it can try again."""

    @property
    def entering(self) -> Client | None:
        """A further device that was not added yet."""

    def begin(self, new: NewClient, *, entering: bool = False) -> Client:
        """Make a client, or return the unfinished one, if nothing that is given differs from it.

        With `entering`, it joins an existing account. Raise `AgentError` if there is an account or another
        unfinished one, `ConfigError` for wrong settings.
        """

    def change_trust(self, anchors: Anchors) -> list[str]:
        """Use other trust anchors from the next start on; return the domains. Raise `NoAccount`, `ConfigError`.

        Without roots for TLS, those of before stay.
        """

    def change_passphrase(self, new: str) -> None:
        """Encrypt the vault under another passphrase."""


class RequestsAccess(Protocol):
    """Requests of other people to connect."""

    @property
    def known(self) -> Sequence[IncomingRequest]:
        """Those that the provider had when it was last asked."""

    async def refresh(self) -> Sequence[IncomingRequest]:
        """Fetch and return all requests. Each new one becomes a notice, once."""


class BackgroundAccess(Protocol):
    """The agent's background tasks."""

    @property
    def trouble(self) -> Mapping[str, str]:
        """What fails at the moment, and why."""

    def start(self) -> None:
        """Start the tasks that do not run yet, once there is an account."""

    async def stop(self) -> None:
        """End all tasks."""

    def wake(self) -> None:
        """Have all tasks look for work now."""

    async def first_look(self) -> None:
        """Wait until invitations were looked for once since the start, a few seconds at most."""

    async def read_now(self, membership: Membership) -> str | None:
        """Read a room from the provider, unless it is being followed already.

        Returns None, or why it could not be read within a few seconds and as of when it is known.
        """

    def await_device(self, invitation: DeviceInvitation) -> None:
        """Serve a device code in a task, until the device was added or the code has expired."""


class AgentContext(Protocol):
    """The agent, as far as commands see it."""

    @property
    def home(self) -> Path:
        """The home directory."""

    @property
    def account(self) -> AccountAccess:
        """The vault and the client in it."""

    @property
    def client(self) -> Client:
        """The client of the account. Raises as `AccountAccess.client` does."""

    @property
    def requests(self) -> RequestsAccess:
        """Requests of other people to connect."""

    @property
    def background(self) -> BackgroundAccess:
        """The agent's background tasks."""

    @property
    def changed(self) -> WakeupAccess:
        """The signal that messages have arrived, or that a room, contact or device has changed."""

    def stop(self) -> None:
        """End the agent once the running commands are done."""

    async def delete_state(self) -> None:
        """Delete the vault, and end the agent."""
