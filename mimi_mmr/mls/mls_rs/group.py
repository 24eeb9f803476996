"""A client's membership in a group, over mls-rs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any

from mimi_mmr.errors import EngineError, InvalidCommit, ParseError, RemovedFromRoom
from mimi_mmr.mls.engine import Applied
from mimi_mmr.mls.mls_rs.binding import (
    Identities,
    engine_errors,
    export,
    key_package_message,
    message,
)
from mimi_mmr.mls.mls_rs.staged import MlsRsStagedCommit
from mimi_mmr.mls.ratchet.node import identity, signature_key
from mimi_mmr.mls.ratchet.tree import RatchetTree
from mimi_mmr.mls.storage import RETAINED_EPOCHS, GroupStorage
from mimi_mmr.mls.wire import (
    Add,
    ContentType,
    LeafNode,
    PrivateMessage,
    PublicCommit,
    Remove,
    parse_application,
    parse_commit,
)


@dataclass(frozen=True, slots=True)
class Library:
    """The parts of its client that a group needs."""

    public_key: bytes
    storage: GroupStorage
    load: Callable[[bytes], Any]


def whereabouts(group: Any) -> tuple[bytes, int]:
    """Find the group id and epoch of a group that the library has just made."""
    # The binding has no call for a group's id and epoch. The header of a message has both: this encrypts one that
    # is never sent, which costs one generation of the sender's ratchet.
    header = parse_application(bytes(group.encrypt_application_message(b"").to_bytes()))
    return header.group_id, header.epoch


class MlsRsGroup:
    """`MlsGroup` over mls-rs. Not for several threads at once."""

    def __init__(self, library: Library, handle: Any, group_id: bytes, epoch: int) -> None:
        """Wrap the library's group."""
        self.group_id = group_id
        self.epoch = epoch
        self._library = library
        self._handle: Any | None = handle  # None: load it from storage
        self._removed = False
        self._identities = Identities()
        self._tree = RatchetTree.from_engine(export(handle))
        self._waiting: MlsRsStagedCommit | None = None
        self.own_leaf = _leaf_with(self._tree, library.public_key)

    @property
    def _live(self) -> Any:
        self._check_member()
        if self._handle is None:
            with engine_errors():
                self._handle = self._library.load(self.group_id)
        return self._handle

    def _check_member(self) -> None:
        if self._removed:
            raise RemovedFromRoom("this client was removed from the group")

    def ratchet_tree(self) -> bytes:
        """Encode the `ratchet_tree` extension of the current epoch."""
        return self._tree.to_bytes()

    def leaf(self, index: int) -> LeafNode | None:
        """Return the member at this leaf index, or None."""
        return self._tree.leaf(index)

    def leaves(self) -> dict[int, LeafNode]:
        """Return all members."""
        return dict(self._tree.leaves)

    def credentials(self) -> Mapping[int, tuple[bytes, bytes]]:
        """Return all members' identities and signature keys, with the rest of each leaf unread."""
        return self._tree.credentials()

    def export_secret(self, label: bytes, context: bytes, length: int) -> bytes:
        """Export a secret of the current epoch."""
        with engine_errors():
            return bytes(self._live.export_secret(label, context, length))

    def encrypt(self, plaintext: bytes) -> bytes:
        """Encrypt an application message; store the group before returning, so that no key is used twice."""
        with engine_errors():
            sealed = bytes(self._live.encrypt_application_message(plaintext).to_bytes())
            self._live.write_to_storage()
            return sealed

    def decrypt(self, private: PrivateMessage) -> tuple[int, bytes]:
        """Return the sender's leaf index and the plaintext; raise `OwnMessage` for one of this client's own.

        A message of a past epoch opens only if this client was in the group then and the sender is still in it. The
        library names the member that has the sender's leaf now, so a leaf that changed hands is refused.
        """
        self._check_member()
        if private.content_type is not ContentType.APPLICATION:
            raise EngineError("expected an application message")
        changed = self._changed_since(private.epoch)
        with engine_errors():
            received = self._live.process_incoming_message(message(private.encoded))
        leaf = self._identities.leaf_of(self._tree, received.sender)
        if leaf in changed:
            raise EngineError(f"leaf {leaf} has changed hands since this message was sent")
        return leaf, bytes(received.data)

    def _changed_since(self, epoch: int) -> set[int]:
        """Return the leaves that changed hands since an epoch: the current one or one of the last few."""
        changed: set[int] = set()
        if not self.epoch - RETAINED_EPOCHS <= epoch <= self.epoch:
            raise EngineError(f"no members known for a message of epoch {epoch}")
        for past in range(epoch, self.epoch):
            known = self._library.storage.handovers(self.group_id, past)
            if known is None:
                raise EngineError(f"no members known for a message of epoch {epoch}")
            changed.update(known)
        return changed

    def store(self) -> None:
        """Write the group to storage. While a commit waits, storage already holds this epoch."""
        self._check_member()
        if self._handle is not None:
            with engine_errors():
                self._handle.write_to_storage()

    def stage_commit(self, add: Sequence[bytes] = (), remove: Sequence[int] = ()) -> MlsRsStagedCommit:
        """Make a commit for the hub; this group stays in its epoch until the hub answers.

        The library's group is stored, then moves ahead as the copy. If this epoch is needed before the hub answers,
        which is rare, it is loaded from storage. The copy is stored with its commit in a row of its own, so that a
        client that restarts before the answer can still follow its own commit.
        """
        if add and remove:
            raise EngineError("this engine adds or removes in one commit, not both")
        if self._waiting is not None:
            raise EngineError("a commit is waiting for the hub already")
        copy, output = self._go_ahead(add, remove)
        commit = bytes(output.commit_message.to_bytes())
        welcome = bytes(output.welcome_message.to_bytes()) if output.welcome_message else None
        return self._wait_for(copy, parse_commit(commit), welcome)

    def staged_commit(self, commit: bytes, welcome: bytes | None = None) -> MlsRsStagedCommit:
        """Return a commit that an earlier object staged before the hub answered."""
        if self._waiting is not None:
            raise EngineError("a commit is waiting for the hub already")
        parsed = _read_commit(commit)
        self._check_epoch(parsed)
        copy = self._own(parsed)
        if copy is None:
            raise EngineError("no commit of this client's is stored that waits for the hub")
        with engine_errors():
            copy.process_incoming_message(message(commit))
        return self._wait_for(copy, parsed, welcome)

    def _wait_for(self, copy: Any, commit: PublicCommit, welcome: bytes | None) -> MlsRsStagedCommit:
        applied = self._applied(commit)
        self._waiting = MlsRsStagedCommit(
            copy=copy,
            commit=commit.encoded,
            welcome=welcome,
            ratchet_tree=export(copy),
            epoch=applied.epoch,
            added=applied.added,
            settle=lambda winner: self._settle(winner, applied),
        )
        return self._waiting

    def _go_ahead(self, add: Sequence[bytes], remove: Sequence[int]) -> tuple[Any, Any]:
        copy = self._live
        with engine_errors():
            copy.write_to_storage()
            self._handle = None
            output = self._build(copy, add, remove)
            with self._library.storage.staged():
                copy.write_to_storage()
            copy.process_incoming_message(output.commit_message)
        return copy, output

    def _build(self, copy: Any, add: Sequence[bytes], remove: Sequence[int]) -> Any:
        if add:
            return copy.add_members([key_package_message(key_package) for key_package in add])
        if remove:
            return copy.remove_members([self._identities.at(self._tree, leaf) for leaf in remove])
        return copy.commit()

    def _settle(self, winner: Any | None, applied: Applied) -> None:
        self._waiting = None
        if winner is not None:
            self._move(winner, applied)
        self._library.storage.drop_staged(self.group_id)

    def process_commit(self, commit: PublicCommit) -> Applied:
        """Follow a commit that the hub accepted.

        If it is this client's waiting commit, staged by this or an earlier object, that commit is accepted. Another
        commit rejects the waiting one.
        """
        self._check_epoch(commit)
        applied, waiting = self._applied(commit), self._waiting
        if waiting is not None and waiting.commit == commit.encoded:
            waiting.accept()
            return applied
        handle = self._own(commit) or self._live
        with engine_errors():
            received = handle.process_incoming_message(message(commit.encoded))
        if waiting is not None:
            waiting.reject()
        if received.effect.is_REMOVED():
            self._leave()
            return replace(applied, removed_self=True)
        self._settle(handle, applied)
        return applied

    def _check_epoch(self, commit: PublicCommit) -> None:
        self._check_member()
        if (commit.group_id, commit.epoch) != (self.group_id, self.epoch):
            raise EngineError(f"expected a commit of this group's epoch {self.epoch}")

    def _own(self, commit: PublicCommit) -> Any | None:
        storage = self._library.storage
        if commit.sender != self.own_leaf or not storage.has_staged(self.group_id):
            return None
        with engine_errors(), storage.staged():
            return self._library.load(self.group_id)

    def _applied(self, commit: PublicCommit) -> Applied:
        removed = tuple(proposal.leaf for proposal in commit.proposals if isinstance(proposal, Remove))
        adds = sum(1 for proposal in commit.proposals if isinstance(proposal, Add))
        occupied = set(self._tree.occupied()).difference(removed)
        free = (leaf for leaf in count() if leaf not in occupied)  # leftmost first (RFC 9420, section 12.1.1)
        return Applied(
            commit.sender, tuple(islice(free, adds)), removed, commit.epoch + 1, removed_self=False
        )

    def _move(self, handle: Any, applied: Applied) -> None:
        after = RatchetTree.from_engine(export(handle))
        touched = {applied.sender, *applied.added, *applied.removed}
        changed = [leaf for leaf in sorted(touched) if _holder(self._tree, leaf) != _holder(after, leaf)]
        with engine_errors():
            handle.write_to_storage()
        self._library.storage.put_handovers(self.group_id, self.epoch, changed)
        self._handle, self._tree = handle, after
        self.epoch += 1

    def _leave(self) -> None:
        self._handle = None
        self._removed = True
        self._library.storage.forget(self.group_id)


def _read_commit(encoded: bytes) -> PublicCommit:
    try:
        return parse_commit(encoded)
    except (ParseError, InvalidCommit) as error:
        raise EngineError(str(error)) from None


def _holder(tree: RatchetTree, leaf: int) -> tuple[bytes, bytes] | None:
    row = tree.node_bytes(2 * leaf)
    return None if row is None else (identity(row), signature_key(row))


def _leaf_with(tree: RatchetTree, public_key: bytes) -> int:
    for leaf in tree.occupied():
        if signature_key(tree.node_bytes(2 * leaf) or b"") == public_key:
            return leaf
    raise EngineError("the group's tree does not have this client")
