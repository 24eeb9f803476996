"""The changes that a commit must make in the Tree Wrap tree. Hub and members check updates by the same rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mimi_mmr.errors import TreeMismatch
from mimi_mmr.protocol.room.policy import RoomPolicy
from mimi_mmr.uris import MimiUri
from treewrap import ChangeKind, MemberUpdate, PublicTree, StagedPublic, TreeUpdate, TreeWrapError


def expected_changes(
    policy: RoomPolicy, removed: Iterable[int], added: Iterable[tuple[int, MimiUri]]
) -> dict[int, ChangeKind]:
    """Return the net changes, in MLS order, of the leaves `removed` and `added` (with their user pseudonyms).

    A Remove blanks its leaf. An Add sets its leaf, or leaves it blank if the policy hides identities. A new policy
    in the same commit decides this.
    """
    expected = dict.fromkeys(removed, ChangeKind.BLANK)
    expected |= {leaf: ChangeKind.SET for leaf, user in added if policy.shows_identity(user)}
    return expected


def wrong_leaves(
    found: Mapping[int, ChangeKind], expected: Mapping[int, ChangeKind], committer: int
) -> list[int]:
    """List the leaves whose change differs from the expected one; the committer may change its own leaf."""
    both = found.keys() | expected.keys()
    return sorted(leaf for leaf in both - {committer} if found.get(leaf) != expected.get(leaf))


def check_member_update(sent: bytes | None, update: TreeUpdate) -> None:
    """Check a member update against the tree update, as far as a hub can read it; raise `TreeMismatch`."""
    if sent is None:
        raise TreeMismatch("a Tree Wrap update comes with the members' update")
    try:
        members = MemberUpdate.from_bytes(sent)
    except TreeWrapError as error:
        raise TreeMismatch(f"the members' update is malformed: {error}") from None
    sent_changes = (members.header, [(leaf, kind) for leaf, kind, _ in members.leaves], members.tree_hash)
    wanted = (update.header, list(update.changes), update.tree_hash)
    if sent_changes != wanted or (members.repaired, members.rebuilt) != (
        update.repaired,
        bool(update.rebuilt),
    ):
        raise TreeMismatch("the members' update has other changes than the hub's")


def check_rebuilt(tree: PublicTree, update: TreeUpdate, staged: StagedPublic, *, may_drop: bool) -> None:
    """Check that a rebuilt tree is the old tree with the named changes; raise `TreeMismatch`.

    With `may_drop`, an admin may leave out leaves whose secret the members never got; their owners set them again.
    `treewrap` itself checks single nodes against the old tree, but not a rebuilt tree.
    """
    after = set(staged.occupied)
    changes = dict(update.changes)
    wanted = set(tree.occupied) - changes.keys()
    wanted |= {leaf for leaf, kind in changes.items() if kind is ChangeKind.SET}
    if after - wanted or (wanted - after and not may_drop):
        raise TreeMismatch(f"the rebuilt tree does not match the commit at leaf {min(wanted ^ after)}")
