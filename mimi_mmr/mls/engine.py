"""What a member needs of an MLS library (RFC 9420), as Protocols, so that one can be exchanged for another.

Messages go out as MLSMessage bytes and come in as what `mls.wire` parsed of such bytes; KeyPackages are the bare
struct, members leaf indices. Whatever the library refuses is an `EngineError`; a group that removed this client
raises `RemovedFromRoom` from then on.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.mls.wire import LeafNode, PrivateMessage, PublicCommit


@dataclass(frozen=True, slots=True)
class Applied:
    """What a processed commit did. `added` is in the order of its proposals; `epoch` is the new one."""

    sender: int
    added: tuple[int, ...]
    removed: tuple[int, ...]
    epoch: int
    removed_self: bool


class StagedCommit(Protocol):
    """A commit that its maker has computed, and the hub has not yet accepted."""

    @property
    def commit(self) -> bytes:
        """The commit, a PublicMessage."""

    @property
    def welcome(self) -> bytes | None:
        """The Welcome for those it adds."""

    @property
    def ratchet_tree(self) -> bytes:
        """The `ratchet_tree` extension after the commit, which joiners need besides the Welcome."""

    @property
    def epoch(self) -> int:
        """The epoch that begins with it."""

    @property
    def added(self) -> tuple[int, ...]:
        """Leaf indices of those it adds, in the order in which they were given."""

    def export_secret(self, label: bytes, context: bytes, length: int) -> bytes:
        """Export a secret (RFC 9420, section 8.5) of the epoch that begins with it."""

    def accept(self) -> None:
        """Move the group on, and store it: the hub accepted the commit. Raise `EngineError` after `reject`."""

    def reject(self) -> None:
        """Leave the group as it was, for the commit that won or another attempt: the hub refused this one."""


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
        """Make a commit that adds these KeyPackages, or removes these leaves, or only heals the sender's path.

        One kind a commit. The group stays in its epoch, and can be used there, until `accept`.
        """

    def staged_commit(self, commit: bytes, welcome: bytes | None = None) -> StagedCommit:
        """Return a commit that was staged before this group was loaded, and still waits for the hub's answer.

        Raises `EngineError` if storage does not hold this very commit as the one that waits.
        """

    def process_commit(self, commit: PublicCommit) -> Applied:
        """Follow a commit that the hub accepted, and store the new epoch.

        It decides one that waits: the same commit is thereby accepted, another one rejects it.
        """

    def export_secret(self, label: bytes, context: bytes, length: int) -> bytes:
        """Export a secret (RFC 9420, section 8.5) of the current epoch."""

    def store(self) -> None:
        """Write the group to storage: needed after it was made or joined, and after `decrypt`.

        Until the first time nothing of a group is stored, and the KeyPackage it was joined with not used up.
        Commits and `encrypt` store by themselves.
        """

    def encrypt(self, plaintext: bytes) -> bytes:
        """Encrypt an application message as a PrivateMessage; store the group before this returns."""

    def decrypt(self, message: PrivateMessage) -> tuple[int, bytes]:
        """Return the sender's leaf index, and the plaintext, of an application message of this epoch.

        Also of the last few, as far as the engine still has their keys, and its sender still has its leaf.
        """


class MlsClient(Protocol):
    """One credential with its signature key: the maker of one group, or the joiner with one KeyPackage."""

    def key_package(self) -> bytes:
        """Make a fresh KeyPackage (the struct); its private keys stay in this client, in memory."""

    def create_group(self, group_id: bytes) -> MlsGroup:
        """Make a group of one, in epoch 0."""

    def join(self, welcome: bytes, ratchet_tree: bytes) -> MlsGroup:
        """Join by a Welcome made for one of this client's KeyPackages."""

    def load(self, group_id: bytes) -> MlsGroup:
        """Load a group as it was last stored. Catch up with the hub before staging anything."""


class MlsEngine(Protocol):
    """An MLS library, for cipher suite 0x0001 and basic credentials."""

    def client(
        self, identity: bytes, key: SigningKey, rows: MutableMapping[bytes, bytes] | None = None
    ) -> MlsClient:
        """Make a client whose credential holds `identity` (1 to 65,535 bytes) and whose leaves sign with `key`.

        Its groups are stored in `rows`; with those of an earlier client of this key it can `load` them.
        """
