"""What an application programs against: one user's device, its contacts and its rooms."""

from mimi_mmr.client.devices import DeviceInvitation
from mimi_mmr.client.history import History, Message, Notice
from mimi_mmr.client.person import Client
from mimi_mmr.client.rooms import Joined
from mimi_mmr.contacts import Contact, IncomingRequest, OutgoingRequest

__all__ = [
    "Client",
    "Contact",
    "DeviceInvitation",
    "History",
    "IncomingRequest",
    "Joined",
    "Message",
    "Notice",
    "OutgoingRequest",
]
