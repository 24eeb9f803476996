"""The settings that a client needs besides its vault."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """The settings that a client needs besides its vault: directories and files of this machine."""

    trust_dir: str
    tls_ca: str | None = None
    key_package_slot: float = 60.0

    def trust(self, domain: str = "") -> TrustAnchors:
        """Return every provider's CA. Raise `ConfigError` if there is none, or none of `domain`."""
        found = TrustAnchors.from_directory(Path(self.trust_dir))
        if not found.roots:
            raise ConfigError(
                f"expected <domain>.pem of each provider in the trust directory {self.trust_dir}"
            )
        if domain and domain not in found.roots:
            raise ConfigError(f"expected {domain}.pem in the trust directory {self.trust_dir}")
        return found

    def tls(self) -> ssl.SSLContext:
        """Return the roots for providers' TLS certificates. Raise `ConfigError`."""
        try:
            return ssl.create_default_context(cafile=self.tls_ca)
        except (OSError, ssl.SSLError):
            raise ConfigError(f"expected PEM certificates in {self.tls_ca}") from None
