"""Connection packages: what this user publishes at its provider, so that strangers can ask to connect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from mimi_mmr.client.account import Account
from mimi_mmr.client.context import Context
from mimi_mmr.client.people.contacts import PublishedPackage
from mimi_mmr.client.storage.records import SavedPackage
from mimi_mmr.client.storage.shared_state import SharedKind, SharedState
from mimi_mmr.crypto.sealing import Kem, SealingKey
from mimi_mmr.protocol.accounts import PublishRequest
from mimi_mmr.protocol.connections import make_connection_package
from mimi_mmr.protocol.endpoints import (
    COUNT_CONNECTION_PACKAGES,
    PUBLISH_CONNECTION_PACKAGES,
    WITHDRAW_CONNECTION_PACKAGES,
)

DAY = 86400
PACKAGE_LIFETIME = 30 * DAY
PACKAGES = 4
PACKAGES_LEAST = 2
RENEW_BEFORE = 7 * DAY


class ConnectionPackages(Mapping[bytes, PublishedPackage]):
    """The packages of all of this user's devices by hash, with the private keys that open requests."""

    def __init__(self, context: Context, account: Account, shared: SharedState) -> None:
        """Read the shared state."""
        self._context = context
        self._account = account
        self._shared = shared
        self._packages = {
            key: SavedPackage.from_bytes(value).published()
            for key, value in shared.items(SharedKind.CONNECTION_PACKAGE)
        }

    def __getitem__(self, package_hash: bytes) -> PublishedPackage:
        return self._packages[package_hash]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._packages)

    def __len__(self) -> int:
        return len(self._packages)

    def remember(self) -> Callable[[], None]:
        """Return a function that restores the current state, for use if the next change fails."""
        before = dict(self._packages)

        def put_back() -> None:
            self._packages = before

        return put_back

    async def publish(self, count: int = PACKAGES) -> None:
        """Publish `count` one-time packages (alternating X25519 and the hybrid) and a hybrid last resort."""
        kems = [Kem.X_WING if number % 2 else Kem.X25519 for number in range(count)]
        made = [self._make(kem, last_resort=False) for kem in kems]
        made.append(self._make(Kem.X_WING, last_resort=True))
        with self._context.changes.transaction():  # stored before anybody can use the packages
            for item in made:
                value = SavedPackage.of(item).to_bytes()
                self._shared.put(SharedKind.CONNECTION_PACKAGE, item.package.hash, value)
                self.learn(item)
        request = PublishRequest(tuple(item.package for item in made))
        await self._account.ask(PUBLISH_CONNECTION_PACKAGES, request)

    def _make(self, kem: Kem, *, last_resort: bool) -> PublishedPackage:
        key = SealingKey.generate(kem)
        expiry = self._context.rounded(DAY) + PACKAGE_LIFETIME
        package = make_connection_package(
            self._account.me, key.public, last_resort=last_resort, expiry=expiry
        )
        return PublishedPackage(package, key)

    async def tend(self) -> None:
        """Have enough connection packages published; forget the keys of those that have expired."""
        now = self._context.clock()
        for key, item in list(self._packages.items()):
            if item.package.content.expiry + PACKAGE_LIFETIME < now:  # its requests have expired, too
                self.forget(key)
        left = (await self._account.ask(COUNT_CONNECTION_PACKAGES)).device
        if left.one_time < PACKAGES_LEAST or not left.last_resorts or not self._has_fresh(now):
            await self.publish()

    def _has_fresh(self, now: float) -> bool:
        """Say whether this device has published lately. Older packages don't count, since they expire anyway."""
        credential = self._account.me.credential
        contents = [one.package.content for one in self.values() if one.package.credential == credential]
        return any(one.last_resort and one.expiry >= now + RENEW_BEFORE for one in contents)

    async def replace_all(self) -> None:
        """Withdraw all of the account's packages, since somebody else may have their keys, and publish new ones."""
        await self._account.ask(WITHDRAW_CONNECTION_PACKAGES)
        for key in list(self._packages):
            self.forget(key)
        await self.publish()

    def forget(self, package_hash: bytes) -> None:
        """Forget a package with its key, and have the user's other devices forget it too."""
        self._shared.put(SharedKind.CONNECTION_PACKAGE, package_hash, None)
        self.unlearn(package_hash)

    def learn(self, item: PublishedPackage) -> None:
        """Add a package of this user whose shared entry is stored already."""
        self._packages[item.package.hash] = item

    def unlearn(self, package_hash: bytes) -> None:
        """Drop a package whose shared entry is deleted already."""
        self._packages.pop(package_hash, None)
