"""Room policy and roles: a document that an admin's leaf signs. Members verify and enforce it themselves."""

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
    """The rights of a user pseudonym; a higher role includes the rights of the lower ones."""

    NOBODY = 0
    MEMBER = 1
    ADMIN = 2
    NEVER = 255


class Identities(enum.IntEnum):
    """The users whose identity link keys are in the Tree Wrap tree."""

    EVERYONE = 1
    ADMINS_ONLY = 2
    NOBODY = 3


@dataclass(frozen=True, slots=True)
class RoleAssignment(Struct):
    """A user pseudonym's role, if it isn't `MEMBER`."""

    user_pseudonym: Annotated[MimiUri, USER_PSEUDONYM]
    role: Annotated[Role, Code(Role)]


class _ByUser:
    """A slot for an index of `roles` by user; it is not a wire field."""

    __slots__ = ("_by_user",)
    _by_user: Mapping[MimiUri, Role]


_put_by_user = slot(_ByUser, "_by_user")


@dataclass(frozen=True, slots=True)
class RoomPolicy(_ByUser, Struct):
    """The rights in a room. `serial` grows with every change; the identity policy is fixed at creation."""

    version: Annotated[int, U8]
    room: Annotated[MimiUri, ROOM]
    serial: Annotated[int, U64]
    identities: Annotated[Identities, Code(Identities)]
    may_add: Annotated[Role, Code(Role)]
    may_remove: Annotated[Role, Code(Role)]
    roles: Annotated[tuple[RoleAssignment, ...], Vector(Nested(RoleAssignment), count=MAX_ROLES)]

    def __post_init__(self) -> None:
        """Refuse an unknown version, a pseudonym that occurs twice, and `NEVER` as a user's role."""
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
        """The policy's hash, which commits and the Tree Wrap root carry (32 bytes)."""
        return hashlib.sha256(self.to_bytes()).digest()

    def role(self, user: MimiUri) -> Role:
        """Return a participant's role."""
        return self._by_user.get(user, Role.MEMBER)

    @property
    def privileged(self) -> frozenset[MimiUri]:
        """The users with a role above `MEMBER`."""
        return frozenset(entry.user_pseudonym for entry in self.roles if entry.role > Role.MEMBER)

    def allow_add(self, actor: MimiUri, target: MimiUri) -> None:
        """Check an Add: own clients always, others' with the role `may_add`. Raises `NotAllowed`."""
        if actor != target:
            self.allow_invite(actor)

    def allow_return(self, actor: MimiUri, target: MimiUri) -> None:
        """Check an Add of a user pseudonym that has no leaf in the room; raise `NotAllowed`.

        If the user still has a role there, because somebody other than an admin removed it, only an admin may
        add it.
        """
        self.allow_add(actor, target)
        if target in self.privileged and self.role(actor) is not Role.ADMIN:
            raise NotAllowed("adding somebody who has a role already needs the role ADMIN")

    def allow_invite(self, actor: MimiUri) -> None:
        """Check that a user may add other users' clients; raise `NotAllowed`."""
        if self.role(actor) < self.may_add:
            raise NotAllowed(f"adding needs the role {self.may_add.name}")

    def allow_remove(self, actor: MimiUri, target: MimiUri) -> None:
        """Check a Remove: own clients always, others' with the role `may_remove`, but never a higher role's."""
        if actor == target:
            return
        if self.role(actor) < max(self.may_remove, self.role(target)):
            raise NotAllowed(f"removing this participant needs the role {self.may_remove.name} or theirs")

    def with_role(self, user: MimiUri, role: Role) -> RoomPolicy:
        """Return the next policy, with this role for this participant; `Room.stage` signs it."""
        others = tuple(entry for entry in self.roles if entry.user_pseudonym != user)
        own = () if role is Role.MEMBER else (RoleAssignment(user, role),)
        return replace(self, serial=self.serial + 1, roles=(*others, *own))

    def shows_identity(self, user: MimiUri) -> bool:
        """Return whether this participant's identity link key must be in the tree."""
        if self.identities is Identities.ADMINS_ONLY:
            return self.role(user) is Role.ADMIN
        return self.identities is Identities.EVERYONE


@dataclass(frozen=True, slots=True)
class SignedPolicy(Struct):
    """A policy and the leaf that signed it; this leaf must have the role ADMIN under the previous policy."""

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
        """Check that this policy may follow `old` in a commit by leaf `committer`, of `user` and with this key.

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
