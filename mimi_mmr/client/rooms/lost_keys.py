"""KeyPackages whose private keys were lost when a process ended, and how this client is added to rooms again.

The MLS library keeps private keys of KeyPackages in memory. This client asks the contact who used such a KeyPackage
to remove the dead leaf, and to add it anew.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from mimi_mmr.client.context import Context
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackage, OutstandingKeyPackages
from mimi_mmr.client.people.contact_book import ContactBook
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.sending import Sending
from mimi_mmr.errors import RoomError
from mimi_mmr.member.leaves import PreparedLeaf
from mimi_mmr.presentation import Struct
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.protocol.room.departures import Departure, sign_departure
from mimi_mmr.protocol.room.events import EventKind, FanoutMessage
from mimi_mmr.uris import ROOM, MimiUri

MOST_STRAYS = 16  # limit for noted rooms, per membership, that its last resort was used for too late


@dataclass(frozen=True, slots=True)
class AddAgain(Struct):
    """A request to the contact who used a KeyPackage whose keys are lost: remove that leaf, and claim another.

    The dead leaf's departure lets any member remove it; it could be signed since the signature key was not lost.
    """

    room: Annotated[MimiUri, ROOM]
    departure: Departure

    @classmethod
    def of(cls, room: MimiUri, leaf: PreparedLeaf) -> AddAgain:
        """Make the request for a leaf whose MLS keys are lost."""
        client = leaf.identity.credential.client_pseudonym
        return cls(room, sign_departure(room, client, leaf.key))


class LostKeys:
    """The requests to be added again after the keys of a KeyPackage were lost."""

    def __init__(
        self,
        context: Context,
        memberships: Memberships,
        outstanding: OutstandingKeyPackages,
        contacts: ContactBook,
        sending: Sending,
    ) -> None:
        self._context = context
        self._memberships = memberships
        self._outstanding = outstanding
        self._contacts = contacts
        self._sending = sending

    async def ask(self, contact: Contact, request: AddAgain) -> None:
        """Ask a contact in the connection room; raises `RoomError` if there is none."""
        connection = self._memberships.find(contact.room)
        if connection is None:
            raise RoomError("there is no room with this contact to ask in")
        await self._sending.send(connection, Content(ContentKind.ADD_AGAIN, request.to_bytes()))
        self._context.notify(f"the keys of an invitation by {contact.user} are lost: asked to be added again")

    # --- a KeyPackage that this client made for itself -----------------------------------------------

    async def take_own(self, item: OutstandingKeyPackage, fanout: FanoutMessage) -> bool:
        """Handle a Welcome for a KeyPackage, with lost keys, that this client made for its own use in one room.

        Returns False if the KeyPackage was made for something else. If this client is in the room, it notes the
        dead leaf's departure and a change to another pseudonym, which the user's other devices will share. If it
        had asked to join by a link, it can only notify the user.
        """
        if item.room is None or item.room != fanout.room:
            return False
        membership = self._memberships.find(fanout.room)
        if membership is None or membership.removed:
            self._context.notify(
                "the keys of an invitation to a room were lost at a restart: ask to be added again"
            )
            self._outstanding.unwatch(item)
            return True
        with self._memberships.changing(membership):
            membership.add_departure(AddAgain.of(fanout.room, item.package.leaf).departure)
            membership.set_change_pseudonym()
            self._outstanding.unwatch(item)
            self._memberships.save(membership)
        return True

    # --- last resorts that were used for more rooms --------------------------------------------------

    def _strays(self, membership: Membership) -> MutableMapping[bytes, bytes]:
        """Return rooms that a last resort was used for too late, each with the request to send; b"" once sent."""
        return self._context.vault.table(f"strays {membership.uri}")

    def note_stray(self, sharing: Sequence[Membership], fanout: FanoutMessage) -> None:
        """Note a Welcome to a further room for a last resort whose keys are gone already.

        Any hub can send such a Welcome for any room. So it is noted for a last resort only, and once for each room.
        The request is sent at another time, so that the hub can't see by its timing in which room the inviter gets
        it.
        """
        membership = next((one for one in sharing if one.place.last_resort), None)
        if membership is None or fanout.kind is not EventKind.WELCOME or fanout.room in self._memberships:
            return
        strays, key = self._strays(membership), membership.leaf.key.public + str(fanout.room).encode()
        if key not in strays and len(strays) < MOST_STRAYS:
            strays[key] = AddAgain.of(fanout.room, membership.leaf).to_bytes()

    async def ask_for_strays(self) -> None:
        """Ask the contacts who used a last resort for too many rooms to add us anew in those rooms."""
        for membership in list(self._memberships.values()):
            inviter = membership.place.invited_by
            contact = self._contacts.get(inviter) if inviter else None
            if contact is None or contact.blocked or self._memberships.find(contact.room) is None:
                continue
            strays = self._strays(membership)
            for key, row in list(strays.items()):
                if row and (request := AddAgain.from_bytes(row)).room not in self._memberships:
                    await self.ask(contact, request)
                strays[key] = b""
