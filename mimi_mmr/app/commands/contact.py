"""`mimi-mmr contact`: contacts, and requests to become one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from mimi_mmr.app.commands.completion import UserNames
from mimi_mmr.app.commands.context import AgentContext, Say
from mimi_mmr.app.commands.model import Argument, Command, Option, ShortText
from mimi_mmr.app.commands.names import find_contact, find_in, parse_user
from mimi_mmr.app.commands.pasted import check_kind, unwrapped
from mimi_mmr.app.commands.result import Result
from mimi_mmr.errors import InvalidUri

if TYPE_CHECKING:
    from mimi_mmr.client import Contact, IncomingRequest, OutgoingRequest


class ContactCodeResult(Result):
    """The contact code."""

    code: str


class ContactResult(Result):
    """A contact. `pinned`: the identity key was known before; `ready`: they can be added to rooms.

    One that was blocked and unblocked has no `room`, until the two have connected again.
    """

    user: str
    standing: Literal["pinned", "first-use"]
    blocked: bool
    ready: bool
    room: str | None

    @classmethod
    def of(cls, contact: Contact) -> ContactResult:
        """Describe a contact."""
        return cls(
            user=str(contact.user),
            standing="pinned" if contact.pinned else "first-use",
            blocked=contact.blocked,
            ready=contact.theirs is not None and not contact.blocked,
            room=str(contact.room) if contact.room else None,
        )


class OutgoingResult(Result):
    """A request of this user that was not answered yet; `expires` in seconds since 1970."""

    user: str
    pinned: bool
    expires: int

    @classmethod
    def of(cls, outgoing: OutgoingRequest) -> OutgoingResult:
        """Describe a request."""
        content = outgoing.request.content
        return cls(user=str(outgoing.recipient.user), pinned=outgoing.pinned, expires=content.expiry)


class IncomingResult(Result):
    """Somebody's request; `expires` in seconds since 1970."""

    user: str
    expires: int

    @classmethod
    def of(cls, incoming: IncomingRequest) -> IncomingResult:
        """Describe a request."""
        return cls(user=str(incoming.device.user), expires=incoming.request.content.expiry)


class ContactsResult(Result):
    """All contacts, and all requests."""

    contacts: list[ContactResult]
    requests_out: list[OutgoingResult]
    requests_in: list[IncomingResult]
    only_contacts: bool


class OnlyContactsResult(Result):
    """Whether requests of everybody else are refused."""

    only_contacts: bool


User = Annotated[ShortText, Argument("bob, bob@b.example, or the URI.", metavar="USER", completes=UserNames)]


class ShowCode(Command, name="contact.code", result=ContactCodeResult):
    """Show the code with which others connect to this account."""

    qr: Annotated[bool, Option("--qr", "Also show it as a QR code on the terminal.", local=True)] = False

    async def run(self, agent: AgentContext, say: Say) -> ContactCodeResult:
        """Return the code."""
        return ContactCodeResult(code=str(agent.client.contact_code))


class AddContact(Command, name="contact.add", result=OutgoingResult):
    """Ask somebody to connect. They see who asks; a refusal looks like no answer."""

    to: Annotated[
        ShortText, Argument("A contact code; with --pinless, name@domain or a URI.", metavar="CODE")
    ]
    pinless: Annotated[
        bool, Option("--pinless", "Connect without a code: trust whichever key answers first.")
    ] = False

    async def run(self, agent: AgentContext, say: Say) -> OutgoingResult:
        """Send the request. Raise `InvalidUri` for a name without a code, unless that is wanted."""
        from mimi_mmr.protocol.connections import ContactCode  # slow to import

        text = unwrapped(self.to)
        check_kind(text, "mimi-connect:")
        to = ContactCode.parse(text) if text.startswith("mimi-connect:") else parse_user(text)
        if not (self.pinless or isinstance(to, ContactCode)):
            raise InvalidUri("without a contact code nobody knows whose key this is").with_hint(
                "ask them for what `mimi-mmr contact code` shows, or trust whoever answers first with --pinless"
            )
        outgoing = await agent.client.people.request_connection(to)
        agent.background.wake()
        return OutgoingResult.of(outgoing)


