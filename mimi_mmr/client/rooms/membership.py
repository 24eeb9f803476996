"""A client's place in its rooms: leaving, changing its pseudonym, being added again, and what members share."""

from __future__ import annotations

import enum
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from mimi_mmr.client.key_packages.shelves import Waiting
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.rooms.joining import Joining
from mimi_mmr.client.rooms.rooms import Joined
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import MmrError, NotAllowed, PeerError, PrivatePathFailed, RoomError, StateError
from mimi_mmr.member.leaves import PreparedLeaf
from mimi_mmr.member.whois import Whois
from mimi_mmr.presentation import Code, Struct
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.protocol.key_packages import OpenKeyPackage
from mimi_mmr.protocol.room.departures import MAX_DEPARTURES, Departure, sign_departure
from mimi_mmr.protocol.room.events import EventKind, FanoutMessage
from mimi_mmr.protocol.room.policy import Role
from mimi_mmr.uris import ROOM, USER, MimiUri

WELCOME_WAITS = 6
WELCOME_SECONDS = 5.0
MOST_STRAYS = 16  # further rooms that a last resort was used for, of which this client takes notice


@dataclass(frozen=True, slots=True)
class AddAgain(Struct):
    """To the contact who added us to a room with a KeyPackage whose keys are lost: take that leaf out, claim anew.

    The departure of the dead leaf lets whoever commits remove it; its signature key was not lost.
    """

    room: Annotated[MimiUri, ROOM]
    departure: Departure


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


