"""The public ratchet tree that a hub tracks, and the effect of commits (RFC 9420, sections 7 and 12.4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from mimi_mmr.mls.ratchet.change import TreeChange, stage
from mimi_mmr.mls.ratchet.node import split_tree
from mimi_mmr.mls.ratchet.state import Leaves, TreeState, index_rows
from mimi_mmr.mls.ratchet.validate import validate
from mimi_mmr.mls.wire import PublicCommit

__all__ = ["Leaves", "RatchetTree", "TreeChange"]


class RatchetTree(TreeState):
    """The tree of one epoch. Only `TreeChange.commit` moves it to the next epoch."""

    __slots__ = ()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse a whole `ratchet_tree` extension, of at most 256 MiB, with every node in it.

        Raises `ParseError`, or `InvalidCommit` if two nodes share a key or two members an identity.
        """
        tree = cls(split_tree(data))
        for node in tree.rows:
            if node & 1:
                tree.parent(node)
            else:
                tree.leaf(node // 2)
        index_rows(tree.rows)
        return tree

    @classmethod
    def from_rows(cls, rows: Mapping[int, bytes]) -> Self:
        """Make a tree from stored rows, by node index; a malformed leaf raises only when it is read."""
        return cls(rows)

    @classmethod
    def from_engine(cls, data: bytes) -> Self:
        """Make a tree from the own engine's `ratchet_tree` extension; split it into rows without parsing them."""
        return cls(split_tree(data))

    def verify(self, group_id: bytes) -> None:
        """Check a tree from another party: every leaf's signature, every key and parent hash.

        Raises `SignatureRejected` or `InvalidCommit`, naming the node. Source: RFC 9420, section 12.4.3.1, except
        the checks that need a clock (lifetimes) or the GroupInfo (the tree hash).
        """
        validate(self, group_id)

    def apply(self, commit: PublicCommit, group_id: bytes | None = None) -> TreeChange:
        """Compute the change that a commit makes; the tree does not change until `TreeChange.commit()`.

        Raises `UnknownSender`, `InvalidCommit` or `SignatureRejected`. If `group_id` is given, a commit for another
        group is refused too. Checks that only members can make (the commit's signature, its tags, the path secrets)
        are left to them. Source: RFC 9420, sections 7.3 to 7.9 and 12.4.2.
        """
        return stage(self, commit, group_id)
