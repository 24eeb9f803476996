"""What an application programs against: one user's device, its contacts and its rooms."""

from mimi_mmr.client.client import Client
from mimi_mmr.client.devices.devices import DeviceInvitation
from mimi_mmr.client.people.contacts import Contact, IncomingRequest, OutgoingRequest
from mimi_mmr.client.rooms.rooms import Joined
from mimi_mmr.client.storage.history import History, Message, Notice

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
