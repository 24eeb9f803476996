"""What can go wrong, sorted by what the caller can do about it."""

from __future__ import annotations

from typing import Protocol, Self


class TreeWrapError(Exception):
    """Anything this package refuses."""


class ParseError(TreeWrapError):
    """Bytes that are not what they should be: `what` was expected at byte `offset`."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(f"{what}, at byte {offset}")
        self.what = what
        self.offset = offset


class ChangeError(TreeWrapError):
    """The changes asked for make no sense together, or not for this tree: fix the call."""


class Salvaged(Protocol):
    """A tree to go on with: what the sound changes of an update lead to."""

    def commit(self) -> None:
        """Make it the tree's state."""

    def drop(self) -> None:
        """Forget it."""


class StagedError(TreeWrapError):
    """A staged change was used twice, or another one was committed before it: stage again."""


class StaleEpoch(TreeWrapError):
    """The epoch offered is not newer than the tree's, or the tree is not of the epoch expected."""

    def __init__(self, what: str, *, tree: int, offered: int) -> None:
        super().__init__(f"{what}: the tree is of epoch {tree}, offered was epoch {offered}")
        self.tree = tree
        self.offered = offered


class StaleTree(TreeWrapError):
    """An update was made on top of another tree than the one held: fetch, then stage again."""


class WrongEpochSecret(TreeWrapError):
    """The public tree is the one expected, and yet its root does not open: the epoch secret is wrong."""


class StateError(TreeWrapError):
    """A sealed state that does not open: another key, or damaged bytes."""


class NodeError(TreeWrapError):
    """A node does not open: swapped, stale, truncated or rolled back. Have it repaired, by `Repair`."""

    def __init__(self, level: int, index: int, why: str) -> None:
        super().__init__(f"node (level {level}, index {index}): {why}")
        self.level = level
        self.index = index


class FollowError(TreeWrapError):
    """An authentic update that is wrong. `staged`, if there, is the tree its sound changes lead to.

    Every member computes the same one: commit it, stage a `Rebuild`, since the hub's copy is the wrong one.
    """

    def __init__(self, what: str, staged: Salvaged | None = None) -> None:
        super().__init__(what)
        self.staged = staged

    def with_staged(self, staged: Salvaged) -> Self:
        """Attach the tree that the sound changes lead to."""
        self.staged = staged
        return self


class WrapError(FollowError):
    """A wrapped secret does not open: its sender wrapped it wrongly. In `staged` its leaf is blank."""


class LinkError(FollowError):
    """A join link that is unknown, expired, used up, unsigned, or whose seal does not open."""


class TreeHashMismatch(FollowError):
    """The tree computed is not the tree named."""

    def __init__(self, *, expected: bytes, computed: bytes, staged: Salvaged | None = None) -> None:
        super().__init__(f"tree hash: expected {expected.hex()}, computed {computed.hex()}", staged)
        self.expected = expected
        self.computed = computed


class ConfirmationError(TreeWrapError):
    """The confirmation tag does not fit; `differs` is "tree hash" or "changes"."""

    def __init__(self, differs: str) -> None:
        super().__init__(
            f"confirmation tag: the {differs} differ from what was confirmed under this epoch's secret"
        )
        self.differs = differs


class UpdateRefused(TreeWrapError):
    """An update whose nodes are not exactly those its changes touch, in the sizes they must have."""


class DeferredError(TreeWrapError):
    """A deferred leaf that can't be queued, or that an update should have answered and did not."""
