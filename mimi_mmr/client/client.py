"""The client that an application programs against: one device of one user."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any, Self

from mimi_mmr.client.account import saved_account
from mimi_mmr.client.building import build
from mimi_mmr.client.context import Context, Refusals
from mimi_mmr.client.people.connection_packages import PACKAGES
from mimi_mmr.client.storage.changes import Changes
from mimi_mmr.client.storage.history import Notices
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.client.transport.private_path import PrivatePath
from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.errors import StateError
from mimi_mmr.mls.engine import MlsEngine
from mimi_mmr.mls.mls_rs import MlsRsEngine
from mimi_mmr.protocol.connections import ContactCode
from mimi_mmr.uris import Kind, MimiUri


class Client:
    """One device of one user. What it can do is in its parts.

    `account` is the account at the provider, `people` contacts and requests, `key_packages` what lets contacts add
    this user to rooms, `rooms` the rooms by URI and all that is done in them, `devices` the user's other devices.

    Async, for one event loop. The vault holds its state. A restart loses one thing only: the private keys of
    KeyPackages that nobody has used yet, because the MLS library keeps these in memory. `tend` replaces those
    KeyPackages.
    """

    def __init__(
        self,
        user: str,
        device: str,
        domain: str,
        url: str,
        trust: TrustAnchors,
        *,
        vault: Vault | None = None,
        ssl_context: ssl.SSLContext | None = None,
        source_address: str | None = None,
        engine: MlsEngine | None = None,
        key_package_slot: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make the client of `user` at provider `domain`, reached at `url`: restored from `vault`, or new.

        Without a vault nothing outlives the process. A KeyPackage shows the second in which it was made. So that
        this tells nothing about its maker, all clients make theirs at multiples of `key_package_slot` seconds.
        Raises `StateError` if the vault is another client's.
        """
        person = MimiUri(domain, Kind.USER, user)
        this = MimiUri.of_device(person, device)
        vault = vault or Vault.in_memory()
        saved = saved_account(vault)
        if saved is not None:
            if (saved.user, saved.device.name) != (person, device):
                raise StateError(f"the state is that of {saved.user} on {saved.device.name}")
            this = saved.device
        path = PrivatePath(
            domain, url, trust, ssl_context=ssl_context, source_address=source_address, clock=clock
        )
        self.context = Context(
            person,
            this,
            trust,
            clock,
            vault,
            Changes(vault),
            path,
            engine or MlsRsEngine(),
            Notices(vault),
        )
        parts = build(self.context, url, key_package_slot)
        self.account = parts.account
        self.people = parts.people
        self.key_packages = parts.key_packages
        self.rooms = parts.rooms
        self.devices = parts.devices
        self._tending = parts.tending

    @classmethod
    def restore(cls, vault: Vault, trust: TrustAnchors, **options: Any) -> Self:
        """Make the client that a vault holds; `options` as for a new one.

        Raises `StateError` if the vault holds no client.
        """
        saved = saved_account(vault)
        if saved is None:
            raise StateError("this state holds no account yet")
        return cls(
            saved.user.name,
            saved.device.name,
            saved.user.domain,
            saved.url,
            trust,
            vault=vault,
            **options,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection. Whoever opened the vault closes it."""
        await self.context.path.close()

    # --- who it is -----------------------------------------------------------------------------------

    @property
    def user(self) -> MimiUri:
        """The URI of the user."""
        return self.context.user

    @property
    def device(self) -> MimiUri:
        """The name of this device."""
        return self.context.device

    @property
    def registered(self) -> bool:
        """Whether this device is registered as a device of an account."""
        return self.account.registered

    @property
    def contact_code(self) -> ContactCode:
        """The contact code to give to somebody who wants to connect."""
        return self.account.contact_code

    @property
    def vault(self) -> Vault:
        """The vault that holds the client's state."""
        return self.context.vault

    @property
    def path(self) -> PrivatePath:
        """The client's connections to providers."""
        return self.context.path

    @property
    def notices(self) -> Notices:
        """Notices for the user: what happened without a request of theirs."""
        return self.context.notices

    @property
    def refusals(self) -> Refusals:
        """The newest refusals: what was received and refused, or failed and is tried again."""
        return self.context.refusals

    # --- what it does --------------------------------------------------------------------------------

    async def register(self, packages: int = PACKAGES) -> None:
        """Open the account, get the device certified, publish connection packages (and one last resort).

        May be called again after an answer was lost.
        """
        await self.account.register()
        await self.people.connection_packages.publish(packages)

    async def tend(self) -> None:
        """Do the regular work that is due. Call this from time to time, and after a restart.

        That is: responses to connection requests, connection keys to send, news for the other devices, KeyPackage
        sets on shelves, connection packages, departures, devices missing in rooms, pseudonyms to change; see
        `Tending`. A failure is noted in `refusals` and does not stop the other work; the next call tries again.
        """
        await self._tending.tend()
