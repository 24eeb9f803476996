"""Another pseudonym in a room: a fresh leaf comes in, added by the old one, which it then removes."""

from __future__ import annotations

from mimi_mmr.client.context import Context
from mimi_mmr.client.key_packages.maker import KeyPackageMaker
from mimi_mmr.client.key_packages.other_devices import OtherDevices
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackages
from mimi_mmr.client.rooms.commits import Commits
from mimi_mmr.client.rooms.invitations import Invitations
from mimi_mmr.client.rooms.leaving import Leaving
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import RoomError
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.protocol.room.policy import Role

WELCOME_WAITS = 6
WELCOME_SECONDS = 5.0
CREDENTIAL_RENEWAL = (
    24 * 86400
)  # two weeks before the oldest certificate in a link that is 90 days old expires


class Pseudonyms:
    """The pseudonyms under which this user is in rooms, and their change."""

    def __init__(
        self,
        context: Context,
        memberships: Memberships,
        maker: KeyPackageMaker,
        outstanding: OutstandingKeyPackages,
        other_devices: OtherDevices,
        commits: Commits,
        leaving: Leaving,
        invitations: Invitations,
    ) -> None:
        self._context = context
        self._memberships = memberships
        self._maker = maker
        self._outstanding = outstanding
        self._other_devices = other_devices
        self._commits = commits
        self._leaving = leaving
        self._invitations = invitations

    async def change(self, membership: Membership) -> None:
        """Go on in a room under a fresh pseudonym, with a fresh leaf: the old leaf adds it, it removes the old one.

        For rooms that share a last-resort KeyPackage, and for credentials that are about to expire. Who is behind
        both is the same to members who see identities; the hub sees one pseudonym follow another in this one room.
        Raises `NotAllowed` where members may not add; `RoomError` when the Welcome has not come in time, which is
        followed whenever it comes.
        """
        old = membership.pseudonym
        set_key = SigningKey.generate()
        (package,) = await self._maker.make([set_key])
        leaf, new = package.leaf, package.leaf.identity.credential.user_pseudonym
        self._outstanding.watch(package, room=membership.uri)
        more = await self._other_devices.for_room(membership.uri, set_key)
        intent = CommitIntent(adds=(package.open, *more))
        role = membership.room.policy.policy.role(old)
        if role is Role.ADMIN:
            intent = CommitIntent(adds=intent.adds, policy=lambda policy: policy.with_role(new, role))
        async with self._invitations.looking:
            # The Welcome is not followed before the old leaf did what it alone may do.
            await self._commits.commit(membership, intent)
            await self._leaving.remove_other_leaves(membership, old)
        for _ in range(WELCOME_WAITS):
            if membership.leaf is leaf:
                break
            await self._invitations.check(WELCOME_SECONDS)
        else:
            raise RoomError("the Welcome for the new pseudonym has not come")
        await self._leaving.answer(membership)

    async def change_due(self) -> None:
        """Change those of rooms that share a last resort, or whose credential is about to expire.

        Of a user's devices in a room it falls to the one with the lowest leaf.
        """
        soon = self._context.clock() + CREDENTIAL_RENEWAL
        for membership in list(self._memberships.values()):
            if not membership.usable:
                continue
            expiry = membership.leaf.identity.credential.expiry
            if membership.place.change_pseudonym or expiry < soon:
                own = membership.own_leaves
                if own and own[0] == membership.room.own_leaf:
                    await self.change(membership)
