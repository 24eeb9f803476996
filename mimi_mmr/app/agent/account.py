"""The vault of a home and the client in it: opening, making, closing, deleting."""

from __future__ import annotations

from dataclasses import replace

from mimi_mmr.app.agent.client_settings import ClientSettings, slot
from mimi_mmr.app.commands.context import Anchors, NewClient
from mimi_mmr.app.commands.errors import AgentError, NoAccount
from mimi_mmr.client import Client
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.errors import CertificateRejected, ConfigError, MmrError

_SETTINGS = b"settings"
# the row exists if the client is, or was about to become, a further device of an account
_ENTERING = b"entering"
_NO_ACCOUNT = "there is no account in this home yet"


class AccountHolder:
    """An open vault, and the client in it, if there is one."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self._rows = vault.table("agent")
        self._client: Client | None = None
        self._closed: MmrError | None = None

    # --- the client -----------------------------------------------------------------------------------

    @property
    def client(self) -> Client:
        """The client.

        Raises `NoAccount` if there is no account yet, or the error with which the client failed to open.
        """
        if self._closed is not None:
            raise self._closed
        if self._client is None or not self._client.registered:
            raise NoAccount(_NO_ACCOUNT)
        return self._client

    @property
    def begun(self) -> Client | None:
        """The client, registered or not; None if there is none."""
        return self._client

    @property
    def registered(self) -> bool:
        """Whether there is an account."""
        return self._client is not None and self._client.registered

    @property
    def unfinished(self) -> Client | None:
        """A client whose registration got no answer: it can be tried again."""
        return self._client if self._client is not None and not self._client.registered else None

    @property
    def entering(self) -> Client | None:
        """A further device that was not added yet: it can try again with another code."""
        began = self._client is not None and _ENTERING in self._rows
        return self._client if began and self._client and self._client.devices.room is None else None

    def open(self) -> None:
        """Restore the client that the vault holds. If its settings are wrong, `client` raises that error."""
        row = self._rows.get(_SETTINGS)
        if row is None:
            return
        try:
            settings = ClientSettings.from_row(row)
            self._rows[_SETTINGS] = settings.to_row()
            self._client = Client.restore(
                self.vault,
                settings.trust(),
                ssl_context=settings.tls(),
                key_package_slot=settings.key_package_slot,
            )
        except (ConfigError, CertificateRejected) as error:
            self._closed = error  # `account trust` repairs the settings

    async def close(self) -> None:
        """Close the client and the vault."""
        if self._client is not None:
            await self._client.close()
        self._client = None
        self.vault.close()

    # --- a new client ---------------------------------------------------------------------------------

    def begin(self, new: NewClient, *, entering: bool = False) -> Client:
        """Make a client, or return the unfinished one of the same names.

        With `entering`, it joins an existing account. Raise `AgentError` if there is an account or another
        unfinished one, `ConfigError` for wrong settings.
        """
        begun = self.entering if entering else self.unfinished
        if begun is None:
            return self._make(new, entering)
        if (begun.user.name, begun.user.domain, begun.device.name) != (new.user, new.domain, new.device):
            what = f"the account of {begun.user} was begun here, and not finished"
            if entering:
                what = f"this was to become a device of {begun.user}"
            raise AgentError(f"{what}: use the same names again, or delete it")
        return begun

    def _make(self, new: NewClient, entering: bool) -> Client:
        settings = ClientSettings(new.anchors, new.key_package_slot)
        trust, ssl_context = settings.trust(new.domain), settings.tls()
        if _SETTINGS in self._rows:
            raise AgentError("there is an account in this home already; another one needs another --home")
        with self.vault.transaction():
            self._rows[_SETTINGS] = settings.to_row()
            if entering:
                self._rows[_ENTERING] = b""
            self._client = Client(
                new.user,
                new.device,
                new.domain,
                new.provider,
                trust,
                vault=self.vault,
                ssl_context=ssl_context,
                key_package_slot=settings.key_package_slot,
            )
        return self._client

    # --- settings -------------------------------------------------------------------------------------

    def change_trust(self, anchors: Anchors) -> list[str]:
        """Store other trust anchors, for use from the next start on; return their domains.

        Without roots for TLS, those of before stay. Raise `NoAccount`, `ConfigError`.
        """
        row = self._rows.get(_SETTINGS)
        if row is None:
            raise NoAccount(_NO_ACCOUNT)
        if anchors.tls_ca is None:
            anchors = replace(anchors, tls_ca=ClientSettings.from_row(row).anchors.tls_ca)
        new = ClientSettings(anchors, slot(row))
        found = new.trust()
        new.tls()
        self._rows[_SETTINGS] = new.to_row()
        return sorted(found.roots)

    def change_passphrase(self, new: str) -> None:
        """Encrypt the vault under another passphrase."""
        self.vault.change_passphrase(new)
