"""What a commit must do to the Tree Wrap tree. Hub and members check an update by the same rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mimi_mmr.errors import TreeMismatch
from mimi_mmr.protocol.room.policy import RoomPolicy
from mimi_mmr.uris import MimiUri
from treewrap import ChangeKind, MemberUpdate, PublicTree, StagedPublic, TreeUpdate, TreeWrapError


def expected_changes(
    policy: RoomPolicy, removed: Iterable[int], added: Iterable[tuple[int, MimiUri]]
) -> dict[int, ChangeKind]:
    """Return the net effect in MLS order, of leaves `removed` and of leaves `added` with their user pseudonyms.

    A Remove blanks its leaf; an Add sets its leaf, or leaves it blank where the policy hides names: the policy that
    comes with the same commit, if it brings one.
    """
    expected = dict.fromkeys(removed, ChangeKind.BLANK)
    expected |= {leaf: ChangeKind.SET for leaf, user in added if policy.shows_identity(user)}
    return expected


def wrong_leaves(
    found: Mapping[int, ChangeKind], expected: Mapping[int, ChangeKind], committer: int
) -> list[int]:
    """List the leaves that an update changes otherwise than expected; the committer may change its own."""
    both = found.keys() | expected.keys()
    return sorted(leaf for leaf in both - {committer} if found.get(leaf) != expected.get(leaf))


def check_member_update(sent: bytes | None, update: TreeUpdate) -> None:
    """Refuse a member update that is not the tree update's, as far as a hub can read it: `TreeMismatch`."""
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
    """Refuse a tree sealed anew as a whole that is not the one there was, with the named changes.

    An admin may leave out leaves, those whose secret the members never got; their owners set them again. Raises
    `TreeMismatch`. Node by node the tree checks this itself; a whole one it takes as it comes.
    """
    after = set(staged.occupied)
    changes = dict(update.changes)
    wanted = set(tree.occupied) - changes.keys()
    wanted |= {leaf for leaf, kind in changes.items() if kind is ChangeKind.SET}
    if after - wanted or (wanted - after and not may_drop):
        raise TreeMismatch(f"the rebuilt tree does not match the commit at leaf {min(wanted ^ after)}")
