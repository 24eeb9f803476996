"""The keys of a client's state file: one derived from the passphrase, and the data key that it seals."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
import unicodedata
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from mimi_mmr.client.storage.vault_migrations import latest
from mimi_mmr.crypto.aead import InvalidTag, RandomNonceCipher
from mimi_mmr.crypto.secret import Secret
from mimi_mmr.errors import StateError


@dataclass(frozen=True, slots=True)
class Derivation:
    """How a passphrase becomes a key: argon2id, RFC 9106's second recommended option or better; memory in KiB.

    It also has the vault's version, which is authenticated with the key like the other fields.
    """

    memory: int = 1 << 16
    iterations: int = 3
    lanes: int = 4
    salt: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    version: int = field(default_factory=latest)

    def to_bytes(self) -> bytes:
        """Return the form that is stored in the file."""
        return struct.pack(">BIII16s", self.version, self.memory, self.iterations, self.lanes, self.salt)

    @classmethod
    def from_bytes(cls, data: bytes) -> Derivation:
        """Parse a derivation; `StateError` if it is weaker than the default, or far too expensive to compute."""
        try:
            version, memory, iterations, lanes, salt = struct.unpack(">BIII16s", data)
        except struct.error:
            raise StateError("the state file is damaged: expected a key derivation of 29 bytes") from None
        if not 1 <= version <= latest():
            raise StateError(f"the state file has version {version}, expected {latest()} or less")
        if not (1 << 16 <= memory <= 1 << 20 and 3 <= iterations <= 32 and 4 <= lanes <= 16):
            raise StateError("the state file is damaged: its key derivation is out of bounds")
        return cls(memory, iterations, lanes, salt, version)

    def key(self, passphrase: str) -> bytes:
        """Derive the key of a passphrase, after Unicode normalisation."""
        kdf = Argon2id(
            salt=self.salt, length=32, iterations=self.iterations, lanes=self.lanes, memory_cost=self.memory
        )
        return kdf.derive(unicodedata.normalize("NFC", passphrase).encode(errors="surrogatepass"))


class DataKey(Secret):
    """The key with which rows are named, sealed and counted."""

    def sealed(self, kdf: Derivation, passphrase: str) -> bytes:
        """Return the sealed form that is stored in the file, bound to the stored derivation."""
        return RandomNonceCipher(kdf.key(passphrase)).seal(self.reveal(), kdf.to_bytes())

    @classmethod
    def open(cls, sealed: bytes, kdf: Derivation, passphrase: str) -> DataKey:
        """Open the key; raise `StateError` when the passphrase does not."""
        try:
            return cls(RandomNonceCipher(kdf.key(passphrase)).open(sealed, kdf.to_bytes()))
        except (InvalidTag, ValueError):
            raise StateError("wrong passphrase") from None


class VaultKeys:
    """The data key's three uses."""

    def __init__(self, key: DataKey) -> None:
        self.naming, self.counting, sealing = (
            hmac.digest(key.reveal(), b"MIMI-MMR 1.0 vault " + use, hashlib.sha256)
            for use in (b"row id", b"row count", b"row")
        )
        self._rows = RandomNonceCipher(sealing)

    def seal(self, bound: bytes, content: bytes) -> bytes:
        """Return nonce and ciphertext.

        Nonces are 96 random bits, since restoring a copy of the file would reset a counter. After 2^32 seals (more
        than a hundred writes a second for a year) two nonces are equal with probability 2^-32. A new passphrase
        comes with a new data key.
        """
        return self._rows.seal(content, bound)

    def open(self, bound: bytes, sealed: bytes) -> bytes:
        """Return the plaintext; raise `InvalidTag`."""
        return self._rows.open(sealed, bound)
