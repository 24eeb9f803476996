"""The full tree: it holds all secrets; it can read, commit and follow."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Container, Iterable, Iterator

from treewrap.changes import Change
from treewrap.codec import Reader, Source
from treewrap.errors import (
    NodeError,
    StagedError,
    StaleEpoch,
    TreeHashMismatch,
    WrongEpochSecret,
)
from treewrap.follow import follow
from treewrap.links.deferred import DeferredLeaf
from treewrap.links.records import LiveLink
from treewrap.links.rules import Verifier
from treewrap.nodes import Forest
from treewrap.outcome import Before, Outcome, Staged
from treewrap.public import PublicTree
from treewrap.root import RootExtra, RootHeader
from treewrap.rows import HeaderRow, load_rows
from treewrap.secret import EpochSecret, LeafSecret, Rng, RoomSecret, RootKey
from treewrap.stage import StagedCommit, stage
from treewrap.state import State, decode_state, encode_state, open_state, seal_state
from treewrap.suite import KEY_SIZE, GroupContext, Suite, UpdateKeys, pack_place, seal
from treewrap.wire import MemberUpdate


class WrapTree:
    """A member's tree, with every secret in it: about 34 bytes a member at arity 32, in flat buffers.

    It does no I/O and is not thread-safe.
    """

    __slots__ = ("_context", "_extra", "_forest", "_header", "_root_key", "_tree_hash", "_version")

    def __init__(
        self,
        context: GroupContext,
        header: RootHeader,
        root_key: RootKey | None,
        extra: RootExtra,
        forest: Forest,
        tree_hash: bytes,
    ) -> None:
        self._context = context
        self._header = header
        self._root_key = root_key
        self._extra = extra
        self._forest = forest
        self._tree_hash = tree_hash
        self._version = 0

    @classmethod
    def create(cls, suite: Suite, group_id: bytes) -> WrapTree:
        """Create an empty tree. Its creator then stages `Set` of its own leaf, in epoch 0.

        Raises ValueError unless the group id has 1 to 255 bytes.
        """
        context = GroupContext(suite, group_id)
        header = RootHeader.fresh(suite)
        forest = Forest(suite.bitmap_size, sealed=False)
        return cls(context, header, None, RootExtra(), forest, context.tree_hash(header.to_bytes(), b""))

    @classmethod
    def open(
        cls,
        public: bytes | Source | PublicTree,
        epoch_secret: EpochSecret,
        expected_tree_hash: bytes,
        *,
        epoch: int | None = None,
    ) -> WrapTree:
        """Open a whole public tree as a member of its epoch.

        `public` may be a file or another stream. The tree is then opened while it is read, and memory never
        holds it twice. With `epoch`, a tree of any other epoch is refused as stale.

        Raises ParseError, StaleEpoch, WrongEpochSecret, TreeHashMismatch, and NodeError for the first
        node that does not open.
        """
        reader = Reader(public.to_bytes() if isinstance(public, PublicTree) else public)
        hub = HeaderRow.read(reader)
        context, header = hub.context, hub.header
        if epoch is not None and header.epoch != epoch:
            raise StaleEpoch("public tree", tree=header.epoch, offered=epoch)
        keys = UpdateKeys(context, epoch_secret, header.salt)
        root_key = RootKey(keys.node(pack_place(header.height, 0)))
        return cls._load(reader, context, header, root_key, expected_tree_hash)

    @classmethod
    def open_with_root_key(
        cls, public: bytes | Source | PublicTree, root_key: RootKey, expected_tree_hash: bytes
    ) -> WrapTree:
        """Open a whole public tree with its root key. Raises what `open` raises.

        Whoever has the root key from a join link's seal uses `open_link` instead, which refuses an expired link.
        """
        reader = Reader(public.to_bytes() if isinstance(public, PublicTree) else public)
        hub = HeaderRow.read(reader)
        return cls._load(reader, hub.context, hub.header, root_key, expected_tree_hash)

    @classmethod
    def _load(
        cls, reader: Reader, context: GroupContext, header: RootHeader, root_key: RootKey, expected: bytes
    ) -> WrapTree:
        if header.height == 0:
            raise reader.fail("public tree: nothing was ever sealed in it")
        loaded = load_rows(reader, context, header, root_key)
        reader.end("public tree")
        if not loaded.root_opens:
            if loaded.tree_hash == expected:
                raise WrongEpochSecret(f"root of epoch {header.epoch}: does not open under this secret")
            raise NodeError(header.height, 0, f"the root is not the expected one of epoch {header.epoch}")
        if loaded.tree_hash != expected:
            raise TreeHashMismatch(expected=expected, computed=loaded.tree_hash)
        extra = RootExtra.from_bytes(loaded.extra)
        return cls(context, header, root_key, extra, loaded.forest, loaded.tree_hash)

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
        """The epoch of the last update; -1 before the first."""
        return self._header.epoch if self._header.height else -1

    @property
    def height(self) -> int:
        """How many levels of nodes there are; 0 before the first update."""
        return self._header.height

    @property
    def tree_hash(self) -> bytes:
        """The hash that members, hub and joiners compare, 32 bytes."""
        return self._tree_hash

    def secret(self, leaf: int) -> LeafSecret:
        """Return a leaf's secret. Raises KeyError if the leaf is blank."""
        bits = self._context.bits
        found = None
        if leaf >= 0 and self._forest.levels:
            found = self._forest.levels[0].slot(leaf >> bits, leaf & self._context.mask)
        if found is None:
            raise KeyError(leaf)
        return LeafSecret(found)

    def leaves(self) -> list[int]:
        """List the occupied leaves, in order."""
        return list(self._forest.leaves(self._context.bits))

    def room_secret(self, name: str) -> RoomSecret:
        """Return a named room secret. Raises KeyError if there is none of that name."""
        return self._extra.rooms[name]

    def room_secrets(self) -> list[str]:
        """List the names of the room secrets, in order."""
        return list(self._extra.rooms)

    def links(self) -> tuple[LiveLink, ...]:
        """List the live join links, by id."""
        return self._extra.links

    def stage(
        self,
        changes: Iterable[Change],
        *,
        epoch: int,
        epoch_secret: EpochSecret,
        rng: Rng = secrets.token_bytes,
        verify: Verifier | None = None,
        now: int | None = None,
        renewed: Container[str] | None = None,
    ) -> StagedCommit:
        """Compute a commit's change. Commit it when the hub has accepted it.

        `epoch` and `epoch_secret` are of the epoch that the commit begins. Without any change, the root alone gets
        a new key; a commit that adds a member whose leaf stays blank needs that. Costs O(k log_k n) a leaf, less
        for neighbours. `verify` checks the signatures of link changes. `now`, in seconds since 1970, is needed
        while join links live: it ends those that have expired. A removal renews all room secrets that the changes
        do not set, or only those named in `renewed`; the others end.

        Raises ChangeError, StaleEpoch, LinkError.
        """
        return stage(
            self._before(),
            changes,
            epoch=epoch,
            epoch_secret=epoch_secret,
            rng=rng,
            verify=verify,
            now=now,
            renewed=renewed,
        )

    def follow(
        self,
        update: MemberUpdate | bytes,
        epoch_secret: EpochSecret,
        *,
        epoch: int | None = None,
        verify: Verifier | None = None,
        now: int | None = None,
    ) -> Staged:
        """Compute the change that another member's update makes, and commit it afterwards.

        With `epoch`, the MLS epoch that the commit begins, an update of any other epoch is refused.

        If no member of the epoch made the update, raises ParseError, StaleEpoch, WrongEpochSecret or
        ConfirmationError. If a member made it wrongly, raises WrapError, LinkError or TreeHashMismatch, with the
        tree to continue with as `staged`. If it can't be followed at all, raises UpdateRefused.
        """
        if isinstance(update, bytes):
            update = MemberUpdate.from_bytes(update)
        return follow(self._before(), update, epoch_secret=epoch_secret, epoch=epoch, verify=verify, now=now)

    def seal_state(self, key: bytes, rng: Rng = secrets.token_bytes) -> bytes:
        """Encrypt the whole tree for storage, under a key of 32 bytes. Raises ValueError for other sizes."""
        return seal_state(self.state(), b"full", key, rng)

    @classmethod
    def open_state(cls, sealed: bytes, key: bytes) -> WrapTree:
        """Decrypt what `seal_state` returned. Raises StateError for another key or damaged bytes."""
        return cls(*open_state(sealed, b"full", key))

    def plain_state(self) -> bytes:
        """Encode the whole tree in the clear, with all secrets, for a caller that encrypts it with other data."""
        return encode_state(self.state())

    @classmethod
    def from_plain_state(cls, content: bytes) -> WrapTree:
        """Read what `plain_state` returned. The caller has authenticated it before. Raises ParseError."""
        return cls(*decode_state(content))

    def state(self) -> State:
        """Return all that it holds. Internal."""
        return State(self._context, self._header, self._root_key, self._extra, self._forest, self._tree_hash)

    def open_deferred(self, deferred: DeferredLeaf, epoch_secret: EpochSecret) -> LeafSecret:
        """Unwrap a deferred leaf with the secret of its epoch. Raises WrapError; then `Reject` the leaf."""
        return deferred.open(self._context, epoch_secret)

    def public(self) -> PublicTree:
        """Compute the hub's tree: the same bytes, without link seals and deferred leaves."""
        if self._root_key is None:
            return PublicTree.create(self.suite, self.group_id)
        header = HeaderRow(self._context, self._header).to_bytes()
        return PublicTree.from_bytes(header + b"".join(self._rows(self._root_key)))

    def _rows(self, root_key: RootKey) -> Iterator[bytes]:
        """Seal every node again, under the key it has, from the root down."""
        pending = deque([root_key.reveal()])  # a queue of keys: nodes come in the order of their keys
        tail = self._extra.to_bytes()
        for node in self._forest.top_down():
            values, key = bytes(node.values), pending.popleft()
            aad = self._context.aad_prefix + pack_place(node.level, node.index) + node.head
            yield node.head + seal(key, values + tail, aad)
            tail = b""
            if node.level > 1:
                pending.extend(values[at : at + KEY_SIZE] for at in range(0, len(values), KEY_SIZE))

    def _before(self) -> Before:
        return Before(
            self, self._version, self._context, self._header, self._tree_hash, self._extra, self._forest
        )

    def _take_over(self, outcome: Outcome, version: int) -> None:
        if version != self._version:
            raise StagedError("staged change: another one was committed since it was staged")
        self._forest.update(outcome.header.height, outcome.nodes, outcome.vanished)
        self._header = outcome.header
        self._root_key = outcome.root_key
        self._extra = outcome.extra
        self._tree_hash = outcome.tree_hash
        self._version += 1
