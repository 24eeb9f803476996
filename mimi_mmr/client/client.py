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

    Async, for one event loop. What it knows is in its vault; after a restart everything is there but for the
    private keys of KeyPackages that nobody had used, which the MLS library keeps in the process: `tend` replaces
    them.
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
        """Make the client of `user` at provider `domain`, reached at `url`; as `vault` has it, or new.

        Without a vault nothing outlives the process. KeyPackages say the second in which they were made; they are
        made at multiples of `key_package_slot` seconds, together with everybody else's. Raises `StateError` if the
        vault is another client's.
        """
        person, this = MimiUri(domain, Kind.USER, user), MimiUri(domain, Kind.DEVICE, device)
        vault = vault or Vault.in_memory()
        saved = saved_account(vault)
        if saved is not None and (saved.user, saved.device) != (person, this):
            raise StateError(f"the state is that of {saved.user} on {saved.device}")
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
        """Make the client that a vault holds; `options` as for a new one. Raises `StateError` if it holds none."""
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
        """Close every connection; the vault is its owner's to close."""
        await self.context.path.close()

    # --- who it is -----------------------------------------------------------------------------------

    @property
    def user(self) -> MimiUri:
        """Whose client it is."""
        return self.context.user

    @property
    def device(self) -> MimiUri:
        """Which of the user's devices it is."""
        return self.context.device

    @property
    def registered(self) -> bool:
        """Whether there is an account, and this device one of its devices."""
        return self.account.registered

    @property
    def contact_code(self) -> ContactCode:
        """What to give to somebody who wants to connect."""
        return self.account.contact_code

    @property
    def vault(self) -> Vault:
        """Where its state is."""
        return self.context.vault

    @property
    def path(self) -> PrivatePath:
        """How it reaches providers."""
        return self.context.path

    @property
    def notices(self) -> Notices:
        """What happened by itself, and the user should know of."""
        return self.context.notices

    @property
    def refusals(self) -> Refusals:
        """What came and was no good, or could not be done yet."""
        return self.context.refusals

    # --- what it does --------------------------------------------------------------------------------

    async def register(self, packages: int = PACKAGES) -> None:
        """Open the account, get the device certified, publish connection packages (and one last resort).

        May be called again after an answer was lost.
        """
        await self.account.register()
        await self.people.connection_packages.publish(packages)

    async def tend(self) -> None:
        """Do what falls due by itself; call it from time to time, and after a restart.

        Answers to requests, offers of connection keys, news for the other devices, sets on shelves, connection
        packages, departures, devices missing in rooms, pseudonyms to be changed: see `Tending`. What fails is noted
        in `refusals`, keeps nothing else from being done, and is tried again the next time.
        """
        await self._tending.tend()
