"""The root key, sealed to join links by HPKE (RFC 9180), with X25519 or ML-KEM-768 and X25519."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from treewrap.codec import vector
from treewrap.errors import LinkError
from treewrap.labels import SEAL_INFO
from treewrap.links.records import Kem, Link, LinkSeal, LiveLink
from treewrap.secret import RootKey
from treewrap.suite import GroupContext

_KDF, _AEAD = hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM
_SUITES = {
    Kem.X25519: hpke.Suite(hpke.KEM.X25519, _KDF, _AEAD),
    Kem.MLKEM768_X25519: hpke.Suite(hpke.KEM.MLKEM768_X25519, _KDF, _AEAD),
}
_X25519_SIZE, _MLKEM_PUBLIC_SIZE, _MLKEM_SEED_SIZE = 32, 1184, 64


class LinkKey:
    """The private key of a join link, which the link carries. Never printed, never pickled."""

    __slots__ = ("_mlkem", "_x25519", "kem")

    def __init__(self, x25519: X25519PrivateKey, mlkem: MLKEM768PrivateKey | None = None) -> None:
        self.kem = Kem.X25519 if mlkem is None else Kem.MLKEM768_X25519
        self._x25519 = x25519
        self._mlkem = mlkem

    @classmethod
    def generate(cls, kem: Kem = Kem.MLKEM768_X25519) -> Self:
        """Generate a new one, with a post-quantum KEM by default."""
        hybrid = kem is Kem.MLKEM768_X25519
        return cls(X25519PrivateKey.generate(), MLKEM768PrivateKey.generate() if hybrid else None)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read a key: 32 bytes (X25519), or 96 (an ML-KEM-768 seed of 64 bytes, then X25519). Raises LinkError."""
        if len(content) not in (_X25519_SIZE, _MLKEM_SEED_SIZE + _X25519_SIZE):
            raise LinkError(f"link key: expected 32 or 96 bytes, got {len(content)}")
        seed, x25519 = content[:-_X25519_SIZE], content[-_X25519_SIZE:]
        mlkem = MLKEM768PrivateKey.from_seed_bytes(seed) if seed else None
        return cls(X25519PrivateKey.from_private_bytes(x25519), mlkem)

    def reveal(self) -> bytes:
        """Return its 32 or 96 bytes, for the link to carry."""
        seed = self._mlkem.private_bytes_raw() if self._mlkem else b""
        return seed + self._x25519.private_bytes_raw()

    @property
    def public_key(self) -> bytes:
        """Its public key, for `Link.public_key`: 32 or 1216 bytes."""
        first = self._mlkem.public_key().public_bytes_raw() if self._mlkem else b""
        return first + self._x25519.public_key().public_bytes_raw()

    def open(self, seal: LinkSeal, context: GroupContext, epoch: int, tree_hash: bytes) -> RootKey:
        """Open the root key sealed to this link. Raises LinkError.

        Internal: it can't know whether the link has expired, which is sealed in the root. `open_link` checks that.
        """
        own = hpke.MLKEM768X25519PrivateKey(self._mlkem, self._x25519) if self._mlkem else self._x25519
        try:
            info = _info(context, seal.link_id, epoch, tree_hash)
            return RootKey(_SUITES[self.kem].decrypt(seal.sealed, own, info))
        except (InvalidTag, ValueError):
            raise LinkError(f"link {seal.link_id.hex()}: its seal does not open for epoch {epoch}") from None

    def __repr__(self) -> str:
        return f"LinkKey({self.kem.name}, ...)"

    def __reduce__(self) -> str:
        raise TypeError("LinkKey: must not be pickled or copied")


def check_public_key(link: Link) -> None:
    """Check that HPKE accepts a link's public key. Otherwise every later commit would fail. Raises LinkError."""
    _seal(link, bytes(_X25519_SIZE), b"")


def seal_root(
    context: GroupContext, links: Iterable[LiveLink], root_key: RootKey, epoch: int, tree_hash: bytes
) -> tuple[LinkSeal, ...]:
    """Seal the root key to every live link, into 80 or 1168 bytes each. Raises LinkError."""
    return tuple(
        LinkSeal(
            live.link.id,
            _seal(live.link, root_key.reveal(), _info(context, live.link.id, epoch, tree_hash)),
        )
        for live in links
    )


def _info(context: GroupContext, link_id: bytes, epoch: int, tree_hash: bytes) -> bytes:
    return vector(SEAL_INFO) + context.group + link_id + epoch.to_bytes(8, "big") + tree_hash


def _seal(link: Link, plaintext: bytes, info: bytes) -> bytes:
    try:
        return _SUITES[link.kem].encrypt(plaintext, _public_key(link), info)
    except ValueError as error:
        raise LinkError(f"link {link.id.hex()}: public key: {error}") from None


def _public_key(link: Link) -> X25519PublicKey | hpke.MLKEM768X25519PublicKey:
    content = link.public_key
    if link.kem is Kem.X25519:
        return X25519PublicKey.from_public_bytes(content)
    mlkem, x25519 = content[:_MLKEM_PUBLIC_SIZE], content[_MLKEM_PUBLIC_SIZE:]
    return hpke.MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(mlkem), X25519PublicKey.from_public_bytes(x25519)
    )
