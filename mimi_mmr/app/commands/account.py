"""`mimi-mmr account`: this device's account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from mimi_mmr.app.commands.context import AgentContext, NewClient, Say
from mimi_mmr.app.commands.errors import NotBegun
from mimi_mmr.app.commands.model import (
    AbsolutePath,
    Argument,
    Command,
    NewPassphrase,
    Option,
    ShortText,
)
from mimi_mmr.app.commands.passphrases import check_new_passphrase
from mimi_mmr.app.commands.pasted import unwrapped
from mimi_mmr.app.commands.result import NoResult, Result
from mimi_mmr.app.commands.trust import anchors
from mimi_mmr.errors import HubRefusal, InvalidUri, MmrError, NotReached
from mimi_mmr.uris import check_domain, check_name, https_origin

if TYPE_CHECKING:
    from mimi_mmr.client import Client


class AccountResult(Result):
    """The account of this device."""

    user: str
    device: str
    provider: str
    contact_code: str
    only_contacts: bool

    @classmethod
    def of(cls, client: Client) -> AccountResult:
        """Describe the account of a client."""
        return cls(
            user=str(client.user),
            device=client.device.name,
            provider=client.account.url,
            contact_code=str(client.contact_code),
            only_contacts=client.people.only_contacts,
        )


class TrustResult(Result):
    """The domains whose CA is trusted."""

    domains: list[str]


class DeletedResult(Result):
    """The account that was deleted; `problems` are rooms that could not be left."""

    user: str
    problems: list[str]


# --- arguments ----------------------------------------------------------------------------------------


def _provider_url(text: str) -> str:
    try:
        return https_origin(unwrapped(text))
    except InvalidUri as error:
        raise ValueError(str(error)) from None


def _device_name(text: str | None) -> str | None:
    return None if text is None else check_name(text)


Trust = Annotated[
    AbsolutePath,
    Option("--trust", "Directory with every provider's CA, as <domain>.pem.", existing="directory"),
]
TlsCa = Annotated[
    AbsolutePath | None,
    Option("--tls-ca", "Roots (PEM) for providers' TLS, instead of the system's.", existing="file"),
]


class NewDevice(Command):
    """The arguments of a new client."""

    user: Annotated[
        ShortText,
        AfterValidator(check_name),
        Argument("The name at the provider: lower-case letters, digits, . _ ~ -", metavar="USER"),
    ]
    provider: Annotated[
        ShortText, AfterValidator(_provider_url), Option("--provider", "The provider's https://host[:port].")
    ]
    domain: Annotated[
        ShortText,
        AfterValidator(check_domain),
        Option("--domain", "The provider's domain, as in its users' names."),
    ]
    trust: Trust
    tls_ca: TlsCa = None
    device: Annotated[
        ShortText | None,
        AfterValidator(_device_name),
        Option("--device", "This device's name, unique within the account. Default: the host's name."),
    ] = None
    key_package_slot: Annotated[
        float,
        Field(ge=0.05, le=3600),
        Option(
            "--key-package-slot",
            "Seconds between the times at which all devices make KeyPackages. With a smaller value the first ones"
            " are there sooner, and others learn when they were made.",
        ),
    ] = 60.0

    def new_client(self, say: Say) -> NewClient:
        """Return what the client is made with. Raise `BadRequest` if no trust anchors came with the command."""
        return NewClient(
            user=self.user,
            device=self.device,
            domain=self.domain,
            provider=self.provider,
            anchors=anchors(say.content),
            key_package_slot=self.key_package_slot,
        )


# --- commands -----------------------------------------------------------------------------------------


class CreateAccount(NewDevice, name="account.create", result=AccountResult):
    """Make an account at a provider, with this device as its first."""

    async def run(self, agent: AgentContext, say: Say) -> AccountResult:
        """Register a client. If the provider refuses, or nothing has reached it, nothing is left; else try again.

        An account that was begun by an earlier command stays: that one's request may have arrived. If the answer
        that was lost was one after the registration, the background goes on with what failed.
        """
        first = agent.account.unfinished is None
        client = agent.account.begin(self.new_client(say))
        try:
            if not client.registered:
                await client.register()
        except MmrError as error:
            if client.registered:
                agent.background.start()  # which goes on with what failed
            elif first and isinstance(error, NotReached):
                await agent.delete_state()
                raise NotBegun(str(error)) from None
            elif isinstance(error, HubRefusal):
                await agent.delete_state()
            raise
        agent.background.start()
        return AccountResult.of(client)


class ShowAccount(Command, name="account.show", result=AccountResult):
    """Show the account of this device, and its contact code."""

    async def run(self, agent: AgentContext, say: Say) -> AccountResult:
        """Return the account."""
        return AccountResult.of(agent.client)


class ChangeTrust(Command, name="account.trust", result=TrustResult):
    """Take trust anchors from another directory, or again from the same one after a CA was put there."""

    trust: Trust
    tls_ca: TlsCa = None

    async def run(self, agent: AgentContext, say: Say) -> TrustResult:
        """Store the settings and end the agent: the next one starts with them."""
        domains = agent.account.change_trust(anchors(say.content))
        agent.stop()
        return TrustResult(domains=domains)


class ChangePassphrase(Command, name="account.passphrase", result=NoResult):
    """Encrypt the state under another passphrase."""

    new: Annotated[
        ShortText,
        AfterValidator(check_new_passphrase),
        Field(repr=False),
        NewPassphrase("--new-passphrase-file", "File whose first line is the new passphrase."),
    ]

    async def run(self, agent: AgentContext, say: Say) -> NoResult:
        """Encrypt the vault's key anew."""
        agent.account.change_passphrase(self.new)
        return NoResult()


class DeleteAccount(Command, name="account.delete", result=DeletedResult):
    """Leave every room, close the account and delete its state. Nobody can take its name again."""

    yes: Annotated[bool, Option("--yes", "Don't ask for confirmation.", local=True)] = False
    local: Annotated[bool, Option("--local", "Delete only the state here; don't tell the provider.")] = False

    async def run(self, agent: AgentContext, say: Say) -> DeletedResult:
        """Leave, close, delete. Raise before anything is done if the provider does not answer."""
        client = agent.account.unfinished or agent.client
        problems: list[str] = []
        if client.registered and not self.local:
            await agent.requests.refresh()  # raises if the provider is not there: the rest can't be undone
            await agent.background.stop()
            problems = await _leave_all(client)
            try:
                await client.account.delete()
            except MmrError:
                agent.background.start()  # the account is still there
                raise
        user = str(client.user)
        await agent.delete_state()
        return DeletedResult(user=user, problems=problems)


async def _leave_all(client: Client) -> list[str]:
    problems = []
    for membership in list(client.rooms.values()):
        try:
            await client.rooms.leave(membership)
        except MmrError as error:
            problems.append(f"{membership.room.members_only.state.name or membership.uri.name}: {error}")
    return problems


COMMANDS: tuple[type[Command], ...] = (
    CreateAccount,
    ShowAccount,
    ChangeTrust,
    ChangePassphrase,
    DeleteAccount,
)
