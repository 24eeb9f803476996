"""Contacts who lost the keys of their leaf in a room: the dead leaf is taken out, and they are added anew."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Annotated

from mimi_mmr.client.context import Context
from mimi_mmr.client.people.contact_book import ContactBook
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.rooms.adding import Adding
from mimi_mmr.client.rooms.commits import Commits
from mimi_mmr.client.rooms.lost_keys import AddAgain
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.roster import Roster
from mimi_mmr.errors import MmrError, PeerError, PrivatePathFailed, RoomError, StateError
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.whois import Whois
from mimi_mmr.presentation import Code, Struct
from mimi_mmr.protocol.content import Content
from mimi_mmr.uris import USER, MimiUri


class Step(enum.IntEnum):
    """How far a contact's wish to be added again has come: it holds; or its dead leaf is being removed."""

    VERIFIED = 1
    REMOVED = 2


@dataclass(frozen=True, slots=True)
class SavedAddAgain(Struct):
    """A wish to be added again that holds, whose it is, and what was done about it."""

    user: Annotated[MimiUri, USER]
    step: Annotated[Step, Code(Step)]
    request: AddAgain


class AddingAgain:
    """The adding of contacts who were there, lost their keys, and ask for it."""

    def __init__(
        self,
        context: Context,
        contacts: ContactBook,
        memberships: Memberships,
        roster: Roster,
        commits: Commits,
        adding: Adding,
    ) -> None:
        self._context = context
        self._contacts = contacts
        self._memberships = memberships
        self._roster = roster
        self._commits = commits
        self._adding = adding
        self._rows = context.vault.table("add again")

    def requests(self) -> list[SavedAddAgain]:
        """Return the wishes that hold and are not fulfilled yet."""
        return [SavedAddAgain.from_bytes(row) for row in self._rows.values()]

    def take_message(self, membership: Membership, sender: Whois, content: Content) -> None:
        """Note that a contact's keys were lost, if it is theirs to ask; it is done when the page has been read.

        They have to have a leaf in the room now: nobody comes in like this who was not in, or was removed.
        """
        request = AddAgain.from_bytes(content.body)
        contact = self._contacts.get(sender.member.device.user) if sender.member else None
        if contact is None or contact.blocked or contact.room != membership.uri:
            raise RoomError(
                "a request to be added again that does not come from a contact in the room with them"
            )
        there = self._memberships.get(request.room)
        if there is None or there is membership or there.removed:
            raise RoomError("a request to be added again to a room that this client is not in")
        leaf = there.room.departing(request.departure)
        if self._roster.user_at(there, self._roster.whois(there.room, leaf)) != contact.user:
            raise RoomError("a request to be added again for a leaf that is not the contact's")
        key = f"{contact.user} {request.room}".encode()
        self._rows[key] = SavedAddAgain(contact.user, Step.VERIFIED, request).to_bytes()

    async def add_again(self) -> None:
        """Take out the dead leaves of contacts who asked for it, and add those contacts anew."""
        for key, row in list(self._rows.items()):
            saved = SavedAddAgain.from_bytes(row)
            contact = self._contacts.get(saved.user)
            membership = self._memberships.get(saved.request.room)
            try:
                if contact is None or contact.blocked or membership is None or membership.removed:
                    raise RoomError("they are no contact any more, or this client is not in that room")
                await self._fulfil(membership, contact, key, saved)
            except StateError:
                raise
            except (PrivatePathFailed, PeerError) as error:
                self._context.refusals.add("to add a contact again, to be gone on with", error)
                continue
            except MmrError as error:
                self._context.notify(f"{saved.user} asked to be added again, which failed: {error}")
            else:
                self._context.notify(f"{saved.user} had lost its keys, and was added again")
            self._rows.pop(key, None)

    async def _fulfil(
        self, membership: Membership, contact: Contact, key: bytes, saved: SavedAddAgain
    ) -> None:
        """Note each step before it is done, so that a process that ends between two does neither twice."""
        departure = saved.request.departure
        await self._commits.catch_up(membership)
        membership.room.policy.policy.allow_invite(membership.pseudonym)
        there = departure.content.client_pseudonym in membership.room.members.by_client
        if there:
            self._rows[key] = replace(saved, step=Step.REMOVED).to_bytes()
        removed = await self._commits.commit(membership, CommitIntent(departures=(departure,)))
        if not removed and (there or saved.step is Step.VERIFIED):
            raise RoomError("somebody else has removed them")
        await self._adding.add(membership, [contact])
