"""The client that an application programs against: all floors of this package put together."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Self

from mimi_mmr.client.account import saved_account
from mimi_mmr.client.devices.devices import Devices
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.errors import MmrError, StateError
from mimi_mmr.mls.engine import MlsEngine

KEPT_REFUSALS = 500
CREDENTIAL_RENEWAL = (
    24 * 86400
)  # two weeks before the oldest certificate in a link that is 90 days old expires


class Client(Devices):
    """One device of one user: its account, its contacts, its rooms.

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
        """A client of `user` at provider `domain`, reached at `url`; as `vault` has it, or new.

        Without a vault nothing outlives the process. KeyPackages say the second in which they were made; they are
        made at multiples of `key_package_slot` seconds, together with everybody else's.
        """
        super().__init__(
            user,
            device,
            domain,
            url,
            trust,
            vault=vault,
            ssl_context=ssl_context,
            source_address=source_address,
            engine=engine,
            key_package_slot=key_package_slot,
            clock=clock,
        )
        self._tending = asyncio.Lock()
        self._open_rooms()
        self._open_joining()
        self._open_membership()
        self._open_contacts()
        self._open_devices()

    @classmethod
    def restore(cls, vault: Vault, trust: TrustAnchors, **options: Any) -> Self:
        """The client that a vault holds; `options` as for a new one. Raises `StateError` if it holds none."""
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

    async def tend(self) -> None:
        """Do what falls due by itself; call it from time to time, and after a restart.

        Answers to requests, offers of connection keys, news for the other devices, sets on shelves, connection
        packages, departures, devices missing in rooms, pseudonyms to be changed. What fails is noted in `refused`,
        keeps nothing else from being done, and is tried again the next time.
        """
        async with self._tending:
            await self._try(self.make_wanted)
            for invitation in list(self._invitations.values()):
                await self._try(partial(self.tend_invitation, invitation))
            self._sweep()
            await self._try(self.run_errands)
            await self._try(self.tend_connections)
            await self._try(self._drop_abandoned)
            await self._try(self.tend_certificate)
            await self._try(self.tend_connection_packages)
            for contact in list(self.contacts.values()):
                if not contact.blocked and contact.room is not None:
                    await self._try(partial(self.tend_shelf, contact))
            await self._try(self.add_again)
            await self._try(self.mind_strays)
            for joined in list(self.rooms.values()):
                if not joined.room.removed and not joined.desynchronised:
                    await self._try(partial(self.answer_departures, joined))
                    await self._try(partial(self.answer_knocks, joined))
            await self._try(self.tend_devices)
            await self._try(self._change_pseudonyms)
            await self._try(self.share)
            del self.refused[:-KEPT_REFUSALS]

    async def _try(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except MmrError as error:
            self.refused.append(f"to be tried again: {error}")

    async def _change_pseudonyms(self) -> None:
        """Where a last resort was used twice, or a credential is about to expire; by the first of one's devices."""
        soon = self._clock() + CREDENTIAL_RENEWAL
        for joined in list(self.rooms.values()):
            credential = joined.leaf.identity.credential
            if joined.room.removed or joined.desynchronised:
                continue
            if joined.rotate or credential.expiry < soon:
                own = self._leaves_of(joined, credential.user_pseudonym)
                if own and own[0] == joined.room.own_leaf:
                    await self.change_pseudonym(joined)
