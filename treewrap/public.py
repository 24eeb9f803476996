"""The hub's tree: ciphertexts and occupancy, no secret. It checks every update before it keeps anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import zip_longest

from treewrap.changes import ChangeKind
from treewrap.codec import Reader, Source
from treewrap.errors import DeferredError, ParseError, StagedError, StaleEpoch, StaleTree, UpdateRefused
from treewrap.light.paths import PathQuery, Paths, path_node, select
from treewrap.links.deferred import DeferredLeaf
from treewrap.links.records import LinkSeal
from treewrap.nodes import Forest
from treewrap.root import RootHeader
from treewrap.rows import load_rows
from treewrap.snapshot import HubHeader
from treewrap.suite import GroupContext, Suite
from treewrap.verify import Accepted, verify_rebuilt, verify_update
from treewrap.wire import TreeUpdate


class StagedPublic:
    """A checked change of the hub's tree: store its rows, then commit it; or drop it."""

    __slots__ = ("_accepted", "_hub", "_tree", "_version", "tree_hash")

    def __init__(self, tree: PublicTree, hub: HubHeader, accepted: Accepted | None, tree_hash: bytes) -> None:
        self._tree: PublicTree | None = tree
        self._version = tree._version
        self._hub = hub
        self._accepted = accepted
        self.tree_hash = tree_hash

    @property
    def epoch(self) -> int:
        """The epoch of the tree it leads to."""
        return self._hub.header.epoch

    @property
    def header(self) -> bytes:
        """The header row to store: root header, seals and queue."""
        return self._hub.to_bytes()

    @property
    def rows(self) -> Mapping[tuple[int, int], bytes | None]:
        """The node rows to store, by level and index; None for those to delete."""
        if self._accepted is None:
            return {}
        accepted = self._accepted
        rows: dict[tuple[int, int], bytes | None] = dict.fromkeys(accepted.vanished)
        for level, index, head, packed, _, tag in accepted.written:
            extra = accepted.extra if level == accepted.header.height else b""
            rows[level, index] = b"".join((head, packed, extra, tag))
        return rows

    def commit(self) -> None:
        """Make it the tree's state. Raises StagedError if it was used, or another one was committed since."""
        if self._tree is None:
            raise StagedError("staged change: it was already committed or dropped")
        self._tree._take_over(self._hub, self._accepted, self._version)
        self._tree = None

    def drop(self) -> None:
        """Forget it; the tree stays as it is. Doing so twice, or after a commit, is no error."""
        self._tree = None


