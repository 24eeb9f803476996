"""The settings that a client needs besides its vault's rows: trust anchors, and when it makes KeyPackages."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mimi_mmr.app.commands.context import Anchors
from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Trust anchors, and the seconds between the times at which KeyPackages are made."""

    anchors: Anchors
    key_package_slot: float = 60.0

    def to_row(self) -> bytes:
        """Return the row that the vault keeps."""
        return json.dumps(asdict(self.anchors) | {"key_package_slot": self.key_package_slot}).encode()

    @classmethod
    def from_row(cls, row: bytes) -> ClientSettings:
        """Read a row. Raise `ConfigError` if it is one of version 0.1.0 and its files are not there any more."""
        found = json.loads(row)
        anchors = _from_files(found) if "trust_dir" in found else Anchors(found["trust"], found["tls_ca"])
        return cls(anchors, found["key_package_slot"])

    def trust(self, domain: str = "") -> TrustAnchors:
        """Return every provider's CA. Raise `ConfigError` if there is none, or none of `domain`."""
        found = TrustAnchors.from_pem({name: pem.encode() for name, pem in self.anchors.trust.items()})
        if not found.roots:
            raise ConfigError("--trust: expected <domain>.pem of each provider in the directory")
        if domain and domain not in found.roots:
            raise ConfigError(f"--trust: expected {domain}.pem in the directory")
        return found

    def tls(self) -> ssl.SSLContext:
        """Return the roots for providers' TLS certificates. Raise `ConfigError`."""
        try:
            return ssl.create_default_context(cadata=self.anchors.tls_ca)
        except (ssl.SSLError, ValueError):
            raise ConfigError("--tls-ca: expected certificates in PEM") from None


def slot(row: bytes) -> float:
    """Return the seconds between the times at which KeyPackages are made, from a row of any version."""
    return float(json.loads(row)["key_package_slot"])


def _from_files(found: Mapping[str, Any]) -> Anchors:
    """Read the files whose paths version 0.1.0 stored in place of their content."""
    directory, tls_ca = Path(found["trust_dir"]), found["tls_ca"]
    try:
        trust = {path.stem: path.read_text() for path in sorted(directory.glob("*.pem"))}
        roots = Path(tls_ca).read_text() if tls_ca else None
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"expected certificates in PEM in {directory} and {tls_ca}") from None
    if not trust:
        raise ConfigError(f"expected <domain>.pem of each provider in the trust directory {directory}")
    return Anchors(trust, roots)
