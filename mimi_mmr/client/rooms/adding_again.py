"""Contacts who lost the keys of their leaf in a room: this client removes the dead leaf and adds them anew."""

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
from mimi_mmr.errors import MmrError, NotYet, PeerError, PrivatePathFailed, RoomError, StateError
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.whois import Whois
from mimi_mmr.presentation import Code, Struct
from mimi_mmr.protocol.content import Content
from mimi_mmr.uris import USER, MimiUri


class Step(enum.IntEnum):
    """The progress of a request to be added again: valid, or its dead leaf is being removed."""

    VERIFIED = 1
    REMOVED = 2


@dataclass(frozen=True, slots=True)
class SavedAddAgain(Struct):
    """A valid request to be added again, with its sender and progress."""

    user: Annotated[MimiUri, USER]
    step: Annotated[Step, Code(Step)]
    request: AddAgain


class AddingAgain:
    """The adding again of contacts who ask for it because they lost their keys."""

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
        """Return the valid requests that are not fulfilled yet."""
        return [SavedAddAgain.from_bytes(row) for row in self._rows.values()]

    def take_message(self, membership: Membership, sender: Whois, content: Content) -> None:
        """Note a contact's request to be added again, if it is valid; it is fulfilled when the page has been read.

        The contact must have a leaf in the room now: nobody who never was in the room, or was removed, gets in this
        way.
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
        """Remove the dead leaves of contacts who asked for it, and add those contacts anew."""
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
            except (PrivatePathFailed, PeerError, NotYet) as error:
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
        """Fulfil one request.

        Each step is noted before it is done, so that none is done twice if the process ends.
        """
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
