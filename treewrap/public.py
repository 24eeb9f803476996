"""The hub's tree: ciphertexts and occupancy, no secret. It checks every update before it stores anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import zip_longest

from treewrap.changes import ChangeKind
from treewrap.codec import Reader, Source
from treewrap.errors import DeferredError, ParseError, StagedError, StaleTree, UpdateRefused
from treewrap.links.deferred import DeferredLeaf
from treewrap.links.records import LinkSeal
from treewrap.nodes import Forest
from treewrap.root import RootHeader
from treewrap.rows import HeaderRow, load_rows
from treewrap.suite import GroupContext, Suite
from treewrap.verify import Accepted, occupied_after, verify_rebuilt, verify_update
from treewrap.wire import LeafChange, TreeUpdate


class StagedPublic:
    """A checked change of the hub's tree: store its header and rows, then commit it; or drop it."""

    __slots__ = ("_accepted", "_changes", "_hub", "_tree", "_version", "tree_hash")

    def __init__(
        self,
        tree: PublicTree,
        hub: HeaderRow,
        accepted: Accepted | None,
        changes: tuple[LeafChange, ...],
        tree_hash: bytes,
    ) -> None:
        self._tree: PublicTree | None = tree
        self._version = tree._version
        self._hub = hub
        self._accepted = accepted
        self._changes = changes
        self.tree_hash = tree_hash

    @property
    def epoch(self) -> int:
        """The epoch of the tree that it leads to."""
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
        rows: dict[tuple[int, int], bytes | None] = dict.fromkeys(self._accepted.vanished)
        for node in self._accepted.nodes:
            rows[node.level, node.index] = node.row
        return rows

    @property
    def occupied(self) -> list[int]:
        """The leaves that are occupied afterwards, in order. Raises StagedError if it was used."""
        tree = self._unused()
        bits = tree.suite.bits
        if self._accepted is not None and self._accepted.forest is not None:
            return list(self._accepted.forest.leaves(bits))
        return sorted(occupied_after(tree.forest, bits, self._changes))

    def commit(self) -> None:
        """Make it the tree's state. Raises StagedError if it was used, or if another one was committed since."""
        self._unused()._take_over(self._hub, self._accepted, self._version)
        self._tree = None

    def drop(self) -> None:
        """Forget it; the tree stays as it is. A second call, or one after a commit, does nothing."""
        self._tree = None

    def _unused(self) -> PublicTree:
        if self._tree is None:
            raise StagedError("staged change: it was already committed or dropped")
        return self._tree


