"""What a commit must do to the Tree Wrap tree: hub and members hold an update to the same rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mimi_mmr.hub.policy import RoomPolicy
from mimi_mmr.uris import MimiUri
from treewrap import ChangeKind


def expected_changes(
    policy: RoomPolicy, removed: Iterable[int], added: Iterable[tuple[int, MimiUri]]
) -> dict[int, ChangeKind]:
    """The net effect in MLS order, for leaves `removed` and for leaves `added` with their user pseudonyms.

    A Remove blanks its leaf; an Add sets its leaf, or leaves it blank where the policy hides names.
    """
    expected = dict.fromkeys(removed, ChangeKind.BLANK)
    expected |= {leaf: ChangeKind.SET for leaf, user in added if policy.shows_identity(user)}
    return expected


def wrong_leaves(
    found: Mapping[int, ChangeKind], expected: Mapping[int, ChangeKind], committer: int
) -> list[int]:
    """Leaves that an update changes otherwise than expected, in order; the committer may change its own."""
    both = found.keys() | expected.keys()
    return sorted(leaf for leaf in both - {committer} if found.get(leaf) != expected.get(leaf))
