"""Room policy and roles: a document that an admin's leaf signs. Members obey it, not the hub's copy of it."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from mimi_mmr.crypto.signing import SigningKey, verify
from mimi_mmr.errors import NotAllowed, SignatureRejected, WrongSigner
from mimi_mmr.presentation import U8, U32, U64, Code, Fixed, Nested, Struct, Vector, slot
from mimi_mmr.uris import ROOM, USER_PSEUDONYM, MimiUri

VERSION = 1
MAX_ROLES = 1024


class Role(enum.IntEnum):
    """What a user pseudonym may do; a higher role may do all that a lower one may."""

    NOBODY = 0
    MEMBER = 1
    ADMIN = 2
    NEVER = 255


class Identities(enum.IntEnum):
    """Whose identity link keys stand in the Tree Wrap tree."""

    EVERYONE = 1
    ADMINS_ONLY = 2
    NOBODY = 3


@dataclass(frozen=True, slots=True)
class RoleAssignment(Struct):
    """A pseudonym's role, where it isn't `MEMBER`."""

    user_pseudonym: Annotated[MimiUri, USER_PSEUDONYM]
    role: Annotated[Role, Code(Role)]


class _ByUser:
    """A slot for the roles by user: an index over `roles`, so not a field of its own."""

    __slots__ = ("_by_user",)
    _by_user: Mapping[MimiUri, Role]


_put_by_user = slot(_ByUser, "_by_user")


@dataclass(frozen=True, slots=True)
class RoomPolicy(_ByUser, Struct):
    """Who may do what. `serial` grows with every change; identity policy is fixed at the room's creation."""

    version: Annotated[int, U8]
    room: Annotated[MimiUri, ROOM]
    serial: Annotated[int, U64]
    identities: Annotated[Identities, Code(Identities)]
    may_add: Annotated[Role, Code(Role)]
    may_remove: Annotated[Role, Code(Role)]
    roles: Annotated[tuple[RoleAssignment, ...], Vector(Nested(RoleAssignment), count=MAX_ROLES)]

    def __post_init__(self) -> None:
        """Refuse an unknown version, a pseudonym that stands twice, and `NEVER` as somebody's role."""
        if self.version != VERSION:
            raise ValueError(f"expected policy version {VERSION}, got {self.version}")
        by_user = {entry.user_pseudonym: entry.role for entry in self.roles}
        if len(by_user) != len(self.roles):
            raise ValueError("a pseudonym has two roles")
        if any(entry.role is Role.NEVER for entry in self.roles):
            raise ValueError("NEVER is a bar that nobody reaches, not a role that somebody has")
        _put_by_user(self, by_user)

    @property
    def hash(self) -> bytes:
        """What commits and the Tree Wrap root carry (32 bytes)."""
        return hashlib.sha256(self.to_bytes()).digest()

    def role(self, user: MimiUri) -> Role:
        """Return a participant's role."""
        return self._by_user.get(user, Role.MEMBER)

    @property
    def privileged(self) -> frozenset[MimiUri]:
        """Who has a role above `MEMBER`."""
        return frozenset(entry.user_pseudonym for entry in self.roles if entry.role > Role.MEMBER)

    def allow_add(self, actor: MimiUri, target: MimiUri) -> None:
        """Check an Add: one's own clients always, others with the role `may_add`. Raises `NotAllowed`."""
        if actor != target:
            self.allow_invite(actor)

    def allow_return(self, actor: MimiUri, target: MimiUri) -> None:
        """Check an Add of a user pseudonym that has no leaf in the room; raise `NotAllowed`.

        One that still has a role there, since it was taken out by others than admins, comes back by an admin only.
        """
        self.allow_add(actor, target)
        if target in self.privileged and self.role(actor) is not Role.ADMIN:
            raise NotAllowed("adding somebody who has a role already needs the role ADMIN")

    def allow_invite(self, actor: MimiUri) -> None:
        """Check whether somebody may add others than its own clients; raise `NotAllowed`."""
        if self.role(actor) < self.may_add:
            raise NotAllowed(f"adding needs the role {self.may_add.name}")

    def allow_remove(self, actor: MimiUri, target: MimiUri) -> None:
        """Check a Remove: one's own clients always, others' with the role, and never those of a higher role."""
        if actor == target:
            return
        if self.role(actor) < max(self.may_remove, self.role(target)):
            raise NotAllowed(f"removing this participant needs the role {self.may_remove.name} or theirs")

    def with_role(self, user: MimiUri, role: Role) -> RoomPolicy:
        """Return the next policy, in which this participant has this role; `Room.stage` signs it."""
        others = tuple(entry for entry in self.roles if entry.user_pseudonym != user)
        own = () if role is Role.MEMBER else (RoleAssignment(user, role),)
        return replace(self, serial=self.serial + 1, roles=(*others, *own))

    def shows_identity(self, user: MimiUri) -> bool:
        """Say whether this participant's identity link key must stand in the tree."""
        if self.identities is Identities.ADMINS_ONLY:
            return self.role(user) is Role.ADMIN
        return self.identities is Identities.EVERYONE


@dataclass(frozen=True, slots=True)
class SignedPolicy(Struct):
    """A policy and the leaf that signed it, a member with the role ADMIN under the policy before."""

    policy: RoomPolicy
    signer: Annotated[int, U32]
    signature: Annotated[bytes, Fixed(64)]

    def verify(self, signature_key: bytes) -> None:
        """Check the signature; raise `WrongSigner`."""
        try:
            verify(signature_key, "RoomPolicyTBS", self._content(), self.signature)
        except SignatureRejected:
            raise WrongSigner("the room policy is not signed by the leaf that it names") from None

    def check_succession(self, old: RoomPolicy, committer: int, user: MimiUri, signature_key: bytes) -> None:
        """Check that this may follow `old`, in a commit of leaf `committer`, which is `user`'s and has this key.

        Raises `NotAllowed` or `WrongSigner`.
        """
        if self.signer != committer or old.role(user) is not Role.ADMIN:
            raise NotAllowed("only an admin changes the policy, in a commit of its own leaf")
        self.verify(signature_key)
        wanted = (old.room, old.serial + 1, old.identities)
        if (self.policy.room, self.policy.serial, self.policy.identities) != wanted:
            raise NotAllowed("a new policy is for the same room and identities, with the next serial")

    def _content(self) -> bytes:
        return self.signer.to_bytes(4, "big") + self.policy.to_bytes()


def sign_policy(policy: RoomPolicy, signer: int, key: SigningKey) -> SignedPolicy:
    """Sign a policy as leaf `signer`."""
    content = signer.to_bytes(4, "big") + policy.to_bytes()
    return SignedPolicy(policy, signer, key.sign("RoomPolicyTBS", content))


def default_policy(
    room: MimiUri, creator: MimiUri, identities: Identities = Identities.EVERYONE
) -> RoomPolicy:
    """Make a room's first policy: the creator is admin, members may add, admins may remove."""
    roles = (RoleAssignment(creator, Role.ADMIN),)
    return RoomPolicy(VERSION, room, 0, identities, Role.MEMBER, Role.ADMIN, roles)
