"""The public ratchet tree that a hub tracks, and what commits do to it (RFC 9420, sections 7 and 12.4.2)."""

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
    """The tree of one epoch. Only `TreeChange.commit` moves it to the next."""

    __slots__ = ()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a whole `ratchet_tree` extension, of at most 256 MiB, every node of it.

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
        """Make a tree of stored rows, by node index; a leaf that is malformed shows when it is asked for."""
        return cls(rows)

    @classmethod
    def from_engine(cls, data: bytes) -> Self:
        """Cut a `ratchet_tree` extension that one's own engine made into rows, without reading them."""
        return cls(split_tree(data))

    def verify(self, group_id: bytes) -> None:
        """Check a tree that somebody supplied: every leaf's signature, every key and parent hash.

        Raises `SignatureRejected` or `InvalidCommit`, naming the node. Source: RFC 9420, section 12.4.3.1,
        but for what needs a clock (lifetimes) or the GroupInfo (the tree hash).
        """
        validate(self, group_id)

    def apply(self, commit: PublicCommit, group_id: bytes | None = None) -> TreeChange:
        """Work out what a commit makes of the tree, which stays as it is until `TreeChange.commit()`.

        Raises `UnknownSender`, `InvalidCommit` or `SignatureRejected`; a commit for a group other than
        `group_id`, if that is given, is refused too. What only members can check (the commit's own signature,
        its tags, the path secrets) is left to them. Source: RFC 9420, sections 7.3 to 7.9 and 12.4.2.
        """
        return stage(self, commit, group_id)
