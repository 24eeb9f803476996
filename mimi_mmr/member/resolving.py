"""The resolving of members: the users behind pseudonyms, by the identity link keys in the Tree Wrap tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.crypto.secret import IdentityLinkKey
from mimi_mmr.errors import IdentityError, RoomError
from mimi_mmr.member.local import LocalRoom
from mimi_mmr.member.member_list import ListedMember
from mimi_mmr.member.whois import Standing, Whois
from mimi_mmr.protocol.credentials import Claim, ResolvedMember, open_claim, verify_in_step

AT_ONCE = 256


class Resolver:
    """The part of a room that resolves members, as far as the policy and their credentials allow."""

    def __init__(self, local: LocalRoom) -> None:
        self._local = local

    def who(
        self, trust: TrustAnchors, now: float, progress: Callable[[int, int], None] | None = None
    ) -> list[Whois]:
        """Resolve every member whose credential parses.

        `progress` is called after each member with the number of resolved members and their total.
        """
        members = list(self._local.members.readable.values())
        found: list[Whois] = []
        # Parsing and elliptic curve operations compete for the processor's caches, so they run in separate batches.
        for start in range(0, len(members), AT_ONCE):
            block = members[start : start + AT_ONCE]
            for member, person in zip(block, self._persons(block, trust, now), strict=True):
                found.append(self._whois(member, person, now))
                if progress is not None:
                    progress(len(found), len(members))
        return found

    def whois(self, leaf: int, trust: TrustAnchors, now: float) -> Whois:
        """Resolve one member; raise `RoomError` if there is none at this leaf, or its credential is malformed."""
        member = self._member(leaf)
        [person] = self._persons([member], trust, now)
        return self._whois(member, person, now)

    def resolve(self, leaf: int, trust: TrustAnchors, now: float) -> ResolvedMember:
        """Return the person behind a leaf.

        Raises a subclass of `IdentityError` that names the leaf; `RoomError` if there is none at this leaf, its
        credential is malformed, or the room does not show who it is.
        """
        [person] = self._persons([self._member(leaf)], trust, now)
        if person is None:
            raise RoomError(f"leaf {leaf} does not show its identity")
        if isinstance(person, IdentityError):
            raise type(person)(f"leaf {leaf}: {person}")
        return person

    def _member(self, leaf: int) -> ListedMember:
        member = self._local.members.readable.get(leaf)
        if member is None:
            raise RoomError(f"no member at leaf {leaf} whose credential can be read")
        return member

    def _persons(
        self, members: Sequence[ListedMember], trust: TrustAnchors, now: float
    ) -> list[ResolvedMember | IdentityError | None]:
        """Return the user behind each member, or the error; None if the tree does not show it."""
        return verify_in_step([self._claim(member, now) for member in members], trust, now)

    def _claim(self, member: ListedMember, now: float) -> Claim | IdentityError | None:
        """Return the identity that a member claims, or what is wrong with it; None if the tree does not show it."""
        secret = self._local.link_secret(member.leaf)
        if secret is None:
            return None
        identity, key = member.identity, member.signature_key
        try:
            identity.check_place(key)
            return open_claim(identity.credential, IdentityLinkKey(secret.reveal()), key, now)
        except IdentityError as error:
            return error

    def _whois(
        self, member: ListedMember, person: ResolvedMember | IdentityError | None, now: float
    ) -> Whois:
        leaf, user, client = member.leaf, member.user, member.client
        role = self._local.policy.policy.role(user)
        if person is None:
            try:
                self._check_hidden(member, now)
            except IdentityError as error:
                person = error
            else:
                return Whois(leaf, user, client, role, Standing.HIDDEN)
        if isinstance(person, IdentityError):
            return Whois(leaf, user, client, role, Standing.UNVERIFIED, why=f"leaf {leaf}: {person}")
        return Whois(leaf, user, client, role, Standing.VERIFIED, person)

    def _check_hidden(self, member: ListedMember, now: float) -> None:
        """Check a member without a link key: its pseudonym must be valid, and the policy must hide its identity."""
        member.identity.check_place(member.signature_key)
        member.identity.credential.verify(now)
        if self._local.policy.policy.shows_identity(member.user):
            raise IdentityError("its identity link key is missing, which the policy wants shown")
