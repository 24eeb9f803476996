"""Contacts: who they are, who asks, who was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mimi_mmr.app.agent.errors import AgentError
from mimi_mmr.app.agent.naming import find_contact, find_in, parse_user
from mimi_mmr.app.agent.operations.registry import operation
from mimi_mmr.app.agent.views import contact_view, incoming_view, outgoing_view
from mimi_mmr.app.agent.wire import Given
from mimi_mmr.client.people.contacts import IncomingRequest
from mimi_mmr.protocol.connections import ContactCode

if TYPE_CHECKING:
    from mimi_mmr.app.agent.agent import Agent
    from mimi_mmr.app.agent.server import Say


@operation("contact.code")
async def code(agent: Agent, _: Given, __: Say) -> dict[str, Any]:
    """What to give to somebody who wants to connect."""
    return {"code": str(agent.client.contact_code)}


@operation("contact.add")
async def add(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Ask to connect. Without a code there is no pin, which has to be asked for."""
    text = given.text("to").strip()
    if text.startswith("mimi-connect:"):
        to: Any = ContactCode.parse(text)
    elif given.flag("pinless"):
        to = parse_user(text)
    else:
        parse_user(text)
        raise AgentError(
            "without a contact code nobody knows whose key this is: ask them for `mimi-mmr contact code`,"
            " or trust whoever answers first with --pinless"
        )
    outgoing = await agent.client.request_connection(to)
    agent.wanted.ring()
    return outgoing_view(outgoing)


@operation("contact.list")
async def contacts(agent: Agent, _: Given, __: Say) -> dict[str, Any]:
    """Everybody, and requests both ways."""
    client = agent.client
    return {
        "contacts": [contact_view(contact) for contact in client.contacts.values()],
        "requests_out": [outgoing_view(outgoing) for outgoing in client.outgoing.values()],
        "requests_in": [incoming_view(incoming) for incoming in agent.requests],
        "only_contacts": client.only_contacts,
    }


@operation("contact.requests")
async def requests(agent: Agent, _: Given, __: Say) -> list[dict[str, Any]]:
    """Who wants to connect, asked of the provider now."""
    return [incoming_view(incoming) for incoming in await agent.refresh_requests()]


@operation("contact.accept", changes=True)
async def accept(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Say yes; they make the room of the two."""
    incoming = await _asking(agent, given)
    contact = await agent.client.accept(incoming)
    await _answered(agent)
    return contact_view(contact)


@operation("contact.refuse")
async def refuse(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Say nothing, and hear of it no more."""
    incoming = await _asking(agent, given)
    await agent.client.refuse(incoming)
    await _answered(agent)
    return incoming_view(incoming)


async def _asking(agent: Agent, given: Given) -> IncomingRequest:
    asking = {incoming.device.user: incoming for incoming in await agent.refresh_requests()}
    return find_in(asking, given.text("user"), "request to connect")


async def _answered(agent: Agent) -> None:
    await agent.refresh_requests()
    agent.happened.ring()


@operation("contact.cancel", changes=True)
async def cancel(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Take a request of one's own back."""
    outgoing = find_in(agent.client.outgoing, given.text("user"), "request of yours")
    await agent.client.cancel_request(outgoing)
    return outgoing_view(outgoing)


@operation("contact.block", changes=True)
async def block(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Neither hear nor be heard."""
    contact = find_contact(agent.client, given.text("user"))
    await agent.client.block(contact)
    agent.happened.ring()
    return contact_view(contact)


@operation("contact.unblock", changes=True)
async def unblock(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Hear of them again."""
    contact = find_contact(agent.client, given.text("user"))
    await agent.client.unblock(contact.user)
    return contact_view(contact)


@operation("contact.only-contacts", changes=True)
async def only_contacts(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Whether strangers' requests are refused in silence."""
    agent.client.only_contacts = given.flag("on")
    return {"only_contacts": agent.client.only_contacts}
