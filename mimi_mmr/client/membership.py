"""A client's place in its rooms: leaving, changing its pseudonym, being added again, and what members share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from mimi_mmr.client.joining import Joining
from mimi_mmr.client.rooms import Joined
from mimi_mmr.client.shelves import Waiting
from mimi_mmr.contacts import Contact
from mimi_mmr.content import Content, ContentKind
from mimi_mmr.errors import HubRefusal, MmrError, NotAllowed, RoomError
from mimi_mmr.hub.departures import Departure, sign_departure
from mimi_mmr.hub.messages import EventKind, FanoutMessage
from mimi_mmr.hub.policy import Role
from mimi_mmr.keypackages import OpenKeyPackage
from mimi_mmr.labels import SigningKey
from mimi_mmr.leaves import PreparedLeaf
from mimi_mmr.room import Whois
from mimi_mmr.tls import Struct
from mimi_mmr.uris import ROOM, MimiUri

WELCOME_WAITS = 6
WELCOME_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class AddAgain(Struct):
    """To the contact who added us to a room with a KeyPackage whose keys are lost: take that leaf out, claim anew.

    The departure of the dead leaf lets whoever commits remove it; its signature key was not lost.
    """

    room: Annotated[MimiUri, ROOM]
    departure: Departure


class Membership(Joining):
    """What a client does about itself in a room."""

    def _open_membership(self) -> None:
        self._to_add_again = self.vault.table("to add again")
        self._strays: list[tuple[Joined, MimiUri]] = []

    # --- leaving -------------------------------------------------------------------------------------

    async def leave(self, joined: Joined) -> None:
        """Leave: every device of this user. The others are told, and one of them takes us out (MLS: Remove).

        Raises `NotAllowed` if this user is the only admin and not alone: nobody could change the policy any more.
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
        await self.send(joined, Content(ContentKind.DEPARTURE, room.departure().to_bytes()))

    async def make_admin(self, joined: Joined, user: MimiUri, *, admin: bool = True) -> None:
        """Give a user pseudonym the role ADMIN, or take it; as an admin."""
        role = Role.ADMIN if admin else Role.MEMBER
        await self._commit(joined, policy=lambda room: room.policy.policy.with_role(user, role))

    def _instructed(self, joined: Joined, sender: Whois, content: Content) -> None:
        if content.kind is ContentKind.DEPARTURE:
            departure = Departure.from_bytes(content.body)
            joined.room.departing(departure)
            joined.departures.append(departure)
        elif content.kind is ContentKind.ADD_AGAIN:
            self._take_add_again(joined, sender, AddAgain.from_bytes(content.body))
        else:
            super()._instructed(joined, sender, content)

    async def _follow_up(self, joined: Joined) -> None:
        await self._mind_strays()
        if joined.room.removed:
            return
        if self._first(joined):
            await self.answer_departures(joined)

    def _first(self, joined: Joined) -> bool:
        """Whether it falls to this member to act at once: to the one with the lowest leaf who stays."""
        going = {departure.content.client_pseudonym for departure in joined.departures}
        present = joined.room.participants().items()
        staying = (leaf for leaf, who in present if who.credential.client_pseudonym not in going)
        return min(staying, default=-1) == joined.room.own_leaf

    async def answer_departures(self, joined: Joined) -> None:
        """Take out those who asked to go, if nobody else has done it yet."""
        present = {who.credential.client_pseudonym for who in joined.room.participants().values()}
        me = joined.leaf.identity.credential.client_pseudonym
        pending = {
            departure.content.client_pseudonym: departure
            for departure in joined.departures
            if departure.content.client_pseudonym in present and departure.content.client_pseudonym != me
        }
        if pending:
            await self._commit(joined, departures=list(pending.values()))
        if joined.departures:
            joined.departures.clear()
            with self.vault.transaction():
                self._keep(joined)

    # --- what members share --------------------------------------------------------------------------

    async def rename(self, joined: Joined, name: str, topic: str | None = None) -> None:
        """Give the room a name (and a topic) that members alone can read."""
        await self._commit(
            joined,
            state=lambda room: replace(
                room.state, name=name, topic=room.state.topic if topic is None else topic
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
        Raises `NotAllowed` where members may not add.
        """
        old = joined.leaf.identity.credential.user_pseudonym
        set_key = SigningKey.generate()
        (package,) = await self._stock.make(self.me, [set_key])
        waiting = self._await_use(package, room=joined.uri)
        more = await self._own_packages(joined.uri, set_key)
        await self._commit(joined, add=[package.open, *more])
        new = package.leaf.identity.credential.user_pseudonym
        policy = joined.room.policy.policy
        role = policy.role(old)
        if role is not Role.MEMBER:
            await self._commit(joined, policy=lambda room: room.policy.policy.with_role(new, role))
        further = [leaf for leaf in self._leaves_of(joined, old) if leaf != joined.room.own_leaf]
        if further:
            await self.remove(joined, further)
        await self._take_over(joined, waiting)
        if role is not Role.MEMBER:
            await self._commit(joined, policy=lambda room: room.policy.policy.with_role(old, Role.MEMBER))

    async def _own_packages(self, room: MimiUri, set_key: SigningKey) -> list[OpenKeyPackage]:
        """KeyPackages of this user's other devices under one pseudonym; for the floors above."""
        return []

    async def _take_over(self, joined: Joined, waiting: Waiting) -> None:
        """The fresh leaf's Welcome is there: it takes the old one's place, and takes the old one out."""
        for _ in range(WELCOME_WAITS):
            found = await self._look(waiting, WELCOME_SECONDS)
            if found:
                break
        else:
            raise RoomError("the Welcome for the new pseudonym has not come")
        room = await self._join(waiting, found[0].fanout)
        departure = joined.room.departure()
        await self._take_place(found[0], room)
        await self._entered(joined)
        await self.sync(joined)
        await self._commit(joined, departures=[departure])

    # --- keys that a restart lost --------------------------------------------------------------------

    def _stray(self, rooms: Sequence[Joined], fanout: FanoutMessage) -> None:
        """A Welcome to a further room for a last resort that is used up by now: its keys are gone."""
        if fanout.kind is EventKind.WELCOME and fanout.room not in self.rooms and rooms:
            self._strays.append((rooms[0], fanout.room))

    async def _mind_strays(self) -> None:
        while self._strays:
            joined, room = self._strays.pop()
            contact = self.contacts.get(joined.invited_by) if joined.invited_by else None
            if contact is not None:
                await self._ask_to_be_added(contact, room, joined.leaf)

    async def _ask_to_be_added(self, contact: Contact, room: MimiUri, leaf: PreparedLeaf) -> None:
        """Ask a contact who added us with a KeyPackage of theirs to take that leaf out and claim anew."""
        connection = self._room_of(contact.room)
        if connection is None:
            raise RoomError("there is no room with this contact to ask in")
        departure = sign_departure(room, leaf.identity.credential.client_pseudonym, leaf.key)
        request = AddAgain(room, departure)
        await self.send(connection, Content(ContentKind.ADD_AGAIN, request.to_bytes()))
        self.notices.add(
            f"the keys of an invitation by {contact.user} are lost: asked to be added again", self._clock()
        )

    async def _ask_again(self, waiting: Waiting, fanout: FanoutMessage) -> None:
        """A KeyPackage that this client made for itself, and whose keys it lost: it takes that leaf out again."""
        joined = self.rooms.get(fanout.room)
        if joined is None:
            await super()._ask_again(waiting, fanout)
            return
        leaf = waiting.package.leaf
        departure = sign_departure(fanout.room, leaf.identity.credential.client_pseudonym, leaf.key)
        joined.departures.append(departure)
        with self.vault.transaction():
            self._no_longer_wait(waiting)
            self._keep(joined)

    def _take_add_again(self, joined: Joined, sender: Whois, request: AddAgain) -> None:
        """Somebody's keys were lost; noted, and done when the page has been read."""
        if sender.member is None or request.room not in self.rooms:
            raise RoomError("a request to be added again to a room that this client is not in")
        self._to_add_again[str(sender.member.device.user).encode() + b" " + str(request.room).encode()] = (
            request.to_bytes()
        )

    async def add_again(self) -> None:
        """Take out the dead leaves of contacts who asked for it, and add those contacts anew."""
        for key, row in list(self._to_add_again.items()):
            contact = self.contacts.get(MimiUri.parse(key.split(b" ")[0].decode()))
            request = AddAgain.from_bytes(row)
            joined = self.rooms.get(request.room)
            if contact is not None and joined is not None and not joined.room.removed:
                await self._add_again(joined, request.departure)
                try:
                    await self.add(joined, [contact])
                except (HubRefusal, MmrError) as error:
                    self.notices.add(
                        f"{contact.user} asked to be added again, which failed: {error}", self._clock()
                    )
                    continue
                self.notices.add(f"{contact.user} had lost its keys, and was added again", self._clock())
            del self._to_add_again[key]

    async def _add_again(self, joined: Joined, departure: Departure) -> None:
        try:
            joined.room.departing(departure)
        except RoomError:
            return  # it is not there, or not any more
        await self._commit(joined, departures=[departure])
