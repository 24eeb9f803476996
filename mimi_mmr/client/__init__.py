"""What an application programs against: one user's device, its contacts and its rooms.

`client` has `Client`, which holds the parts; `building` makes them, and `wiring` says who listens to whom;
`tending` lists what is done from time to time; `context` is what all parts share. The parts lie in `account`,
`people`, `key_packages`, `rooms` and `devices`, what they write in `storage`, how they reach providers in
`transport`. All of these are internal: what an application needs of them is named here.
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