class PublicTree:
    """One room's tree on the hub: about 38 bytes per member at arity 16, and nothing secret in it."""

    __slots__ = ("_extra", "_forest", "_hub", "_tree_hash", "_version")

    def __init__(self, hub: HubHeader, forest: Forest, extra: bytes, tree_hash: bytes) -> None:
        self._hub = hub
        self._forest = forest
        self._extra = extra
        self._tree_hash = tree_hash
        self._version = 0

    @classmethod
    def create(cls, suite: Suite, group_id: bytes) -> PublicTree:
        """Start an empty tree. Raises ValueError unless the group id is of 1 to 255 bytes."""
        context = GroupContext(suite, group_id)
        header = RootHeader.fresh(suite)
        tree_hash = context.tree_hash(header.to_bytes(), b"")
        return cls(HubHeader(context, header), Forest(suite.bitmap_size, tags=True), b"", tree_hash)

    @classmethod
    def from_bytes(cls, content: bytes | Source) -> PublicTree:
        """Read what `to_bytes` made, or a stream of it. Raises ParseError."""
        reader = Reader(content)
        hub = HubHeader.read(reader)
        tree = cls.create(hub.context.suite, hub.context.group_id)
        if hub.header.height:
            loaded = load_rows(reader, hub.context, hub.header, None)
            tree = cls(hub, loaded.forest, loaded.extra, loaded.tree_hash)
        elif hub.seals or hub.deferred:
            raise reader.fail("public tree: nothing sealed, and yet seals or a queue")
        reader.end("public tree")
        return tree

    @classmethod
    def from_rows(
        cls, suite: Suite, group_id: bytes, header: bytes, rows: Mapping[tuple[int, int], bytes]
    ) -> PublicTree:
        """Read what a store holds: the header row, and every node's row by level and index.

        Raises ParseError, also if a row is missing, left over, or of another group or suite.
        """
        top_down = sorted(rows, key=lambda place: (-place[0], place[1]))
        tree = cls.from_bytes(header + b"".join(rows[place] for place in top_down))
        if (tree.suite, tree.group_id) != (suite, group_id):
            raise ParseError(f"header row: of group {tree.group_id.hex()} and {tree.suite}", 0)
        for place, expected in zip_longest(top_down, tree._forest.top_down()):
            if expected is None or place != expected[0]:
                raise ParseError(f"rows: expected {expected and tuple(expected[0])}, got {place}", 0)
        return tree

    def to_bytes(self) -> bytes:
        """Encode the whole tree, for a joiner to download: the header row, then rows from the root down."""
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """Give the same as `to_bytes` row by row, for a response that is streamed."""
        yield self.header
        for (level, _), node in self._forest.top_down():
            extra = self._extra if level == self.height else b""
            yield node.head + node.packed + extra + node.tag

    @property
    def header(self) -> bytes:
        """The header row as it is to be stored now."""
        return self._hub.to_bytes()

    @property
    def suite(self) -> Suite:
        """The suite the tree was created with."""
        return self._hub.context.suite

    @property
    def group_id(self) -> bytes:
        """The MLS group it belongs to."""
        return self._hub.context.group_id

    @property
    def epoch(self) -> int:
        """The epoch of the last update; -1 before the first."""
        return self._hub.header.epoch if self._hub.header.height else -1

    @property
    def height(self) -> int:
        """How many levels of nodes there are; 0 before the first update."""
        return self._hub.header.height

    @property
    def tree_hash(self) -> bytes:
        """The hash that members, hub and joiners compare, 32 bytes."""
        return self._tree_hash

    @property
    def occupied(self) -> list[int]:
        """The occupied leaves, in order."""
        return list(self._forest.leaves(self.suite.id))

    @property
    def seals(self) -> tuple[LinkSeal, ...]:
        """The root key of this very tree, sealed to each live link."""
        return self._hub.seals

    @property
    def deferred(self) -> tuple[DeferredLeaf, ...]:
        """The deferred leaves that the next member's commit must answer, by leaf."""
        return self._hub.deferred

    def paths(self, query: PathQuery | bytes) -> bytes:
        """Answer a light tree's query, in the encoding of `Paths`. Raises ParseError, StaleTree."""
        if isinstance(query, bytes):
            query = PathQuery.from_bytes(query)
        if query.tree_hash != self._tree_hash:
            raise StaleTree(f"query: for tree {query.tree_hash.hex()}, this is {self._tree_hash.hex()}")
        if not self.height:
            raise StaleTree("query: nothing was ever sealed in this tree")
        nodes = []
        for ref in select(self._forest, self.suite.id, query):
            extra = self._extra if ref.level == self.height else b""
            nodes.append(path_node(ref, self._forest.read(ref), extra))
        return Paths(self._hub.header, tuple(nodes)).to_bytes()

    def stage(self, update: TreeUpdate | bytes) -> StagedPublic:
        """Check an update, node by node, without keeping anything of it yet.

        Raises ParseError; StaleEpoch and StaleTree for an update that lost a race; DeferredError for one that
        leaves a deferred leaf unanswered; UpdateRefused and TreeHashMismatch for one that is wrong.
        """
        if isinstance(update, bytes):
            update = TreeUpdate.from_bytes(update)
        self._check_base(update)
        self._check_answers(update)
        context, forest = self._hub.context, self._forest
        if update.rebuilt:
            accepted = verify_rebuilt(context, forest, update)
        else:
            accepted = verify_update(context, forest, self.height, update)
        hub = HubHeader(context, update.header, update.seals)
        return StagedPublic(self, hub, accepted, accepted.tree_hash)

    def stage_deferred(self, deferred: DeferredLeaf | bytes) -> StagedPublic:
        """Queue a joiner's leaf secret until the next update. Raises ParseError, DeferredError."""
        if isinstance(deferred, bytes):
            deferred = DeferredLeaf.from_bytes(deferred)
        leaf = deferred.leaf
        queue = {queued.leaf: queued for queued in self.deferred}
        bits = self.suite.id
        if self._forest.bitmap(1, leaf >> bits) >> (leaf & (self.suite.arity - 1)) & 1 or leaf in queue:
            raise DeferredError(f"deferred leaf {leaf}: it is occupied, or in the queue already")
        if deferred.epoch <= self.epoch:
            raise DeferredError(
                f"deferred leaf {leaf}: of epoch {deferred.epoch}, the tree's is {self.epoch}"
            )
        queue[leaf] = deferred
        hub = replace(self._hub, deferred=tuple(queue[leaf] for leaf in sorted(queue)))
        return StagedPublic(self, hub, None, self._tree_hash)

    def _check_base(self, update: TreeUpdate) -> None:
        if update.header.suite != self.suite:
            raise UpdateRefused(f"suite: the tree's is {self.suite}, the update's {update.header.suite}")
        if update.epoch <= self.epoch:
            raise StaleEpoch("update", tree=self.epoch, offered=update.epoch)
        # A repair is for when hub and members do not hold the same; the new tree hash decides then.
        repairs = update.repaired or update.rebuilt
        if update.previous_tree_hash != self._tree_hash and not repairs:
            raise StaleTree(
                f"update: made for tree {update.previous_tree_hash.hex()}, this is {self._tree_hash.hex()}"
            )

    def _check_answers(self, update: TreeUpdate) -> None:
        answered = dict(update.changes)
        queued = {deferred.leaf for deferred in self.deferred}
        for leaf in queued - answered.keys():
            raise DeferredError(f"deferred leaf {leaf}: the update must set, reject or blank it")
        for leaf, kind in update.changes:
            if kind is ChangeKind.REJECT and leaf not in queued:
                raise UpdateRefused(f"leaf {leaf}: rejected, but not in the queue")

    def _take_over(self, hub: HubHeader, accepted: Accepted | None, version: int) -> None:
        if version != self._version:
            raise StagedError("staged change: another one was committed since it was staged")
        if accepted is not None:
            self._forest.update(hub.header.height, accepted.written, accepted.vanished)
            self._extra = accepted.extra
            self._tree_hash = accepted.tree_hash
        self._hub = hub
        self._version += 1
