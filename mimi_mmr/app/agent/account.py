"""The vault of a home and the client in it: opening, making, closing, deleting."""

from __future__ import annotations

import socket
from dataclasses import replace

from mimi_mmr.app.agent.client_settings import ClientSettings, slot
from mimi_mmr.app.commands.context import Anchors, NewClient
from mimi_mmr.app.commands.errors import AgentError, NoAccount, TrustUnusable, Unfinished
from mimi_mmr.client import Client
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.errors import CertificateRejected, ConfigError, MmrError

_SETTINGS = b"settings"
# the row exists if the client is, or was about to become, a further device of an account
_ENTERING = b"entering"
_FINISH = "finish that, or `mimi-mmr account delete` deletes it"
_SAME = (
    "use the same again; `mimi-mmr account trust` takes other certificates, `mimi-mmr account delete` ends it"
)
_ALREADY = "there is an account in this home already"
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

        Raises `NoAccount` if there is no account yet, `Unfinished` if it was begun, or the error with which the
        client failed to open.
        """
        if self._closed is not None:
            raise self._closed
        if self._client is None:
            raise NoAccount(_NO_ACCOUNT)
        if not self._client.registered:
            raise Unfinished(f"{self._was_begun(self._client)}, and is not finished")
        return self._client

    def _was_begun(self, begun: Client) -> str:
        user = f"{begun.user.name}@{begun.user.domain}"
        if _ENTERING in self._rows:
            return f"{begun.device.name}, a further device of {user}, was begun here"
        return f"the account of {user} was begun here"

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
        """A client that is not registered yet: it can try again."""
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
            self._closed = TrustUnusable(str(error))

    async def close(self) -> None:
        """Close the client and the vault."""
        if self._client is not None:
            await self._client.close()
        self._client = None
        self.vault.close()

    # --- a new client ---------------------------------------------------------------------------------

    def begin(self, new: NewClient, *, entering: bool = False) -> Client:
        """Make a client, or return the one that is here, if nothing that is given differs from it.

        With `entering`, it joins an existing account, and one that has joined is not returned. A first device is
        returned when it is registered, too: the answer to its command may have been lost. Raise `AgentError` if
        there is another account or another unfinished one, `ConfigError` for wrong settings.
        """
        row = self._rows.get(_SETTINGS)
        if row is None:
            return self._make(new, entering)
        if self._closed is not None:
            raise self._closed
        begun = self.entering if entering else self._client
        if begun is None or entering is not (_ENTERING in self._rows):
            error = AgentError(self._something_else(begun))
            raise error.with_hint(_FINISH) if begun is not None and not begun.registered else error
        differing = _differences(begun, ClientSettings.from_row(row), new)
        if differing and begun.registered and not entering:
            raise AgentError(f"{_ALREADY} (with {', '.join(differing)}); another one needs another --home")
        if differing:
            raise AgentError(
                f"{self._was_begun(begun)}, and is not finished, with {', '.join(differing)}"
            ).with_hint(_SAME)
        return begun

    def _something_else(self, begun: Client | None) -> str:
        if begun is None or begun.registered:
            return f"{_ALREADY}; another one needs another --home"
        return f"{self._was_begun(begun)}, and is not finished"

    def _make(self, new: NewClient, entering: bool) -> Client:
        settings = ClientSettings(new.anchors, new.key_package_slot)
        trust, ssl_context = settings.trust(new.domain), settings.tls()
        with self.vault.transaction():
            self._rows[_SETTINGS] = settings.to_row()
            if entering:
                self._rows[_ENTERING] = b""
            self._client = Client(
                new.user,
                new.device or default_device(),
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


def default_device() -> str:
    """Return the name of a device that was given none: its host's name, in the letters of a device's name."""
    host = socket.gethostname().partition(".")[0].lower()
    return "".join(letter for letter in host if letter.isascii() and letter.isalnum())[:32] or "device"


def _differences(begun: Client, settings: ClientSettings, new: NewClient) -> list[str]:
    """Return what was begun with other values than `new` gives, as a person would type it."""
    both = {
        "the user": (begun.user.name, new.user),
        "--domain": (begun.user.domain, new.domain),
        "--provider": (begun.account.url, new.provider),
        "--device": (begun.device.name, new.device),
    }
    differing = [f"{name} {was}" for name, (was, given) in both.items() if given not in (None, was)]
    certificates = {
        "--trust": (settings.anchors.trust, new.anchors.trust),
        "--tls-ca": (settings.anchors.tls_ca, new.anchors.tls_ca),
    }
    other = [name for name, (was, given) in certificates.items() if given not in (None, was)]
    return differing + [f"other certificates in {name}" for name in other]
