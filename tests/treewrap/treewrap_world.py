"""A room with its hub, a committer and a follower; and an attacker who keeps all that was ever published."""

from __future__ import annotations

import hmac
import random
import struct
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import strategies as st

from treewrap import (
    ARITIES,
    Blank,
    Change,
    EpochSecret,
    LeafSecret,
    PathQuery,
    PublicTree,
    RoomSecret,
    Set,
    SetRoomSecret,
    StagedCommit,
    Suite,
    WrapTree,
    answer_paths,
)

GROUP = b"a room"


@dataclass(frozen=True)
class Step:
    """One epoch: leaves set (True) or blanked, leaves evicted by rank, and what went wrong on the way."""

    leaves: dict[int, bool]
    evicted: tuple[int, ...] = ()
    room: bool = False
    fill: int = 0
    idle: bool = False
    refused: bool = False
    retried: bool = False


LEAVES = st.one_of(st.integers(0, 6), st.integers(0, 70), st.integers(0, 5000))
STEPS = st.builds(
    Step,
    leaves=st.dictionaries(LEAVES, st.sampled_from([True, True, True, False]), max_size=5),
    evicted=st.one_of(st.just(()), st.lists(st.integers(0, 100), max_size=6).map(tuple)),
    room=st.booleans(),
    fill=st.sampled_from([0, 0, 0, 0, 0, 0, 0, 5, 18]),
    idle=st.sampled_from([False, False, False, True]),
    refused=st.sampled_from([False, False, True]),
    retried=st.sampled_from([False, False, True]),
)
HISTORIES = st.lists(STEPS, min_size=1, max_size=8)
SUITES = st.sampled_from(ARITIES).map(Suite)


@dataclass
class Published:
    """One update as the hub and the network saw it: rows (place, bytes), and the members' part."""

    epoch: int
    salt: bytes
    rows: list[tuple[tuple[int, int], bytes]]
    leaf_wraps: list[tuple[int, bytes]]
    room_wraps: list[bytes]


@dataclass
class World:
    suite: Suite
    seed: int = 0
    committer: WrapTree = field(init=False)
    follower: WrapTree = field(init=False)
    hub: PublicTree = field(init=False)
    model: dict[int, LeafSecret] = field(default_factory=dict)
    epoch_secrets: list[EpochSecret] = field(default_factory=list)
    touched: list[bool] = field(default_factory=list)
    present: list[set[bytes]] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.committer = WrapTree.create(self.suite, GROUP)
        self.follower = WrapTree.create(self.suite, GROUP)
        self.hub = PublicTree.create(self.suite, GROUP)

    def rng(self, size: int) -> bytes:
        return self.random.randbytes(size)

    def paths(self, query: PathQuery | bytes) -> bytes:
        return answer_paths(self.hub, query)

    @property
    def epoch(self) -> int:
        return len(self.epoch_secrets)

    def changes(self, step: Step) -> list[Change]:
        leaves = dict.fromkeys(range(step.fill), True) | step.leaves
        occupied = sorted(self.model)
        for rank in step.evicted:
            if occupied:
                leaves.setdefault(occupied.pop(rank % len(occupied)), False)
        changes: list[Change] = [
            Set(leaf, LeafSecret.generate(self.rng)) if occupied else Blank(leaf)
            for leaf, occupied in leaves.items()
        ]
        if step.room:
            changes.append(SetRoomSecret("topic", RoomSecret.generate(self.rng)))
        return changes

    def stage(self, changes: list[Change], epoch_secret: EpochSecret) -> StagedCommit:
        return self.committer.stage(changes, epoch=self.epoch, epoch_secret=epoch_secret, rng=self.rng)

    def publish(self, staged: StagedCommit) -> None:
        update, member_update = staged.update, staged.member_update
        rows = self.hub.stage(update, epoch=self.epoch).rows
        self.published.append(
            Published(
                update.epoch,
                update.header.salt,
                [(place, row) for place, row in rows.items() if row is not None],
                [(leaf, wrap) for leaf, _, wrap in member_update.leaves if wrap],
                list(member_update.rooms),
            )
        )

    def run(self, step: Step) -> None:
        if step.refused:  # somebody's commit that lost the race: another epoch, that never came to be
            self.publish(self.stage(self.changes(step), EpochSecret(self.rng(32))))
        epoch_secret = EpochSecret(self.rng(32))
        if not step.idle or not self.epoch:
            changes = self.changes(step)
            if step.retried:  # computed twice for one epoch, as after a crash
                self.publish(self.stage(changes, epoch_secret))
            self.apply(changes, epoch_secret)
        self.touched.append(not step.idle or not self.epoch)
        self.epoch_secrets.append(epoch_secret)
        secrets = {secret.reveal() for secret in self.model.values()}
        secrets |= {self.committer.room_secret(name).reveal() for name in self.committer.room_secrets()}
        self.present.append(secrets)

    def apply(self, changes: list[Change], epoch_secret: EpochSecret) -> None:
        staged = self.stage(changes, epoch_secret)
        self.publish(staged)
        at_hub = self.hub.stage(staged.update.to_bytes(), epoch=self.epoch)
        at_hub.commit()
        staged.commit()
        self.follower.follow(staged.member_update.to_bytes(), epoch_secret).commit()
        for change in changes:
            if isinstance(change, Set):
                self.model[change.leaf] = change.secret
            elif isinstance(change, Blank):
                self.model.pop(change.leaf, None)

    def tree_secret(self) -> EpochSecret:
        """The secret of the last epoch that touched the tree."""
        return self.epoch_secrets[self.hub.epoch]


