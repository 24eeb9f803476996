"""All errors of the package, by what the caller can do about them."""

from __future__ import annotations

from typing import Protocol, Self


class TreeWrapError(Exception):
    """The base of all errors of this package."""


class ParseError(TreeWrapError):
    """Bytes that can't be parsed: `what` says why, `offset` is the byte."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(f"{what}, at byte {offset}")
        self.what = what
        self.offset = offset


class ChangeError(TreeWrapError):
    """Changes that contradict each other or do not fit the tree: fix the call."""


class Salvaged(Protocol):
    """The tree that the valid changes of an update lead to."""

    def commit(self) -> None:
        """Make it the tree's state."""

    def drop(self) -> None:
        """Forget it."""


class StagedError(TreeWrapError):
    """A staged change that was already used, or another one was committed since: stage again."""


class StaleEpoch(TreeWrapError):
    """The offered epoch is not newer than the tree's, or the tree is not of the expected epoch."""

    def __init__(self, what: str, *, tree: int, offered: int) -> None:
        super().__init__(f"{what}: the tree is of epoch {tree}, offered was epoch {offered}")
        self.tree = tree
        self.offered = offered


class StaleTree(TreeWrapError):
    """An update made for another tree: fetch the current one, then stage again."""


class WrongEpochSecret(TreeWrapError):
    """The public tree is the expected one, but its root does not open: the epoch secret is wrong."""


class StateError(TreeWrapError):
    """A sealed state that does not open: wrong key, or damaged bytes."""


class NodeError(TreeWrapError):
    """A node that does not open: swapped, stale, truncated or rolled back. A member repairs it with `Repair`."""

    def __init__(self, level: int, index: int, why: str) -> None:
        super().__init__(f"node (level {level}, index {index}): {why}")
        self.level = level
        self.index = index


class FollowError(TreeWrapError):
    """An authentic update that is wrong. `staged`, if not None, is the tree that its valid changes lead to.

    Every member computes the same tree. Commit it, then let one member stage a `Rebuild`: the hub's tree is wrong.
    """

    def __init__(self, what: str, staged: Salvaged | None = None) -> None:
        super().__init__(what)
        self.staged = staged

    def with_staged(self, staged: Salvaged) -> Self:
        """Attach the tree that the valid changes lead to. Return the error."""
        self.staged = staged
        return self


class WrapError(FollowError):
    """A wrapped secret that does not open: its sender wrapped it wrongly. In `staged`, its leaf is blank."""


class LinkError(FollowError):
    """A join link that is unknown, expired, used up or unsigned, or whose seal does not open."""


class TreeHashMismatch(FollowError):
    """The computed tree hash is not the expected one."""

    def __init__(self, *, expected: bytes, computed: bytes, staged: Salvaged | None = None) -> None:
        super().__init__(f"tree hash: expected {expected.hex()}, computed {computed.hex()}", staged)
        self.expected = expected
        self.computed = computed


class ConfirmationError(TreeWrapError):
    """A wrong confirmation tag; `differs` says what was changed: "tree hash" or "changes"."""

    def __init__(self, differs: str) -> None:
        super().__init__(
            f"confirmation tag: the {differs} differ from what was confirmed under this epoch's secret"
        )
        self.differs = differs


class UpdateRefused(TreeWrapError):
    """An update of another suite or epoch, or whose nodes are not exactly those that its changes touch."""


class DeferredError(TreeWrapError):
    """A deferred leaf that can't be queued, or that an update failed to answer."""
