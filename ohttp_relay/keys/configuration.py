"""Key configurations and lists of them (RFC 9458, section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ohttp_relay.errors import InvalidKeyList, NoUsableKey
from ohttp_relay.hpke.kem import KEMS, KemId
from ohttp_relay.hpke.suites import HKDF_SHA256, AeadId, Suite

MEDIA_TYPE: Final = "application/ohttp-keys"

BARE_TYPE: Final = "application/octet-stream"
"""The media type of a bare configuration, which has none of its own and is no list."""

DEFAULT_SUITES: Final = tuple(
    Suite(HKDF_SHA256, aead) for aead in (AeadId.AES_128_GCM, AeadId.AES_256_GCM, AeadId.CHACHA20_POLY1305)
)


@dataclass(frozen=True, slots=True)
class KeyConfig:
    """One key configuration: identifier 0..255, KEM, public key (Npk bytes), suites by preference."""

    key_id: int
    kem_id: int
    public_key: bytes
    suites: Sequence[Suite] = DEFAULT_SUITES

    def to_bytes(self) -> bytes:
        """Return the configuration's encoding (RFC 9458, section 3.1)."""
        pairs = b"".join(
            suite.kdf.to_bytes(2, "big") + suite.aead.to_bytes(2, "big") for suite in self.suites
        )
        header = self.key_id.to_bytes(1, "big") + self.kem_id.to_bytes(2, "big")
        return header + self.public_key + len(pairs).to_bytes(2, "big") + pairs

    @classmethod
    def from_bytes(cls, data: bytes) -> KeyConfig:
        """Parse a configuration that fills `data`.  Raises InvalidKeyList; NoUsableKey for an unknown KEM."""
        if len(data) < 3:
            raise InvalidKeyList(f"a key configuration has more than {len(data)} bytes", 0)
        kem = KEMS.get(int.from_bytes(data[1:3], "big"))
        if kem is None:
            raise NoUsableKey(f"KEM 0x{data[1:3].hex()} is not known")
        end = 3 + kem.public_size
        return cls(data[0], int(kem.id), data[3:end], _parse_suites(data, end))

    def choose(self, preferred: Sequence[int] = ()) -> Suite | None:
        """Return the first usable suite, those with an AEAD in `preferred` before others; None if there is none."""
        usable = [suite for suite in self.suites if suite.supported]
        ranked = [suite for aead in preferred for suite in usable if suite.aead == aead]
        return next(iter([*ranked, *usable]), None)


def _parse_suites(data: bytes, offset: int) -> tuple[Suite, ...]:
    pairs = data[offset + 2 :]
    length = int.from_bytes(data[offset : offset + 2], "big")
    if len(data) < offset + 6 or length != len(pairs) or length % 4:
        raise InvalidKeyList("public key or symmetric algorithms have the wrong length", offset)
    numbers = [int.from_bytes(pairs[i : i + 2], "big") for i in range(0, length, 2)]
    return tuple(Suite(kdf, aead) for kdf, aead in zip(numbers[::2], numbers[1::2], strict=True))


def encode_key_list(configs: Iterable[KeyConfig]) -> bytes:
    """Return the content of `application/ohttp-keys`: each configuration after its 2-byte length."""
    encoded = [config.to_bytes() for config in configs]
    return b"".join(len(config).to_bytes(2, "big") + config for config in encoded)


def decode_key_list(data: bytes) -> tuple[KeyConfig, ...]:
    """Parse a key list; entries with an unknown KEM are skipped by their length.

    A bare configuration without a length, which some gateways still serve, is accepted.  Any other
    encoding error discards the list whole (RFC 9458, section 3.2): InvalidKeyList.
    """
    try:
        return _decode_list(data)
    except InvalidKeyList as error:
        try:
            return (KeyConfig.from_bytes(data),)
        except (InvalidKeyList, NoUsableKey):
            raise error from None


def _decode_list(data: bytes) -> tuple[KeyConfig, ...]:
    if not data:
        raise InvalidKeyList("key list is empty", 0)
    configs: list[KeyConfig] = []
    offset = 0
    while offset < len(data):
        start, offset = offset + 2, offset + 2 + int.from_bytes(data[offset : offset + 2], "big")
        if offset > len(data):
            raise InvalidKeyList("key configuration is longer than the list", start)
        try:
            configs.append(KeyConfig.from_bytes(data[start:offset]))
        except NoUsableKey:  # not an encoding error: the length prefix tells where the next one starts
            continue
    return tuple(configs)


def bare_config(configs: Sequence[KeyConfig]) -> KeyConfig:
    """Return the configuration for clients that read a bare one and no list: the first of X25519, else the first.

    Raises NoUsableKey if there is none.
    """
    if not configs:
        raise NoUsableKey("there is no key configuration")
    return next((config for config in configs if config.kem_id == KemId.X25519), configs[0])


def choose_config(
    configs: Iterable[KeyConfig], kems: Sequence[int] = (), aeads: Sequence[int] = ()
) -> tuple[KeyConfig, Suite]:
    """Return the configuration and suite to use, by the order of `kems` (default: `KEMS`), then of the list.

    Raises NoUsableKey.
    """
    candidates = list(configs)
    for kem in kems or tuple(KEMS):
        for config in candidates:
            suite = config.choose(aeads) if config.kem_id == kem else None
            if suite is not None:
                return config, suite
    raise NoUsableKey("no key configuration in the list has a KEM, KDF and AEAD supported here")
