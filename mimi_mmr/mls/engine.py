"""The interface of an MLS library (RFC 9420) for a member, as Protocols, so that libraries can be exchanged.

Outgoing messages are MLSMessage bytes; incoming ones were parsed by `mls.wire`. KeyPackages are the bare struct;
members are leaf indices. Every refusal by the library is an `EngineError`. A group that removed this client raises
`RemovedFromRoom` from then on.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.mls.wire import LeafNode, PrivateMessage, PublicCommit


@dataclass(frozen=True, slots=True)
class Applied:
    """The effect of a processed commit. `added` is in the order of the proposals; `epoch` is the new epoch."""

    sender: int
    added: tuple[int, ...]
    removed: tuple[int, ...]
    epoch: int
    removed_self: bool


class StagedCommit(Protocol):
    """A commit that this client has made and the hub has not yet accepted."""

    @property
    def commit(self) -> bytes:
        """The commit, a PublicMessage."""

    @property
    def welcome(self) -> bytes | None:
        """The Welcome for the added members."""

    @property
    def ratchet_tree(self) -> bytes:
        """The `ratchet_tree` extension after the commit, which joiners need besides the Welcome."""

    @property
    def epoch(self) -> int:
        """The epoch that begins with this commit."""

    @property
    def added(self) -> tuple[int, ...]:
        """Leaf indices of the added members, in the order of their KeyPackages."""

    def export_secret(self, label: bytes, context: bytes, length: int) -> bytes:
        """Export a secret (RFC 9420, section 8.5) of the epoch that begins with this commit."""

    def accept(self) -> None:
        """Move the group to the next epoch and store it, after the hub accepted; `EngineError` after `reject`."""

    def reject(self) -> None:
        """Discard the commit, after the hub refused it; the group stays in its epoch."""


class MlsGroup(Protocol):
    """One client's membership in one group."""

    @property
    def group_id(self) -> bytes:
        """The group's id."""

    @property
    def epoch(self) -> int:
        """The current epoch."""

    @property
    def own_leaf(self) -> int:
        """This client's leaf index."""

    def ratchet_tree(self) -> bytes:
        """Encode the `ratchet_tree` extension (RFC 9420, section 12.4.3.3) of the current epoch."""

    def leaf(self, index: int) -> LeafNode | None:
        """Return the member at this leaf index, or None."""

    def leaves(self) -> dict[int, LeafNode]:
        """Return all members."""

    def credentials(self) -> Mapping[int, tuple[bytes, bytes]]:
        """Return all members' identities and signature keys, with the rest of each leaf unread."""

    def stage_commit(self, add: Sequence[bytes] = (), remove: Sequence[int] = ()) -> StagedCommit:
        """Make a commit that adds these KeyPackages, or removes these leaves, or only renews the sender's path.

        A commit can't both add and remove. The group stays usable in its epoch until `accept`.
        """

    def staged_commit(self, commit: bytes, welcome: bytes | None = None) -> StagedCommit:
        """Return a commit that was staged before this group was loaded and still waits for the hub's answer.

        Raises `EngineError` if this commit is not the waiting commit in storage.
        """

    def process_commit(self, commit: PublicCommit) -> Applied:
        """Follow a commit that the hub accepted, and store the new epoch.

        This also decides a waiting commit: it is accepted if it is the same commit, else rejected. An engine that
        checks lifetimes by its own clock raises `LifetimeRefused` for a commit that it would take at another time.
        """

    def export_secret(self, label: bytes, context: bytes, length: int) -> bytes:
        """Export a secret (RFC 9420, section 8.5) of the current epoch."""

    def store(self) -> None:
        """Write the group to storage: needed after it was made or joined, and after `decrypt`.

        Before the first call, storage holds nothing of the group, and the KeyPackage it was joined with is not used
        up. Commits and `encrypt` store the group themselves.
        """

    def encrypt(self, plaintext: bytes) -> bytes:
        """Encrypt an application message as a PrivateMessage; store the group before this returns."""

    def decrypt(self, message: PrivateMessage) -> tuple[int, bytes]:
        """Return the sender's leaf index and the plaintext of an application message.

        The message is of this epoch, or of one of the last few if the engine still has the keys and the sender
        still has its leaf.
        """


class MlsClient(Protocol):
    """One credential with its signature key. It creates one group, or joins one with one KeyPackage."""

    def key_package(self) -> bytes:
        """Make a fresh KeyPackage (the struct); its private keys stay in this client, in memory."""

    def create_group(self, group_id: bytes) -> MlsGroup:
        """Create a group with one member, in epoch 0."""

    def join(self, welcome: bytes, ratchet_tree: bytes) -> MlsGroup:
        """Join with a Welcome for one of this client's KeyPackages."""

    def load(self, group_id: bytes) -> MlsGroup:
        """Load a group as it was last stored. Catch up with the hub before staging anything."""


class MlsEngine(Protocol):
    """An MLS library, for cipher suite 0x0001 and basic credentials."""

    def client(
        self, identity: bytes, key: SigningKey, rows: MutableMapping[bytes, bytes] | None = None
    ) -> MlsClient:
        """Make a client whose credential holds `identity` (1 to 65,535 bytes) and whose leaves sign with `key`.

        Its groups are stored in `rows`. With the rows of an earlier client of this key, it can `load` its groups.
        """
