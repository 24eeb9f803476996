"""What commands are told of a client: plain dictionaries, whose keys are documented and stay."""

from __future__ import annotations

from typing import Any

from mimi_mmr.client import Client, Joined, Message
from mimi_mmr.client.people.contacts import Contact, IncomingRequest, OutgoingRequest
from mimi_mmr.member.whois import Whois
from mimi_mmr.protocol.content import AssetReference, ContentKind
from mimi_mmr.protocol.room.policy import Identities
from mimi_mmr.uris import MimiUri

SHORT = 8
IDENTITIES = {"everyone": Identities.EVERYONE, "admins": Identities.ADMINS_ONLY, "nobody": Identities.NOBODY}


def short_id(room: MimiUri) -> str:
    """The beginning of a room's name, which is random: enough to tell a person's rooms apart."""
    return room.name[:SHORT]


def address(user: MimiUri) -> str:
    """`name@domain`, as people write it."""
    return f"{user.name}@{user.domain}"


def account_view(client: Client) -> dict[str, Any]:
    """The account of this device."""
    return {
        "user": str(client.user),
        "device": client.device.name,
        "provider": client.url,
        "contact_code": str(client.contact_code),
        "only_contacts": client.only_contacts,
    }


def contact_view(contact: Contact) -> dict[str, Any]:
    """A contact. `ready`: they can be added to rooms."""
    return {
        "user": str(contact.user),
        "standing": "pinned" if contact.pinned else "first-use",
        "blocked": contact.blocked,
        "ready": contact.theirs is not None and not contact.blocked,
        "room": str(contact.room) if contact.room else None,
    }


def outgoing_view(outgoing: OutgoingRequest) -> dict[str, Any]:
    """A request of one's own that was not answered yet."""
    content = outgoing.request.content
    return {"user": str(outgoing.recipient.user), "pinned": outgoing.pinned, "expires": content.expiry}


def incoming_view(incoming: IncomingRequest) -> dict[str, Any]:
    """Somebody's request."""
    return {"user": str(incoming.device.user), "expires": incoming.request.content.expiry}


def contact_in(client: Client, joined: Joined) -> Contact | None:
    """Whom a room of two connects this user with, if it is one."""
    return next((contact for contact in client.contacts.values() if contact.room == joined.uri), None)


def room_view(client: Client, joined: Joined) -> dict[str, Any]:
    """A room; `with` names the contact whose connection it is, in a room of kind `direct`."""
    contact, room = contact_in(client, joined), joined.room
    pseudonym = joined.leaf.identity.credential.user_pseudonym
    return {
        "room": str(joined.uri),
        "id": short_id(joined.uri),
        "name": room.members_only.state.name,
        "kind": "direct" if contact else "room",
        "with": str(contact.user) if contact else None,
        "members": len({leaf.credential.user_pseudonym for leaf in room.participants().values()}),
        "identities": next(
            name for name, kind in IDENTITIES.items() if kind == room.policy.policy.identities
        ),
        "role": room.policy.policy.role(pseudonym).name.lower(),
        "unread": len(joined.messages),
        "lost": joined.lost,
        "state": "removed" if room.removed else "desynchronised" if joined.desynchronised else "joined",
        "problems": list(joined.problems[-10:]),
    }


def member_view(entry: Whois, own_leaf: int) -> dict[str, Any]:
    """A member's device in a room."""
    return {
        "leaf": entry.leaf,
        "user": str(entry.member.device.user) if entry.member else None,
        "device": entry.member.device.device.name if entry.member else None,
        "pseudonym": str(entry.user),
        "role": entry.role.name.lower(),
        "standing": entry.standing.value,
        "why": entry.why,
        "own": entry.leaf == own_leaf,
    }


def message_view(room: MimiUri, message: Message) -> dict[str, Any]:
    """A message; of an asset, what its sender says about it."""
    sender = message.sender
    found: dict[str, Any] = {
        "room": str(room),
        "number": message.number,
        "received": message.received,
        "own": message.own,
        "from": {
            "user": str(sender.member.device.user) if sender.member else None,
            "pseudonym": str(sender.user),
            "standing": sender.standing.value,
        },
        "kind": message.content.kind.name.lower(),
        "text": message.text,
    }
    if message.content.kind is ContentKind.ASSET:
        reference = AssetReference.from_bytes(message.content.body)
        found["asset"] = {"name": reference.name, "size": reference.size}
    return found
