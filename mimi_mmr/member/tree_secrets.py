"""The secrets of a room's Tree Wrap tree: the epoch secret from the MLS exporter, the policy's hash in the root."""

from __future__ import annotations

from mimi_mmr.errors import Desynchronised
from mimi_mmr.mls.engine import MlsGroup, StagedCommit
from mimi_mmr.protocol.room.members_only import STATE_SECRET
from mimi_mmr.protocol.room.policy import SignedPolicy
from mimi_mmr.protocol.room.requests import Snapshot
from treewrap import EpochSecret, RoomSecret, SetRoomSecret, TreeWrapError, WrapTree

EXPORTER_LABEL = b"TreeWrap"
POLICY_SECRET = "policy"  # noqa: S105  # the name of a place in the Tree Wrap root, not a password
ROOM_SECRETS = frozenset({POLICY_SECRET, STATE_SECRET})
"""All names that a room uses. A member may put others there; the next commit of another member takes them out."""


def epoch_secret(group: MlsGroup) -> EpochSecret:
    """Export the Tree Wrap secret of the epoch that the group is in."""
    return EpochSecret(group.export_secret(EXPORTER_LABEL, group.group_id, 32))


def staged_secret(mls: StagedCommit, group: MlsGroup) -> EpochSecret:
    """Export the Tree Wrap secret of the epoch that a staged commit begins."""
    return EpochSecret(mls.export_secret(EXPORTER_LABEL, group.group_id, 32))


def policy_hash(tree: WrapTree) -> bytes:
    """Return the hash of the policy that the root names; empty if it names none."""
    try:
        return tree.room_secret(POLICY_SECRET).reveal()
    except (KeyError, TreeWrapError):
        return b""


def strange_names(tree: WrapTree) -> list[str]:
    """Return the names in the root that rooms do not use."""
    return [name for name in tree.room_secrets() if name not in ROOM_SECRETS]


def policy_secret(policy: SignedPolicy) -> SetRoomSecret:
    """Return the change that names this policy in the root."""
    return SetRoomSecret(POLICY_SECRET, RoomSecret(policy.policy.hash))


def open_tree(snapshot: Snapshot, group: MlsGroup, tree_hash: bytes) -> WrapTree:
    """Open the hub's tree of the group's epoch; raise `Desynchronised` if it has another hash."""
    try:
        return WrapTree.open(snapshot.public_tree, epoch_secret(group), tree_hash, epoch=group.epoch)
    except TreeWrapError as error:
        raise Desynchronised(f"the hub's Tree Wrap tree: {error}") from None
