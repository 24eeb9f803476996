"""How members leave: a member asks to be removed and another one removes it, since MLS forbids removing oneself."""

from __future__ import annotations

from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackage
from mimi_mmr.client.rooms.commits import Commits
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.sending import Sending
from mimi_mmr.errors import NotAllowed
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.whois import Whois
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.protocol.room.departures import MAX_DEPARTURES, Departure
from mimi_mmr.protocol.room.policy import Role
from mimi_mmr.uris import MimiUri


class Leaving:
    """Departures of this user and of other members."""

    def __init__(self, memberships: Memberships, commits: Commits, sending: Sending) -> None:
        self._memberships = memberships
        self._commits = commits
        self._sending = sending

    async def leave(self, membership: Membership) -> None:
        """Ask to be removed, with every device of this user; another member then commits the Remove.

        An admin gives up that role first, since a member who is not an admin could remove us but not the role.
        Raises `NotAllowed` if this user is the only admin and not alone: nobody could change the policy any more.
        """
        room = membership.room
        if membership.removed:
            return
        me, own = membership.pseudonym, membership.own_leaves
        others = room.members.identities.keys() - set(own)
        policy = room.policy.policy
        admins = {entry.user_pseudonym for entry in policy.roles if entry.role is Role.ADMIN}
        if others and admins == {me}:
            raise NotAllowed("the only admin can't leave: make somebody else an admin first")
        await self.remove_other_leaves(membership, me)
        if not others:
            await self._memberships.forget(membership)  # no other member is left to send it to
            return
        if me in admins:
            await self.set_role(membership, me, Role.MEMBER)
        departure = membership.room.departure()
        await self._sending.send(membership, Content(ContentKind.DEPARTURE, departure.to_bytes()))
        with self._memberships.changing(membership):
            membership.add_departure(departure)
            self._memberships.save(membership)

    async def remove_other_leaves(self, membership: Membership, user: MimiUri) -> None:
        """Remove all leaves of a user pseudonym except this client's own."""
        room = membership.room
        further = [leaf for leaf in room.members.by_user.get(user, ()) if leaf != room.own_leaf]
        if further:
            await self._commits.commit(membership, CommitIntent(removes=room.members.at(further)))

    async def set_role(self, membership: Membership, user: MimiUri, role: Role) -> None:
        """Give a user pseudonym another role, as an admin."""
        await self._commits.commit(
            membership, CommitIntent(policy=lambda policy: policy.with_role(user, role))
        )

    # --- other members' departures -------------------------------------------------------------------

    def take_message(self, membership: Membership, _: Whois, content: Content) -> None:
        """Note the departure in a message; raises `RoomError` if it is not valid."""
        departure = Departure.from_bytes(content.body)
        membership.room.departing(departure)
        membership.add_departure(departure)

    def note_old_leaf(self, _: OutstandingKeyPackage, room: MimiUri) -> None:
        """Note the departure of an old leaf that a fresh one replaces, before the old leaf's keys are dropped."""
        present = self._memberships.find(room)
        if present is not None:
            present.add_departure(present.room.departure())

    async def answer_if_first(self, membership: Membership) -> None:
        """Answer departures at once, if this member is the one to do so."""
        if membership.departures and not membership.removed and falls_to_this_member(membership):
            await self.answer(membership)

    async def answer(self, membership: Membership) -> None:
        """Remove the members who asked to leave, if no other member has done it yet."""
        me = membership.leaf.identity.credential.client_pseudonym
        if membership.departures.keys() <= {me}:
            return
        others = membership.room.members.by_client.keys() - {me}
        asked = dict(membership.departures)
        pending = [departure for client, departure in asked.items() if client in others]
        for start in range(0, len(pending), MAX_DEPARTURES):
            some = tuple(pending[start : start + MAX_DEPARTURES])
            await self._commits.commit(membership, CommitIntent(departures=some))
        with self._memberships.changing(membership):
            # The own departure stays: it says that this user has left.
            left = {one: what for one, what in membership.departures.items() if one == me or one not in asked}
            membership.set_departures(left)
            self._memberships.save(membership)


def falls_to_this_member(membership: Membership) -> bool:
    """Say whether this member is to act at once: the one with the lowest leaf among those who stay."""
    room, departing = membership.room, membership.departures
    staying = (leaf for leaf, member in room.members.readable.items() if member.client not in departing)
    return min(staying, default=-1) == room.own_leaf
