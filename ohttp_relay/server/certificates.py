"""A server's TLS certificate and key, which can be replaced while it serves."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final

from ohttp_relay.errors import ConfigurationError

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 60.0
"""Between two looks whether the files have changed."""

_Stamp = tuple[tuple[int, int, int, int], ...]


class ServerCertificate:
    """Certificate chain, key, and authorities of clients, from PEM files.

    `context` is the one TLS context of the listener.  After `reload`, new handshakes use the files' new contents;
    open connections go on.  Files that do not fit together change nothing.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path | None = None,
        client_ca: Path | None = None,
        minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        forbidden_mode: int = 0,
    ) -> None:
        """Read the files.  Without `key`, the key is in `certificate`.

        If `client_ca` is given, clients need a certificate of these authorities.  A key file with one of the
        permission bits `forbidden_mode` is refused.  Raises ConfigurationError.
        """
        self._forbidden = forbidden_mode
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._minimum = minimum
        self._stamp = self._look()
        self.context = self._current = self._read()
        self.context.sni_callback = self._choose

    def reload(self) -> bool:
        """Read the files again; log what came of it, and return whether they are in use now."""
        self._stamp = self._look()
        try:
            self._current = self._read()
        except ConfigurationError as error:
            log.error("the new TLS certificate is refused, the old one stays in use: %s", error)  # noqa: TRY400
            return False
        log.info("the TLS certificate was read again")
        return True

    def reload_if_changed(self) -> None:
        """Read the files again if they have changed since they were read."""
        if self._look() != self._stamp:
            self.reload()

    async def watch(self, seconds: float = LOOK_SECONDS) -> None:
        """Look at the files every `seconds`, for ever."""
        while True:
            await asyncio.sleep(seconds)
            self.reload_if_changed()

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, _: str | None, __: ssl.SSLContext) -> None:
        """Continue a handshake with the newest certificate; called after each ClientHello."""
        if self._current is not self.context:
            connection.context = self._current

    def _look(self) -> _Stamp:
        """Return what changes when a file is written or replaced, or gets other permissions."""
        found = []
        for path in (self._certificate, self._key, self._client_ca):
            try:
                state = path.stat() if path is not None else None
            except OSError:
                state = None
            found.append(
                (state.st_ino, state.st_mtime_ns, state.st_size, state.st_mode) if state else (0, 0, 0, 0)
            )
        return tuple(found)

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._minimum
        _check_readable(self._certificate, "certificate")
        _check_readable(self._key, "key")
        _check_readable(self._client_ca, "file of the clients' authorities")
        try:
            if (self._key or self._certificate).stat().st_mode & self._forbidden:
                raise ConfigurationError("others may read the key file")
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except (OSError, ValueError):
            raise ConfigurationError("certificate and key are not a matching PEM pair") from None
        if self._client_ca is not None:
            try:
                context.load_verify_locations(self._client_ca)
            except (OSError, ValueError):
                raise ConfigurationError("the clients' authorities are not certificates in PEM") from None
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _check_readable(path: Path | None, what: str) -> None:
    """Raise ConfigurationError, with the system's reason and without the path, if a file can't be read."""
    if path is None:
        return
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigurationError(f"the {what} can't be read: {error.strerror}") from None


def _no_password() -> str:
    """Refuse an encrypted key; otherwise OpenSSL would ask on the terminal."""
    raise ValueError("the key is encrypted")
