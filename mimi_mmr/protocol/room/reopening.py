"""Who may have a commit undone that members can't process. Hub and members apply this one rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mimi_mmr.errors import NotAllowed
from mimi_mmr.protocol.room.policy import Role, RoomPolicy
from mimi_mmr.uris import MimiUri


@dataclass(frozen=True, slots=True)
class Roster:
    """A room's members in one epoch: (signature key, user pseudonym) of each leaf, and the policy."""

    leaves: frozenset[tuple[bytes, MimiUri]]
    policy: RoomPolicy

    @property
    def users(self) -> frozenset[MimiUri]:
        """The user pseudonyms that have a leaf."""
        return frozenset(user for _, user in self.leaves)

    def has_admin(self, user: MimiUri) -> bool:
        """Return whether a user pseudonym has a leaf, and the role ADMIN."""
        return user in self.users and self.policy.role(user) is Role.ADMIN


def users_that_count(before: Roster, after: Roster, committer: MimiUri | None) -> frozenset[MimiUri]:
    """Return the user pseudonyms whose reports about a commit count.

    They are in the room before and after it, with the same role and the same leaves, and did not make it.
    `committer` is None if it is not known.
    """
    changed = {user for _, user in before.leaves ^ after.leaves}
    staying = (before.users & after.users) - changed - {committer}
    return frozenset(user for user in staying if before.policy.role(user) is after.policy.role(user))


def check_reopening(
    before: Roster,
    after: Roster,
    *,
    committer: MimiUri | None,
    actor: MimiUri,
    reporters: Iterable[MimiUri],
) -> None:
    """Check that `actor` may have the commit between two rosters undone; raise `NotAllowed`.

    The actor is an admin before and after the commit. Of the users whose reports count, at least one other than the
    actor has reported that the commit can't be processed, or there is no such user.
    """
    if not (before.has_admin(actor) and after.has_admin(actor)):
        raise NotAllowed("only somebody who is an admin both before and after a commit can have it undone")
    others = users_that_count(before, after, committer) - {actor}
    if others and others.isdisjoint(reporters):
        raise NotAllowed(
            "no other member whose report counts has reported the last commit: the reports of its committer, and "
            "of those whom it adds, removes or gives another role, do not count"
        )
