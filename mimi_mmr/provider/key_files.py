"""Files that a provider keeps besides its databases: its keys, its CA, and the root certificates of others.

All are checked when the provider starts. An error names a file that is missing and can't be made, or that others
can read. Existing files are never replaced.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shlex import quote

from cryptography import x509

from mimi_mmr.crypto.certificates import CertificateAuthority, TrustAnchors, anchor_files
from mimi_mmr.crypto.sealing import Kem, SealingKey
from mimi_mmr.errors import CertificateRejected, ConfigError, InvalidUri, MmrError
from mimi_mmr.provider.new_files import write_new
from mimi_mmr.provider.settings import Settings
from ohttp_relay.keys import KeyRing


def secret_file(path: Path, size: int, make: Callable[[], bytes] | None = None) -> bytes:
    """Read a key of `size` bytes, created on first use; only the provider may be able to read the file."""
    if not path.exists():
        with suppress(FileExistsError):  # made by another process of this provider
            write_new(path, make() if make else os.urandom(size))
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path}: readable by others; expected mode 600")
    data = path.read_bytes()
    if len(data) != size:
        raise ConfigError(f"{path}: expected {size} bytes")
    return data


def sealing_key(path: Path) -> SealingKey:
    """Read a hybrid HPKE key, created on first use."""
    return SealingKey(Kem.X_WING, secret_file(path, 96, lambda: SealingKey.generate(Kem.X_WING).seed))


def key_ring(directory: Path) -> KeyRing:
    """Read the gateway's keys, created on first use."""
    if directory.exists():
        return KeyRing.load(directory)
    ring = KeyRing.generate()
    ring.save(directory)
    return ring


def authority(settings: Settings) -> CertificateAuthority:
    """Read the CA in `data_dir`; it must exist."""
    path = settings.data_dir / "ca.pem"
    if not path.exists():  # never created here: a new CA would invalidate all devices of the old one
        command = _command_for_ca(settings)
        raise ConfigError(
            f"data_dir: no {path}; restore it from your backup, or make a new CA with: {command}"
        )
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path}: readable by others; expected mode 600")
    try:
        return CertificateAuthority.load(settings.domain, path.read_bytes())
    except MmrError as error:
        raise ConfigError(f"{path}: {error}") from None


def trust_anchors(settings: Settings, ca: CertificateAuthority) -> TrustAnchors:
    """Read the root certificates in `trust_dir`: those of all peers and of this provider."""
    roots: dict[str, tuple[x509.Certificate, ...]] = {}
    for path in anchor_files(settings.trust_dir):
        try:
            roots |= TrustAnchors.from_pem({path.stem: path.read_bytes()}).roots
        except InvalidUri:
            raise ConfigError(f"trust_dir: {path}: expected a provider's domain as its name") from None
        except CertificateRejected:
            raise ConfigError(f"trust_dir: {path}: expected certificates in PEM") from None
        except OSError as error:
            raise ConfigError(f"trust_dir: {path}: {error.strerror}") from None
    for peer in settings.peers:
        if peer not in roots:
            raise ConfigError(f"peers.{peer}: no {settings.trust_dir / peer}.pem; ask its operator for it")
    if settings.domain not in roots:
        path = settings.trust_dir / settings.domain
        raise ConfigError(
            f"trust_dir: no {path}.pem; it is the certificate in {settings.data_dir / 'ca.pem'}"
        )
    if ca.root not in roots[settings.domain]:
        raise ConfigError(
            f"trust_dir: {settings.domain}.pem is not the root of {settings.data_dir / 'ca.pem'}"
        )
    return TrustAnchors(roots)


def _command_for_ca(settings: Settings) -> str:
    command = f"mimi-mmr ca {settings.domain}"
    for option, path in (("data", settings.data_dir), ("trust", settings.trust_dir)):
        command += f" --{option}-dir {quote(str(path))}" if path != Path(option) else ""
    return command


def make_authority(domain: str, path: Path, trust_dir: Path, now: float) -> CertificateAuthority:
    """Create a provider's CA: key and root in `path`, the root for others as `<trust_dir>/<domain>.pem`.

    Raises `FileExistsError` with the file's name if either file exists; nothing is replaced.
    """
    root = trust_dir / f"{domain}.pem"
    for taken in (path, root):
        if taken.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(taken))
    made = CertificateAuthority.create(domain, now)
    write_new(path, made.to_pem())
    try:
        write_new(root, made.root_pem(), 0o644)
    except OSError:
        path.unlink()  # a key without its root would be in the way of the next try
        raise
    return made