class Membership(Joining):
    """What a client does about itself in a room."""

    def _open_membership(self) -> None:
        self._to_add_again = self.vault.table("add again")

    # --- leaving -------------------------------------------------------------------------------------

    async def leave(self, joined: Joined) -> None:
        """Leave: every device of this user. The others are told, and one of them takes us out (MLS: Remove).

        An admin gives up that role first: whoever takes us out may not be one, and could not take it away. Raises
        `NotAllowed` if this user is the only admin and not alone: nobody could change the policy any more.
        """
        room = joined.room
        if room.removed:
            return
        me = joined.leaf.identity.credential.user_pseudonym
        own = self._leaves_of(joined, me)
        others = set(room.participants()) - set(own)
        policy = room.policy.policy
        admins = {entry.user_pseudonym for entry in policy.roles if entry.role is Role.ADMIN}
        if others and admins == {me}:
            raise NotAllowed("the only admin can't leave: make somebody else an admin first")
        further = [leaf for leaf in own if leaf != room.own_leaf]
        if further:
            await self.remove(joined, further)
        if not others:
            await self.forget(joined)  # nobody is left whom it could be told
            return
        if me in admins:
            await self.make_admin(joined, me, admin=False)
        await self.send(joined, Content(ContentKind.DEPARTURE, joined.room.departure().to_bytes()))

    async def make_admin(self, joined: Joined, user: MimiUri, *, admin: bool = True) -> None:
        """Give a user pseudonym the role ADMIN, or take it; as an admin."""
        role = Role.ADMIN if admin else Role.MEMBER
        await self._commit(joined, policy=lambda room: room.policy.policy.with_role(user, role))

    def _instructed(self, joined: Joined, sender: Whois, content: Content) -> None:
        if content.kind is ContentKind.DEPARTURE:
            departure = Departure.from_bytes(content.body)
            joined.room.departing(departure)
            joined.departures[departure.content.client_pseudonym] = departure
        elif content.kind is ContentKind.ADD_AGAIN:
            self._take_add_again(joined, sender, AddAgain.from_bytes(content.body))
        else:
            super()._instructed(joined, sender, content)

    async def _follow_up(self, joined: Joined) -> None:
        await super()._follow_up(joined)
        if not joined.room.removed and self._first(joined):
            await self.answer_departures(joined)

    def _first(self, joined: Joined) -> bool:
        """Whether it falls to this member to act at once: to the one with the lowest leaf who stays."""
        present = joined.room.participants().items()
        staying = (leaf for leaf, who in present if who.credential.client_pseudonym not in joined.departures)
        return min(staying, default=-1) == joined.room.own_leaf

    async def answer_departures(self, joined: Joined) -> None:
        """Take out those who asked to go, if nobody else has done it yet."""
        if not joined.departures:
            return
        others = joined.room.clients() - {joined.leaf.identity.credential.client_pseudonym}
        asked = dict(joined.departures)
        pending = [departure for client, departure in asked.items() if client in others]
        for start in range(0, len(pending), MAX_DEPARTURES):
            await self._commit(joined, departures=pending[start : start + MAX_DEPARTURES])
        for client in asked:  # others may have come meanwhile
            joined.departures.pop(client, None)
        with self._changing(joined):
            self._keep(joined)

    # --- what members share --------------------------------------------------------------------------

    async def rename(self, joined: Joined, name: str, topic: str | None = None) -> None:
        """Give the room a name (and a topic) that members alone can read."""
        await self._commit(
            joined,
            state=lambda room: replace(
                room.members_only.state,
                name=name,
                topic=room.members_only.state.topic if topic is None else topic,
            ),
        )

    async def reveal(self, joined: Joined) -> None:
        """Show who one is in a room whose policy hides it; this can't be taken back."""
        await self._commit(joined, reveal=True)

    # --- another pseudonym ---------------------------------------------------------------------------

    async def change_pseudonym(self, joined: Joined) -> None:
        """Go on in a room under a fresh pseudonym, with a fresh leaf: the old leaf adds it, it removes the old one.

        For rooms that share a last-resort KeyPackage, and for credentials that are about to expire. Who is behind
        both is the same to members who see identities; the hub sees one pseudonym follow another in this one room.
        Raises `NotAllowed` where members may not add; `RoomError` when the Welcome has not come in time, which is
        followed whenever it comes.
        """
        old = joined.leaf.identity.credential.user_pseudonym
        set_key = SigningKey.generate()
        (package,) = await self._stock.make(self.me, [set_key])
        new, leaf = package.leaf.identity.credential.user_pseudonym, package.leaf
        self._await_use(package, room=joined.uri)
        more = await self._own_packages(joined.uri, set_key)
        role = joined.room.policy.policy.role(old)
        async with self._looking:  # the Welcome is not followed before the old leaf did what it alone may do
            await self._commit(
                joined,
                add=[package.open, *more],
                policy=(lambda room: room.policy.policy.with_role(new, role)) if role is Role.ADMIN else None,
            )
            further = [one for one in self._leaves_of(joined, old) if one != joined.room.own_leaf]
            if further:
                await self.remove(joined, further)
        for _ in range(WELCOME_WAITS):
            if joined.leaf is leaf:
                break
            await self.check_invitations(WELCOME_SECONDS)
        else:
            raise RoomError("the Welcome for the new pseudonym has not come")
        await self.answer_departures(joined)

    async def _own_packages(self, room: MimiUri, set_key: SigningKey) -> list[OpenKeyPackage]:
        """KeyPackages of this user's other devices under one pseudonym; for the floors above."""
        return []

    def _placed(self, waiting: Waiting, room: MimiUri) -> None:
        """A fresh leaf takes the place of an old one: that one asks to be removed, before its keys are dropped."""
        super()._placed(waiting, room)
        present = self.rooms.get(room)
        if present is not None:
            departure = present.room.departure()
            present.departures[departure.content.client_pseudonym] = departure

    # --- keys that a restart lost --------------------------------------------------------------------

    def _strays(self, joined: Joined) -> MutableMapping[bytes, bytes]:
        """Rooms that a last resort was used for too late, with what is to be asked; b"" once it was."""
        return self.vault.table(f"strays {joined.uri}")

    def _stray(self, rooms: Sequence[Joined], fanout: FanoutMessage) -> None:
        """A Welcome to a further room for a last resort that is used up by now: its keys are gone.

        Any hub can say so of any room: it is believed of a last resort only, once for each room, and acted on at
        another time, so that it doesn't learn at once where this leaf's inviter hears of it.
        """
        joined = next((one for one in rooms if one.last_resort), None)
        if joined is None or fanout.kind is not EventKind.WELCOME or fanout.room in self.rooms:
            return
        strays, key = self._strays(joined), joined.leaf.key.public + str(fanout.room).encode()
        if key not in strays and len(strays) < MOST_STRAYS:
            client = joined.leaf.identity.credential.client_pseudonym
            strays[key] = AddAgain(
                fanout.room, sign_departure(fanout.room, client, joined.leaf.key)
            ).to_bytes()

    async def mind_strays(self) -> None:
        """Ask those who used a last resort for more rooms than it was good for to add us anew there."""
        for joined in list(self.rooms.values()):
            contact = self.contacts.get(joined.invited_by) if joined.invited_by else None
            if contact is None or contact.blocked or self._room_of(contact.room) is None:
                continue
            for key, row in list(self._strays(joined).items()):
                if row and (request := AddAgain.from_bytes(row)).room not in self.rooms:
                    await self._ask(contact, request)
                self._strays(joined)[key] = b""

    async def _ask_to_be_added(self, contact: Contact, room: MimiUri, leaf: PreparedLeaf) -> None:
        """Ask a contact who added us with a KeyPackage of theirs to take that leaf out and claim anew."""
        departure = sign_departure(room, leaf.identity.credential.client_pseudonym, leaf.key)
        await self._ask(contact, AddAgain(room, departure))

    async def _ask(self, contact: Contact, request: AddAgain) -> None:
        connection = self._room_of(contact.room)
        if connection is None:
            raise RoomError("there is no room with this contact to ask in")
        await self.send(connection, Content(ContentKind.ADD_AGAIN, request.to_bytes()))
        self.notices.add(
            f"the keys of an invitation by {contact.user} are lost: asked to be added again", self._clock()
        )

    async def _ask_again(self, waiting: Waiting, fanout: FanoutMessage) -> None:
        """A KeyPackage that this client made for itself, and whose keys it lost.

        Where it is in the room it takes that leaf out, and goes on to yet another pseudonym, which the user's other
        devices are to share; where it had asked to join it can't do anything but say so.
        """
        joined = self.rooms.get(fanout.room)
        if waiting.room is None or waiting.room != fanout.room:
            await super()._ask_again(waiting, fanout)
        elif joined is None or joined.room.removed:
            self.notices.add(
                "the keys of an invitation to a room were lost at a restart: ask to be added again",
                self._clock(),
            )
            self._no_longer_wait(waiting)
        else:
            leaf = waiting.package.leaf
            client = leaf.identity.credential.client_pseudonym
            with self._changing(joined):
                joined.departures[client] = sign_departure(fanout.room, client, leaf.key)
                joined.rotate = True
                self._no_longer_wait(waiting)
                self._keep(joined)

    # --- contacts whose keys were lost ---------------------------------------------------------------

    def _take_add_again(self, joined: Joined, sender: Whois, request: AddAgain) -> None:
        """A contact's keys were lost. Noted if it is theirs to ask, and done when the page has been read.

        They have to have a leaf in the room now: nobody comes in like this who was not in, or was removed.
        """
        contact = self.contacts.get(sender.member.device.user) if sender.member else None
        if contact is None or contact.blocked or contact.room != joined.uri:
            raise RoomError(
                "a request to be added again that does not come from a contact in the room with them"
            )
        room = self.rooms.get(request.room)
        if room is None or room is joined or room.room.removed:
            raise RoomError("a request to be added again to a room that this client is not in")
        leaf = room.room.departing(request.departure)
        dead = self._pinned(room.room.whois(leaf, self.trust, self._clock()))
        if self._user_at(room, dead) != contact.user:
            raise RoomError("a request to be added again for a leaf that is not the contact's")
        key = f"{contact.user} {request.room}".encode()
        self._to_add_again[key] = SavedAddAgain(contact.user, Step.VERIFIED, request).to_bytes()

    async def add_again(self) -> None:
        """Take out the dead leaves of contacts who asked for it, and add those contacts anew."""
        for key, row in list(self._to_add_again.items()):
            saved = SavedAddAgain.from_bytes(row)
            contact, joined = self.contacts.get(saved.user), self.rooms.get(saved.request.room)
            try:
                if contact is None or contact.blocked or joined is None or joined.room.removed:
                    raise RoomError("they are no contact any more, or this client is not in that room")
                await self._add_again(joined, contact, key, saved)
            except StateError:
                raise
            except (PrivatePathFailed, PeerError) as error:
                self.refused.append(f"to add a contact again, to be gone on with: {error}")
                continue
            except MmrError as error:
                self.notices.add(
                    f"{saved.user} asked to be added again, which failed: {error}", self._clock()
                )
            else:
                self.notices.add(f"{saved.user} had lost its keys, and was added again", self._clock())
            self._to_add_again.pop(key, None)

    async def _add_again(self, joined: Joined, contact: Contact, key: bytes, saved: SavedAddAgain) -> None:
        """Each step is noted first, so that a process that ends between two does neither twice."""
        departure = saved.request.departure
        await self._be_decided(joined)
        joined.room.policy.policy.allow_invite(joined.leaf.identity.credential.user_pseudonym)
        there = departure.content.client_pseudonym in joined.room.clients()
        if there:
            self._to_add_again[key] = replace(saved, step=Step.REMOVED).to_bytes()
        if not await self._commit(joined, departures=[departure]) and (there or saved.step is Step.VERIFIED):
            raise RoomError("somebody else has removed them")
        await self.add(joined, [contact])