def run(suite: Suite, history: list[Step]) -> World:
    world = World(suite)
    for step in history:
        world.run(step)
    return world


def vector(content: bytes) -> bytes:
    assert len(content) < 64
    return bytes([len(content)]) + content


def expand(secret: bytes, label: bytes, context: bytes) -> bytes:
    """HKDF-Expand(secret, KDFLabel, 32), written down here a second time."""
    info = struct.pack(">H", 32) + vector(b"TreeWrap 1.0 " + label) + vector(context)
    return hmac.new(secret, info + b"\x01", "sha256").digest()


@dataclass
class Attacker:
    """Opens whatever can be opened, until nothing new opens (Dolev and Yao)."""

    suite: Suite
    known: set[bytes] = field(default_factory=set)

    def learn(self, world: World, epochs: range) -> set[bytes]:
        """Start from the secrets of some epochs."""
        for epoch in epochs:
            secret = world.epoch_secrets[epoch].reveal()
            for published in world.published:
                self.known.update(self._derived(secret, published))
        return self.close(world)

    def close(self, world: World) -> set[bytes]:
        """Open all that what is known opens, and all that that opens."""
        sealed = [item for published in world.published for item in self._ciphertexts(published)]
        fresh = set(self.known)
        while fresh:
            found: set[bytes] = set()
            for key in fresh:
                cipher = AESGCM(key)
                opened = {at for at, item in enumerate(sealed) if self._open(cipher, *item, found)}
                if opened:  # what was opened once has nothing more to give
                    sealed = [item for at, item in enumerate(sealed) if at not in opened]
            fresh = found - self.known
            self.known |= fresh
        return self.known

    def _context(self) -> bytes:
        return struct.pack(">H", self.suite.arity.bit_length() - 1) + vector(GROUP)

    def _derived(self, secret: bytes, published: Published) -> list[bytes]:
        context = vector(GROUP) + published.salt
        nodes = [expand(secret, b"node", context + struct.pack(">BI", *place)) for place, _ in published.rows]
        leaves = [
            expand(secret, b"leaf", context + struct.pack(">I", leaf)) for leaf, _ in published.leaf_wraps
        ]
        rooms = [
            expand(secret, b"room", context + struct.pack(">I", at))
            for at, _ in enumerate(published.room_wraps)
        ]
        return nodes + leaves + rooms

    def _ciphertexts(self, published: Published) -> list[tuple[bytes, bytes]]:
        head_size = 8 + (self.suite.arity + 7) // 8
        context = self._context()
        sealed = []
        for place, row in published.rows:
            sealed.append((context + struct.pack(">BI", *place) + row[:head_size], row[head_size:]))
        for leaf, wrap in published.leaf_wraps:
            sealed.append((context + struct.pack(">IQ", leaf, published.epoch), wrap))
        for at, wrap in enumerate(published.room_wraps):
            sealed.append((context + struct.pack(">IQ", at, published.epoch), wrap))
        return sealed

    def _open(self, cipher: AESGCM, aad: bytes, ciphertext: bytes, found: set[bytes]) -> bool:
        try:
            plaintext = cipher.decrypt(bytes(12), ciphertext, aad)
        except InvalidTag:
            return False
        whole = len(plaintext) // 32 * 32
        found.update(plaintext[at : at + 32] for at in range(0, whole, 32))
        name = plaintext.find(b"\x05topic")
        if name >= 0:
            found.add(plaintext[name + 6 : name + 38])
        return True
