"""Outstanding KeyPackages: somebody else has or can fetch each, and it is watched until it is used or expires."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mimi_mmr.client.context import Context
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.storage.records import SavedKeyPackage, SavedLeaf
from mimi_mmr.client.transport.read_queues import ReadQueue, ReadQueues
from mimi_mmr.member.leaves import PreparedKeyPackage
from mimi_mmr.protocol.key_packages import ShelfReport
from mimi_mmr.protocol.room.requests import UpdateRequest
from mimi_mmr.uris import MimiUri

DAY = 86400
KEY_PACKAGE_LIFETIME = 30 * DAY


@dataclass(slots=True, eq=False)
class OutstandingKeyPackage:
    """An outstanding KeyPackage: somebody may add this client to a room with it.

    One for a connection room has the `contact`. Otherwise `user` and `serial` name the shelf's contact and the set;
    or `room` is the only room that it is valid for. `before_proofs` if it was made before version 0.4.0, so that a
    Welcome without a proof may wait for it. `own_commit` is set if this client itself adds the KeyPackage: it is
    the hash of the commit that the hub accepted, empty before. `keys_are_lost` once the process that made it ended:
    a Welcome for it then leads to a request to be added again. `reused` if it is a last resort that was given away
    more than once; `used` counts the Welcomes that came, `failures` the times that joining failed; `not_before` (by
    the event loop's clock) is when to try again.
    """

    package: PreparedKeyPackage
    queue: ReadQueue
    expiry: int
    contact: Contact | None = None
    user: MimiUri | None = None
    serial: bytes = b""
    last_resort: bool = False
    room: MimiUri | None = None
    before_proofs: bool = False
    own_commit: bytes | None = None
    keys_are_lost: bool = False
    reused: bool = False
    used: int = 0
    failures: int = 0
    not_before: float = 0.0

    @property
    def made_for(self) -> MimiUri | None:
        """The user that it was made for, on a shelf or in a response; None if it is for a room."""
        return self.contact.user if self.contact else self.user


class OutstandingKeyPackages:
    """All outstanding KeyPackages, stored in the vault, in the order in which they were handed out."""

    def __init__(self, context: Context, queues: ReadQueues) -> None:
        """Read from the vault. The private keys of these KeyPackages were lost with the process that made them."""
        self._context = context
        self._queues = queues
        self._rows = context.vault.table("key packages")
        self._before_proofs = context.vault.table("key packages before proofs")
        self._items = {
            ref: self._restored(ref, SavedKeyPackage.from_bytes(row)) for ref, row in self._rows.items()
        }

    def _restored(self, ref: bytes, saved: SavedKeyPackage) -> OutstandingKeyPackage:
        leaf = saved.leaf.leaf(self._context.engine, self._context.mls_rows(saved.leaf.key()))
        return OutstandingKeyPackage(
            PreparedKeyPackage(leaf, saved.key_package),
            self._queues.get(leaf.queue),
            saved.expiry,
            user=saved.user,
            serial=saved.serial,
            last_resort=saved.last_resort,
            room=saved.room,
            before_proofs=ref in self._before_proofs,
            keys_are_lost=True,
        )

    def remember(self) -> Callable[[], None]:
        """Return a function that restores the current state, for use if the next change fails."""
        before = dict(self._items)

        def put_back() -> None:
            self._items = before

        return put_back

    def __iter__(self) -> Iterator[OutstandingKeyPackage]:
        return iter(list(self._items.values()))

    def __len__(self) -> int:
        return len(self._items)

    def get(self, ref: bytes) -> OutstandingKeyPackage | None:
        """Return the one with this KeyPackageRef; None if it is no longer outstanding."""
        return self._items.get(ref)

    def watch(
        self,
        package: PreparedKeyPackage,
        *,
        contact: Contact | None = None,
        user: MimiUri | None = None,
        serial: bytes = b"",
        last_resort: bool = False,
        room: MimiUri | None = None,
        own_commit: bytes | None = None,
    ) -> OutstandingKeyPackage:
        """Watch from now on whether this KeyPackage is used. Call this before anybody else gets it."""
        queue = self._queues.get(package.leaf.queue)
        expiry = self._context.rounded(DAY) + KEY_PACKAGE_LIFETIME
        item = OutstandingKeyPackage(
            package, queue, expiry, contact, user, serial, last_resort, room, own_commit=own_commit
        )
        saved = SavedKeyPackage(
            package.key_package, SavedLeaf.of(package.leaf), item.made_for, serial, last_resort, room, expiry
        )
        self._rows[package.ref] = saved.to_bytes()
        self._items[package.ref] = item
        self._queues.save(queue)
        return item

    def note_own_commit(self, request: UpdateRequest) -> None:
        """Note that the hub has accepted this client's own commit, which may add a KeyPackage of its own."""
        for proof in request.welcome_proofs:
            item = self._items.get(proof.key_package_ref)
            if item is not None and item.own_commit is not None:
                item.own_commit = request.auth.content.commit_hash

    def unwatch(self, item: OutstandingKeyPackage) -> None:
        """Stop watching a KeyPackage that was used up, or whose queue is gone. Its leaf and queue stay."""
        self._rows.pop(item.package.ref, None)
        self._before_proofs.pop(item.package.ref, None)
        self._items.pop(item.package.ref, None)

    def forget(self, item: OutstandingKeyPackage) -> None:
        """Drop a KeyPackage that nobody can or should use any more, and its queue, unless a room uses that."""
        with self._context.changes.transaction():
            self.unwatch(item)
            if not item.used:
                self._context.drop_mls_rows(item.package.leaf.key)
                self._queues.close(item.queue)

    def forget_expired(self) -> None:
        """Drop the KeyPackages that have expired."""
        now = self._context.clock()
        for item in [one for one in self if one.expiry < now]:
            self.forget(item)

    def forget_taken_back(self, report: ShelfReport) -> None:
        """Drop the KeyPackages that nobody took from a shelf: nobody can use them.

        Those that were taken stay watched.
        """
        unused = {entry.serial for entry in report.taken_back if not entry.uses}
        for item in [one for one in self if one.serial in unused]:
            self.forget(item)

    def made_for(self, user: MimiUri) -> list[OutstandingKeyPackage]:
        """Return the KeyPackages that were made for a user, on a shelf or in a response."""
        return [one for one in self if user in (one.user, one.contact.user if one.contact else None)]
