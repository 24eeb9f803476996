"""The change of pseudonym in a room: the old leaf adds a fresh one, which then removes the old leaf."""

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
from mimi_mmr.protocol.key_packages import has_begun, leaf_of
from mimi_mmr.protocol.room.policy import Role

WELCOME_WAITS = 6
WELCOME_SECONDS = 5.0
CREDENTIAL_RENEWAL = (
    24 * 86400
)  # when the oldest certificate in a 90 days old identity link has two weeks left


class Pseudonyms:
    """The change of this user's pseudonyms in rooms."""

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
        """Take a fresh pseudonym and leaf in a room: the old leaf adds the fresh one, which removes the old one.

        For rooms that share a last-resort KeyPackage, and for credentials that are about to expire. Members who see
        identities see the same user behind both pseudonyms; the hub sees that one pseudonym replaced another in
        this room. Raises `NotAllowed` where members may not add; `RoomError` when the Welcome has not arrived in
        time. A Welcome that arrives later is still followed.
        """
        old = membership.pseudonym
        set_key = SigningKey.generate()
        (package,) = await self._maker.make([set_key])
        leaf, new = package.leaf, package.leaf.identity.credential.user_pseudonym
        self._outstanding.watch(package, room=membership.uri, own_commit=b"")
        now = self._context.clock()
        made = await self._other_devices.for_room(membership.uri, set_key)
        more = [
            one for one in made if has_begun(leaf_of(one), now)
        ]  # a device whose clock is ahead is added later
        intent = CommitIntent(adds=(package.open, *more))
        role = membership.room.policy.policy.role(old)
        if role is Role.ADMIN:
            intent = CommitIntent(adds=intent.adds, policy=lambda policy: policy.with_role(new, role))
        async with self._invitations.looking:
            # The Welcome is followed only after the old leaf has done what only the old leaf may do.
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
        """Change the pseudonym in rooms that share a last resort, or where the credential is about to expire.

        Of a user's devices in a room, the one with the lowest leaf does this.
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
