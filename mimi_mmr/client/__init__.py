"""What an application programs against: one user's device, its contacts and its rooms.

`Client` holds the parts; `wiring` says how they are put together. The modules below are internal: what an
application needs of them is named here.
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
