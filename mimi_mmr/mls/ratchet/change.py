"""The effect of one commit on a ratchet tree (RFC 9420, sections 7.5 to 7.9, 12.1 and 12.4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

from mimi_mmr.errors import InvalidCommit, UnknownSender
from mimi_mmr.mls.ratchet import treemath
from mimi_mmr.mls.ratchet.draft import Draft
from mimi_mmr.mls.ratchet.node import parent_hash
from mimi_mmr.mls.ratchet.state import TreeState
from mimi_mmr.mls.wire import (
    Add,
    KeyPackage,
    LeafNode,
    LeafNodeSource,
    PublicCommit,
    Remove,
    UpdatePath,
    verify_key_package,
)


@dataclass(frozen=True, slots=True)
class TreeChange:
    """A commit's effect on the tree, checked and not yet applied.

    `added` is in the order of the proposals. `updated` is the committer's leaf index if the commit has a path, and
    `new_leaf` its new content. `rows` holds exactly the changed nodes, None for one that becomes blank; `size` is
    the number of leaf slots afterwards.

    The caller decides whether `new_leaf` may have another signature key or identity than the old leaf, and checks
    the lifetimes of the added leaves.
    """

    added: tuple[tuple[int, KeyPackage], ...]
    removed: tuple[int, ...]
    updated: int | None
    new_leaf: LeafNode | None
    rows: Mapping[int, bytes | None]
    size: int
    _draft: Draft = field(repr=False)

    def tree_hash(self) -> bytes:
        """Return the tree hash of the next epoch, 32 bytes (RFC 9420, section 7.8)."""
        return self._draft.tree_hash(treemath.root(self.size))

    def commit(self) -> None:
        """Apply the change. Raise `ValueError` if the tree has changed since `apply`."""
        self._draft.merge()


def stage(tree: TreeState, commit: PublicCommit, group_id: bytes | None = None) -> TreeChange:
    """Compute the change that `commit` makes; raise what `RatchetTree.apply` raises."""
    if group_id is not None and commit.group_id != group_id:
        raise InvalidCommit("the commit is for another group")
    if tree.node_bytes(2 * commit.sender) is None:
        raise UnknownSender(f"no member at leaf {commit.sender}, which the commit says it is from")
    draft = Draft(tree)
    removed = _remove(draft, commit)
    added = _add(draft, commit)
    _apply_path(draft, commit, frozenset(leaf for leaf, _ in added))
    draft.check_unique()
    return TreeChange(
        added=added,
        removed=removed,
        updated=commit.sender if commit.path else None,
        new_leaf=commit.path.leaf_node if commit.path else None,
        rows=draft.changed(),
        size=draft.size,
        _draft=draft,
    )


def _remove(draft: Draft, commit: PublicCommit) -> tuple[int, ...]:
    removed = tuple(proposal.leaf for proposal in commit.proposals if isinstance(proposal, Remove))
    for leaf in removed:
        if leaf == commit.sender:
            raise InvalidCommit(f"leaf {leaf} can't remove itself")
        if draft.row(2 * leaf) is None:
            raise InvalidCommit(f"no member at leaf {leaf} to remove")
        draft.blank_leaf(leaf)
    draft.truncate()
    return removed


def _add(draft: Draft, commit: PublicCommit) -> tuple[tuple[int, KeyPackage], ...]:
    added = []
    for proposal in commit.proposals:
        if isinstance(proposal, Add):
            verify_key_package(proposal.key_package)
            added.append((draft.add_leaf(proposal.key_package.leaf_node), proposal.key_package))
    return tuple(added)


def _apply_path(draft: Draft, commit: PublicCommit, added: Set[int]) -> None:
    path = commit.path
    if path is None:
        if not commit.proposals or any(isinstance(proposal, Remove) for proposal in commit.proposals):
            raise InvalidCommit("a commit that is empty or removes members must have a path")
        return
    _check_new_leaf(draft, commit, path.leaf_node)
    filtered = tuple(_filtered_path(draft, commit.sender))
    _check_shape(draft, path, filtered, added)
    _set_path(draft, commit.sender, path, filtered)


def _check_new_leaf(draft: Draft, commit: PublicCommit, leaf: LeafNode) -> None:
    if leaf.source is not LeafNodeSource.COMMIT:
        raise InvalidCommit(f"the path's leaf is from {leaf.source.name}, expected COMMIT")
    old = draft.row(2 * commit.sender)
    if old is not None and leaf.encryption_key == old[2:34]:
        raise InvalidCommit("the path's leaf keeps its encryption key")
    leaf.verify(commit.group_id, commit.sender, by="the path's leaf")


def _filtered_path(draft: Draft, leaf: int) -> Iterator[tuple[int, int]]:
    """List the leaf's filtered direct path: parents whose other child is not empty, with it (section 4.1.2)."""
    node = 2 * leaf
    for parent in treemath.direct_path(leaf, draft.size):
        other = treemath.sibling(node)
        if draft.resolution(other):
            yield parent, other
        node = parent


def _check_shape(
    draft: Draft, path: UpdatePath, filtered: tuple[tuple[int, int], ...], added: Set[int]
) -> None:
    if len(path.nodes) != len(filtered):
        raise InvalidCommit(f"the path has {len(path.nodes)} nodes, expected {len(filtered)}")
    for sent, (node, other) in zip(path.nodes, filtered, strict=True):
        due = sum(1 for below in draft.resolution(other) if below & 1 or below // 2 not in added)
        came = len(sent.encrypted_path_secret)
        if came != due:
            raise InvalidCommit(f"node {node} of the path has {came} encrypted secrets, expected {due}")


def _set_path(draft: Draft, leaf: int, path: UpdatePath, filtered: tuple[tuple[int, int], ...]) -> None:
    for node in treemath.direct_path(leaf, draft.size):
        draft.set_row(node, None)
    above = b""
    for sent, (node, other) in zip(reversed(path.nodes), reversed(filtered), strict=True):
        draft.set_parent(node, sent.encryption_key, above)
        above = parent_hash(sent.encryption_key, above, draft.tree_hash(other))
    if path.leaf_node.parent_hash != above:
        raise InvalidCommit("the path's leaf does not have the parent hash of the path above it")
    draft.set_leaf(leaf, path.leaf_node)
