"""A hub's knowledge of a room: public group state, public tree, policy, and the members as pseudonyms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mimi_mmr.mls.ratchet.tree import RatchetTree
from mimi_mmr.mls.wire import LeafNode
from mimi_mmr.protocol.credentials import LeafIdentity
from mimi_mmr.protocol.queues import QueueAddress, leaf_binding
from mimi_mmr.protocol.room.deliveries import Delivery
from mimi_mmr.protocol.room.events import EventKind
from mimi_mmr.protocol.room.policy import SignedPolicy
from mimi_mmr.protocol.room.reopening import Roster
from mimi_mmr.protocol.room.requests import group_id
from mimi_mmr.uris import MimiUri
from treewrap import PublicTree


@dataclass(frozen=True, slots=True)
class Member:
    """A leaf as the hub sees it."""

    user: MimiUri
    client: MimiUri
    signature_key: bytes
    identity: bytes
    queue: QueueAddress

    @classmethod
    def of(cls, leaf: LeafNode, identity: LeafIdentity) -> Member:
        """Make a member from a checked leaf."""
        credential = identity.credential
        return cls(
            credential.user_pseudonym,
            credential.client_pseudonym,
            leaf.signature_key,
            leaf.identity,
            identity.queue,
        )

    def delivery(self) -> Delivery:
        """Return the queue for this leaf's messages."""
        return Delivery(self.queue.encrypted_queue_id, leaf_binding(self.signature_key))


class EpochId(NamedTuple):
    """One epoch of a room: its number, and the hash of the commit that began it; empty for epoch 0.

    After an undo another commit begins an epoch of the same number, so the number alone names no epoch.
    """

    number: int
    commit_hash: bytes


@dataclass(slots=True)
class HubRoom:
    """One room in its current epoch. `sealed_state` is the sealed members-only state.

    `commit_hash` is the hash of the commit that began the epoch; it is empty in epoch 0.
    """

    room: MimiUri
    epoch: int
    ratchet: RatchetTree
    wrap: PublicTree
    policy: SignedPolicy
    members: dict[int, Member] = field(default_factory=dict)
    sealed_state: bytes | None = field(default=None, repr=False)
    commit_hash: bytes = b""

    @property
    def id(self) -> EpochId:
        """Which epoch it is in."""
        return EpochId(self.epoch, self.commit_hash)

    @property
    def roster(self) -> Roster:
        """Its members and policy, as the rule about undone commits compares them."""
        leaves = frozenset((member.signature_key, member.user) for member in self.members.values())
        return Roster(leaves, self.policy.policy)

    @property
    def group_id(self) -> bytes:
        """The MLS group's id: the room's URI, so that a message of one room is invalid in another."""
        return group_id(self.room)

    @classmethod
    def load(
        cls,
        room: MimiUri,
        epoch: int,
        ratchet: RatchetTree,
        wrap: PublicTree,
        policy: SignedPolicy,
        sealed_state: bytes | None = None,
        commit_hash: bytes = b"",
    ) -> HubRoom:
        """Make a room from its stored parts; they were checked when they were stored, and are not checked again."""
        members = {}
        for index, leaf in ratchet.leaves.items():
            members[index] = Member.of(leaf, LeafIdentity.from_bytes(leaf.identity))
        return cls(room, epoch, ratchet, wrap, policy, members, sealed_state, commit_hash)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event for some leaves of one provider, without a sequence number yet."""

    domain: str
    deliveries: tuple[Delivery, ...]
    kind: EventKind
    event: bytes = field(repr=False)


def outgoing(members: Iterable[Member], kind: EventKind, event: bytes) -> tuple[Outgoing, ...]:
    """Address one event to its receivers; return one `Outgoing` for each of their providers."""
    by_domain: dict[str, list[Delivery]] = {}
    for member in members:
        by_domain.setdefault(member.queue.domain, []).append(member.delivery())
    return tuple(Outgoing(domain, tuple(to), kind, event) for domain, to in sorted(by_domain.items()))


@dataclass(frozen=True, slots=True)
class TreeRows:
    """The rows of both trees that a commit changed; None for a removed node.

    Ratchet tree nodes are by node index, Tree Wrap nodes by (level, index); `wrap_header` is its header row.
    """

    ratchet: Mapping[int, bytes | None]
    wrap: Mapping[tuple[int, int], bytes | None]
    wrap_header: bytes