class ListContacts(Command, name="contact.list", result=ContactsResult):
    """List contacts, and requests both ways."""

    async def run(self, agent: AgentContext, say: Say) -> ContactsResult:
        """Return what the agent knows, without asking the provider."""
        client = agent.client
        return ContactsResult(
            contacts=[ContactResult.of(contact) for contact in client.people.contacts.values()],
            requests_out=[OutgoingResult.of(outgoing) for outgoing in client.people.outgoing.values()],
            requests_in=[IncomingResult.of(incoming) for incoming in agent.requests.known],
            only_contacts=client.people.only_contacts,
        )


class ListRequests(Command, name="contact.requests", result=list[IncomingResult]):
    """List who wants to connect."""

    async def run(self, agent: AgentContext, say: Say) -> list[IncomingResult]:
        """Ask the provider; return all requests."""
        return [IncomingResult.of(incoming) for incoming in await agent.requests.refresh()]


class AcceptRequest(Command, name="contact.accept", result=ContactResult, changes=True):
    """Accept a request to connect. The first time this waits up to a minute, until KeyPackages are made."""

    user: User

    async def run(self, agent: AgentContext, say: Say) -> ContactResult:
        """Answer; the other client then makes the direct room."""
        incoming = await _request_of(agent, self.user)
        contact = await agent.client.people.accept(incoming)
        await _answered(agent)
        return ContactResult.of(contact)


class RefuseRequest(Command, name="contact.refuse", result=IncomingResult):
    """Refuse a request; whoever asked is not told."""

    user: User

    async def run(self, agent: AgentContext, say: Say) -> IncomingResult:
        """Drop the request without an answer."""
        incoming = await _request_of(agent, self.user)
        await agent.client.people.refuse(incoming)
        await _answered(agent)
        return IncomingResult.of(incoming)


async def _request_of(agent: AgentContext, user: str) -> IncomingRequest:
    asking = {incoming.device.user: incoming for incoming in await agent.requests.refresh()}
    return find_in(asking, user, "request to connect")


async def _answered(agent: AgentContext) -> None:
    await agent.requests.refresh()
    agent.changed.wake()


class CancelRequest(Command, name="contact.cancel", result=OutgoingResult, changes=True):
    """Cancel a request that you made."""

    user: User

    async def run(self, agent: AgentContext, say: Say) -> OutgoingResult:
        """Cancel it at the provider of the other user."""
        outgoing = find_in(agent.client.people.outgoing, self.user, "request of yours")
        await agent.client.people.cancel(outgoing)
        return OutgoingResult.of(outgoing)


class BlockContact(Command, name="contact.block", result=ContactResult, changes=True):
    """Block a contact: neither side reaches the other, and they are not told. Other contacts get new keys."""

    user: User

    async def run(self, agent: AgentContext, say: Say) -> ContactResult:
        """Block the contact and leave the direct room."""
        contact = find_contact(agent.client, self.user)
        await agent.client.people.block(contact)
        agent.changed.wake()
        return ContactResult.of(contact)


class UnblockContact(Command, name="contact.unblock", result=ContactResult, changes=True):
    """Let a blocked contact ask to connect again."""

    user: User

    async def run(self, agent: AgentContext, say: Say) -> ContactResult:
        """Take the block away; there is no connection yet."""
        contact = find_contact(agent.client, self.user)
        await agent.client.people.unblock(contact.user)
        return ContactResult.of(contact)


class OnlyContacts(Command, name="contact.only-contacts", result=OnlyContactsResult, changes=True):
    """Refuse requests of everybody who is not a contact, without telling them; or take that back."""

    setting: Annotated[Literal["on", "off"], Argument("Whether strangers are refused.")]

    async def run(self, agent: AgentContext, say: Say) -> OnlyContactsResult:
        """Set it."""
        agent.client.people.only_contacts = self.setting == "on"
        return OnlyContactsResult(only_contacts=agent.client.people.only_contacts)


COMMANDS: tuple[type[Command], ...] = (
    ShowCode,
    AddContact,
    ListContacts,
    ListRequests,
    AcceptRequest,
    RefuseRequest,
    CancelRequest,
    BlockContact,
    UnblockContact,
    OnlyContacts,
)