class PublicTree:
    """One room's tree on the hub. It holds nothing secret: about 34 bytes a member at arity 32, in flat buffers."""

    __slots__ = ("_forest", "_hub", "_tree_hash", "_version")

    def __init__(self, hub: HeaderRow, forest: Forest, tree_hash: bytes) -> None:
        self._hub = hub
        self._forest = forest
        self._tree_hash = tree_hash
        self._version = 0

    @classmethod
    def create(cls, suite: Suite, group_id: bytes) -> PublicTree:
        """Create an empty tree. Raises ValueError unless the group id has 1 to 255 bytes."""
        context = GroupContext(suite, group_id)
        header = RootHeader.fresh(suite)
        tree_hash = context.tree_hash(header.to_bytes(), b"")
        return cls(HeaderRow(context, header), Forest(suite.bitmap_size, sealed=True), tree_hash)

    @classmethod
    def from_bytes(cls, content: bytes | Source) -> PublicTree:
        """Read what `to_bytes` returned, or a stream of it. Raises ParseError."""
        reader = Reader(content)
        hub = HeaderRow.read(reader)
        tree = cls.create(hub.context.suite, hub.context.group_id)
        if hub.header.height:
            loaded = load_rows(reader, hub.context, hub.header, None)
            tree = cls(hub, loaded.forest, loaded.tree_hash)
        elif hub.seals or hub.deferred:
            raise reader.fail("public tree: nothing sealed, and yet seals or a queue")
        reader.end("public tree")
        return tree

    @classmethod
    def from_rows(
        cls, suite: Suite, group_id: bytes, header: bytes, rows: Mapping[tuple[int, int], bytes]
    ) -> PublicTree:
        """Read a store: the header row, and every node's row by level and index.

        Raises ParseError, also for a missing row, an extra row, and a header row of another group or suite.
        """
        top_down = sorted(rows, key=lambda place: (-place[0], place[1]))
        tree = cls.from_bytes(header + b"".join(rows[place] for place in top_down))
        if (tree.suite, tree.group_id) != (suite, group_id):
            raise ParseError(f"header row: of group {tree.group_id.hex()} and {tree.suite}", 0)
        for place, node in zip_longest(top_down, tree._forest.top_down()):
            expected = (node.level, node.index) if node else None
            if place != expected:
                raise ParseError(f"rows: expected {expected}, got {place}", 0)
        return tree

    def to_bytes(self) -> bytes:
        """Encode the whole tree for a joiner: the header row, then the nodes' rows from the root down."""
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """Encode the same as `to_bytes` row by row, for a streamed response."""
        yield self.header
        for node in self._forest.top_down():
            yield node.row

    @property
    def header(self) -> bytes:
        """The header row, as it is to be stored."""
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
        return list(self._forest.leaves(self.suite.bits))

    @property
    def root_header(self) -> RootHeader:
        """What a member of the tree's epoch derives the root key from. Internal."""
        return self._hub.header

    @property
    def forest(self) -> Forest:
        """The nodes, to be read only. Internal."""
        return self._forest

    @property
    def seals(self) -> tuple[LinkSeal, ...]:
        """The root key of this tree, sealed to each live link."""
        return self._hub.seals

    @property
    def deferred(self) -> tuple[DeferredLeaf, ...]:
        """The deferred leaves that the next member's commit must answer, by leaf."""
        return self._hub.deferred

    def stage(self, update: TreeUpdate | bytes, *, epoch: int) -> StagedPublic:
        """Check an update, node by node, without storing anything of it yet.

        `epoch` is the MLS epoch that the commit begins; an update of any other epoch is refused.

        Raises ParseError. If another update came first, raises StaleEpoch or StaleTree. If the update leaves a
        deferred leaf unanswered, raises DeferredError. If it is wrong, raises UpdateRefused or TreeHashMismatch.
        """
        if isinstance(update, bytes):
            update = TreeUpdate.from_bytes(update)
        self._hub.header.check_next(update.header, epoch)
        self._check_base(update)
        self._check_answers(update)
        context, forest = self._hub.context, self._forest
        if update.rebuilt:
            accepted = verify_rebuilt(context, forest, update)
        else:
            accepted = verify_update(context, forest, self.height, update)
        hub = HeaderRow(context, update.header, update.seals)
        return StagedPublic(self, hub, accepted, update.changes, accepted.tree_hash)

    def stage_deferred(self, deferred: DeferredLeaf | bytes) -> StagedPublic:
        """Put a joiner's leaf secret into the queue, until the next update. Raises ParseError, DeferredError."""
        if isinstance(deferred, bytes):
            deferred = DeferredLeaf.from_bytes(deferred)
        leaf = deferred.leaf
        queue = {queued.leaf: queued for queued in self.deferred}
        bits = self.suite.bits
        if self._forest.bitmap(1, leaf >> bits) >> (leaf & (self.suite.arity - 1)) & 1 or leaf in queue:
            raise DeferredError(f"deferred leaf {leaf}: it is occupied, or in the queue already")
        if deferred.epoch <= self.epoch:
            raise DeferredError(
                f"deferred leaf {leaf}: of epoch {deferred.epoch}, the tree's is {self.epoch}"
            )
        queue[leaf] = deferred
        hub = replace(self._hub, deferred=tuple(queue[leaf] for leaf in sorted(queue)))
        return StagedPublic(self, hub, None, (), self._tree_hash)

    def stage_without_seals(self, link_ids: Iterable[bytes]) -> StagedPublic:
        """Blank the seals of links that are over; the tree and its hash stay the same. Unknown ids are ignored."""
        ended = frozenset(link_ids)
        hub = replace(self._hub, seals=tuple(seal for seal in self.seals if seal.link_id not in ended))
        return StagedPublic(self, hub, None, (), self._tree_hash)

    def _check_base(self, update: TreeUpdate) -> None:
        # A repair is needed if hub and members hold different trees, so only the new tree hash is compared.
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

    def _take_over(self, hub: HeaderRow, accepted: Accepted | None, version: int) -> None:
        if version != self._version:
            raise StagedError("staged change: another one was committed since it was staged")
        if accepted is not None:
            if accepted.forest is not None:
                self._forest = accepted.forest
            else:
                self._forest.update(hub.header.height, accepted.nodes, accepted.vanished)
            self._tree_hash = accepted.tree_hash
        self._hub = hub
        self._version += 1
