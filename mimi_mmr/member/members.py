"""Who is in a room: pseudonyms from the MLS tree, persons from the Tree Wrap tree, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.crypto.secret import IdentityLinkKey
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import IdentityError, ParseError, RoomError
from mimi_mmr.member.leaves import PreparedLeaf
from mimi_mmr.member.whois import Standing, Whois
from mimi_mmr.mls.engine import MlsGroup
from mimi_mmr.protocol.credentials import Claim, LeafIdentity, ResolvedMember, open_claim, verify_in_step
from mimi_mmr.protocol.room.members_only import MembersOnlyState
from mimi_mmr.protocol.room.policy import SignedPolicy
from mimi_mmr.uris import MimiUri
from treewrap import LeafSecret, WrapTree

AT_ONCE = 256


@dataclass(slots=True)
class Members:
    """One membership, as far as it is read."""

    uri: MimiUri
    policy: SignedPolicy
    _group: MlsGroup
    _tree: WrapTree
    _leaf: PreparedLeaf
    _hub_hash: bytes
    problems: dict[int, str] = field(default_factory=dict)
    removed: bool = False
    _sealed_state: bytes | None = field(default=None, repr=False)
    _state: MembersOnlyState = field(default_factory=MembersOnlyState, repr=False)
    _state_stale: bool = False  # sealed badly by somebody: the next commit of ours seals it anew

    @property
    def epoch(self) -> int:
        """The MLS epoch."""
        return self._group.epoch

    @property
    def own_leaf(self) -> int:
        """This client's leaf index."""
        return self._group.own_leaf

    @property
    def tree_hash(self) -> bytes:
        """What every member's Tree Wrap tree hashes to (32 bytes)."""
        return self._tree.tree_hash

    @property
    def diverged(self) -> bool:
        """Whether the hub keeps another tree than this member computed: a committer cheated; see `adopt`."""
        return self._tree.tree_hash != self._hub_hash

    @property
    def signing_key(self) -> SigningKey:
        """This leaf's signature key, for requests to the hub."""
        return self._leaf.key

    # --- who ------------------------------------------------------------------------------------------------

    def participants(self) -> dict[int, LeafIdentity]:
        """Leaf -> pseudonymous identity, of every member whose credential parses."""
        read = self._read(self._group.credentials().items())
        return {leaf: identity for leaf, identity, _ in read}

    def clients(self) -> frozenset[MimiUri]:
        """The client pseudonyms of all members whose credential parses."""
        return frozenset(identity.credential.client_pseudonym for identity in self.participants().values())

    def knows(self, other: Members, leaf: int) -> bool:
        """Whether who is at a leaf in another state of this room is a member in this one: by its signature key."""
        key = other._signature_key(leaf)
        return any(key == known for _, known in self._group.credentials().values())

    def _read(
        self, credentials: Iterable[tuple[int, tuple[bytes, bytes]]]
    ) -> Iterator[tuple[int, LeafIdentity, bytes]]:
        """Leaf, identity and signature key, of every member whose credential parses."""
        for leaf, (identity, key) in credentials:
            try:
                yield leaf, LeafIdentity.from_bytes(identity), key
            except ParseError as error:
                self.problems.setdefault(leaf, f"the credential is malformed: {error}")

    def who(
        self, trust: TrustAnchors, now: float, progress: Callable[[int, int], None] | None = None
    ) -> list[Whois]:
        """Every member, resolved as far as the room's policy and their credentials allow.

        `progress` is told after each of them how many are done, and of how many.
        """
        credentials = self._group.credentials()
        known = list(credentials)
        found: list[Whois] = []
        # Parsing and elliptic curves push each other out of a processor's caches, so it is many of the one, then
        # many of the other.
        for start in range(0, len(known), AT_ONCE):
            block = ((leaf, credentials[leaf]) for leaf in known[start : start + AT_ONCE])
            members = list(self._read(block))
            claims = [self._claim(leaf, identity, key, now) for leaf, identity, key in members]
            for (leaf, identity, key), member in zip(
                members, verify_in_step(claims, trust, now), strict=True
            ):
                found.append(self._whois(leaf, identity, key, member, now))
                if progress is not None:
                    progress(len(found), len(known))
        return found

    def whois(self, leaf: int, trust: TrustAnchors, now: float) -> Whois:
        """One member; raises `RoomError` if there is none at this leaf, or its credential is malformed."""
        identity = self._identity(leaf)
        if identity is None:
            raise RoomError(f"no member at leaf {leaf} whose credential can be read")
        key = self._signature_key(leaf)
        [member] = verify_in_step([self._claim(leaf, identity, key, now)], trust, now)
        return self._whois(leaf, identity, key, member, now)

    def resolve(self, leaf: int, trust: TrustAnchors, now: float) -> ResolvedMember:
        """The person behind a leaf; raises a subclass of `IdentityError` that names the leaf, or `RoomError`."""
        node = self._group.leaf(leaf)
        if node is None:
            raise RoomError(f"no member at leaf {leaf}")
        claim = self._claim(leaf, LeafIdentity.from_bytes(node.identity), node.signature_key, now)
        [member] = verify_in_step([claim], trust, now)
        if member is None:
            raise RoomError(f"leaf {leaf} does not show its identity")
        if isinstance(member, IdentityError):
            raise type(member)(f"leaf {leaf}: {member}")
        return member

    def _claim(
        self, leaf: int, identity: LeafIdentity, key: bytes, now: float
    ) -> Claim | IdentityError | None:
        """Who a member says it is, or what is wrong with that; None if the tree does not show it."""
        secret = self._secret(leaf)
        if secret is None:
            return None
        try:
            identity.check_place(key)
            return open_claim(identity.credential, IdentityLinkKey(secret.reveal()), key, now)
        except IdentityError as error:
            return error

    def _signature_key(self, leaf: int) -> bytes:
        """Of the member at this leaf; nobody's if there is none."""
        node = self._group.leaf(leaf)
        return node.signature_key if node else b""

    def _secret(self, leaf: int) -> LeafSecret | None:
        """What the Tree Wrap tree holds for a leaf; None if it is blank there."""
        try:
            return self._tree.secret(leaf)
        except KeyError:
            return None

    def _whois(
        self,
        leaf: int,
        identity: LeafIdentity,
        key: bytes,
        member: ResolvedMember | IdentityError | None,
        now: float,
    ) -> Whois:
        credential = identity.credential
        user, client = credential.user_pseudonym, credential.client_pseudonym
        role = self.policy.policy.role(user)
        if member is None:
            try:
                self._check_hidden(identity, key, now)
            except IdentityError as error:
                member = error
            else:
                return Whois(leaf, user, client, role, Standing.HIDDEN)
        if isinstance(member, IdentityError):
            return Whois(leaf, user, client, role, Standing.UNVERIFIED, why=f"leaf {leaf}: {member}")
        return Whois(leaf, user, client, role, Standing.VERIFIED, member)

    def _check_hidden(self, identity: LeafIdentity, key: bytes, now: float) -> None:
        """A member without a link key in the tree: its pseudonym must hold, and the policy must hide its name."""
        identity.check_place(key)
        identity.credential.verify(now)
        if self.policy.policy.shows_identity(identity.credential.user_pseudonym):
            raise IdentityError("its identity link key is missing, which the policy wants shown")

    def _identity(self, leaf: int) -> LeafIdentity | None:
        """Who is at a leaf; None if there is nobody, or a credential that does not parse."""
        node = self._group.leaf(leaf)
        try:
            return LeafIdentity.from_bytes(node.identity) if node else None
        except ParseError:
            return None

    def _user(self, leaf: int) -> MimiUri | None:
        """The user pseudonym at a leaf; None as for `_identity`."""
        identity = self._identity(leaf)
        return identity.credential.user_pseudonym if identity else None
