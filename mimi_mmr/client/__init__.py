"""What an application programs against: one user's device, its contacts and its rooms.

`client` has `Client`, which holds the parts. `building` makes the parts, and `wiring` connects their listeners.
`tending` lists the regular work, and `context` has what all parts share. The parts are in `account`, `people`,
`key_packages`, `rooms` and `devices`. `storage` has what they store, and `transport` reaches the providers. All
these modules are internal: this package exports what an application needs.
"""

from mimi_mmr.client.client import Client
from mimi_mmr.client.devices.inviting import DeviceInvitation
from mimi_mmr.client.people.contacts import Contact, IncomingRequest, OutgoingRequest
from mimi_mmr.client.rooms.membership import Membership, MembershipState
from mimi_mmr.client.storage.history import History, Message, Notice

__all__ = [
    "Client",
    "Contact",
    "DeviceInvitation",
    "History",
    "IncomingRequest",
    "Membership",
    "MembershipState",
    "Message",
    "Notice",
    "OutgoingRequest",
]
