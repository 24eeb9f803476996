"""The light tree: it holds the root key alone and fetches the paths that it needs."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Container, Iterable

from treewrap.changes import Change, ChangeSet
from treewrap.errors import ChangeError, ConfirmationError, StagedError, StateError
from treewrap.geometry import NodeRef
from treewrap.light.paths import OpenedPaths, PathQuery, Paths, open_paths
from treewrap.links.rules import Verifier
from treewrap.member import WrapTree
from treewrap.nodes import Forest
from treewrap.outcome import Before, Outcome, Staged
from treewrap.root import RootExtra, RootHeader
from treewrap.secret import EpochSecret, LeafSecret, Rng, RootKey
from treewrap.stage import StagedCommit, stage
from treewrap.state import State, open_state, seal_state
from treewrap.suite import GroupContext, Suite, UpdateKeys, pack_place
from treewrap.wire import MemberUpdate

Fetch = Callable[[bytes], bytes]
"""Sends a `PathQuery` in bytes to the hub and returns its answer."""
AsyncFetch = Callable[[bytes], Awaitable[bytes]]


class LightTree:
    """A member's tree for a small device: a root key and a tree hash, whatever the size of the room.

    Reading a leaf costs one path, about k log_k n times 64 bytes; `fetched` counts the bytes. It checks all that it
    fetches against its tree hash, commits as a full tree does, and follows updates without fetching.
    """

    __slots__ = ("_context", "_header", "_root_key", "_tree_hash", "_version", "fetched")

    def __init__(
        self, context: GroupContext, header: RootHeader, root_key: RootKey, tree_hash: bytes
    ) -> None:
        self._context = context
        self._header = header
        self._root_key = root_key
        self._tree_hash = tree_hash
        self._version = 0
        self.fetched = 0

    @classmethod
    def of(cls, tree: WrapTree) -> LightTree:
        """Return the light form of a full tree. Raises ChangeError before the first update."""
        state = tree.state()
        if state.root_key is None:
            raise ChangeError("light tree: nothing was ever sealed")
        return cls(state.context, state.header, state.root_key, state.tree_hash)

    @classmethod
    def open(
        cls, group_id: bytes, paths: bytes, epoch_secret: EpochSecret, expected_tree_hash: bytes
    ) -> LightTree:
        """Open a tree as a member of its epoch, from the hub's answer to any query, even an empty one.

        Raises ParseError, TreeHashMismatch, WrongEpochSecret, NodeError.
        """
        header = Paths.from_bytes(paths).header
        context = GroupContext(header.suite, group_id)
        key = UpdateKeys(context, epoch_secret, header.salt).node(pack_place(header.height, 0))
        tree = cls(context, header, RootKey(key), expected_tree_hash)
        tree.read(paths)
        return tree

    @property
    def suite(self) -> Suite:
        """The suite the tree was created with."""
        return self._context.suite

    @property
    def group_id(self) -> bytes:
        """The MLS group it belongs to."""
        return self._context.group_id

    @property
    def epoch(self) -> int:
        """The epoch of the last update."""
        return self._header.epoch

    @property
    def height(self) -> int:
        """How many levels of nodes there are."""
        return self._header.height

    @property
    def tree_hash(self) -> bytes:
        """The hash that members, hub and joiners compare, 32 bytes."""
        return self._tree_hash

    def seal_state(self, key: bytes, rng: Rng = secrets.token_bytes) -> bytes:
        """Encrypt what it holds for storage, under a key of 32 bytes. Raises ValueError for other sizes."""
        nodes = Forest(self.suite.bitmap_size, sealed=False)
        nodes.grow(self.height)
        state = State(self._context, self._header, self._root_key, RootExtra(), nodes, self._tree_hash)
        return seal_state(state, b"light", key, rng)

    @classmethod
    def open_state(cls, sealed: bytes, key: bytes) -> LightTree:
        """Decrypt what `seal_state` returned. Raises StateError for another key or damaged bytes."""
        state = open_state(sealed, b"light", key)
        if state.root_key is None:
            raise StateError("state: of a tree in which nothing was ever sealed")
        return cls(state.context, state.header, state.root_key, state.tree_hash)

    def query(self, leaves: Iterable[int] = (), subtrees: Iterable[NodeRef] = ()) -> PathQuery:
        """Return the query for some leaves' paths and some whole subtrees."""
        return PathQuery(self._tree_hash, tuple(sorted(set(leaves))), tuple(sorted(set(subtrees))))

    def query_for(self, changes: Iterable[Change]) -> PathQuery:
        """Return the query for all nodes that staging these changes needs. Raises ChangeError."""
        wanted = ChangeSet.collect(changes)
        if wanted.rebuilt:
            raise ChangeError("rebuild: a light tree does not hold all nodes")
        above = {ref.index << self._context.bits * ref.level for ref in wanted.repaired}
        # The new root of a tree that shrinks lies on the leftmost path.
        return self.query({0, *wanted.leaves, *above})

    def read(self, paths: bytes) -> OpenedPaths:
        """Check and open the hub's answer.

        Raises ParseError; TreeHashMismatch for another tree, NodeError for a node that is not this tree's,
        WrongEpochSecret for a root that is right and does not open.
        """
        self.fetched += len(paths)
        return open_paths(self._context, Paths.from_bytes(paths), self._root_key, self._tree_hash)

    def resolve(self, leaves: Iterable[int], fetch: Fetch) -> dict[int, LeafSecret]:
        """Fetch and return some leaves' secrets, without the blank leaves. Raises what `read` raises."""
        wanted = set(leaves)
        return _secrets(self.read(fetch(self.query(wanted).to_bytes())), wanted)

    async def resolve_async(self, leaves: Iterable[int], fetch: AsyncFetch) -> dict[int, LeafSecret]:
        """Do the same as `resolve` with a coroutine."""
        wanted = set(leaves)
        return _secrets(self.read(await fetch(self.query(wanted).to_bytes())), wanted)

    def stage(
        self,
        changes: Iterable[Change],
        paths: bytes,
        *,
        epoch: int,
        epoch_secret: EpochSecret,
        rng: Rng = secrets.token_bytes,
        verify: Verifier | None = None,
        now: int | None = None,
        renewed: Container[str] | None = None,
    ) -> StagedCommit:
        """Compute a commit's change as a full tree does, from the hub's answer to `query_for(changes)`.

        Raises what `WrapTree.stage` and `read` raise.
        """
        opened = self.read(paths)
        before = Before(
            self, self._version, self._context, self._header, self._tree_hash, opened.extra, opened
        )
        return stage(
            before,
            changes,
            epoch=epoch,
            epoch_secret=epoch_secret,
            rng=rng,
            verify=verify,
            now=now,
            renewed=renewed,
        )

    def follow(
        self, update: MemberUpdate | bytes, epoch_secret: EpochSecret, *, epoch: int | None = None
    ) -> Staged:
        """Compute the change of another member's update without fetching anything; commit it afterwards.

        The tree trusts the update's tree hash, since the tag proves that a member of the new epoch sent it. All
        paths fetched later are checked against that hash. With `epoch`, an update of any other epoch is refused.

        Raises ParseError, StaleEpoch, UpdateRefused, ConfirmationError.
        """
        if isinstance(update, bytes):
            update = MemberUpdate.from_bytes(update)
        self._header.check_next(update.header, epoch)
        keys = UpdateKeys(self._context, epoch_secret, update.header.salt)
        if not hmac.compare_digest(keys.confirm(update.confirmed()), update.tag):
            raise ConfirmationError("tree hash or changes")
        root_key = RootKey(keys.node(pack_place(update.header.height, 0)))
        outcome = Outcome(update.header, root_key, RootExtra(), [], (), update.tree_hash)
        return Staged(self, outcome, self._version)

    def _take_over(self, outcome: Outcome, version: int) -> None:
        if version != self._version:
            raise StagedError("staged change: another one was committed since it was staged")
        self._header = outcome.header
        self._root_key = outcome.root_key
        self._tree_hash = outcome.tree_hash
        self._version += 1


def _secrets(opened: OpenedPaths, wanted: Iterable[int]) -> dict[int, LeafSecret]:
    occupied = set(opened.leaves())
    missing = (leaf for leaf in wanted if leaf not in occupied)
    for leaf in missing:
        opened.bitmap(1, leaf >> opened.bits)  # raises if the hub left a path out
    return {leaf: opened.secret(leaf) for leaf in sorted(occupied.intersection(wanted))}
