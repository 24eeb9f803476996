"""The enrolment of a further device of a user: a code is shown on one device and typed on the other.

The code is 128 random bits. Two queues at the user's provider are derived from it, one for each direction, and for
each queue an HPKE key pair that only the two devices know. Messages in a queue are sealed to its key, with the code
in the HPKE context. The code is valid for one device and for one hour. Sans-IO.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from mimi_mmr.crypto.certificates import MAX_CERTIFICATE, MAX_CHAIN
from mimi_mmr.crypto.sealing import Kem, SealedBox, SealingKey, pad, unpad
from mimi_mmr.crypto.secret import AccessToken, Secret
from mimi_mmr.crypto.signing import expand_with_label
from mimi_mmr.errors import InvalidUri
from mimi_mmr.presentation import U8, Fixed, Opaque, Struct, Text, Vector
from mimi_mmr.protocol.accounts import AddDeviceRequest
from mimi_mmr.protocol.key_packages import OpenKeyPackage

CODE_SIZE = 16
CODE_LIFETIME = 3600
PADDING = 4096
_PURPOSE = "device enrolment"


class EnrolmentSecret(Secret):
    """The bits of the code, as a key."""


class DeviceCode:
    """The code that one device shows and the other asks for: 28 letters and digits in groups of four."""

    __slots__ = ("_bits",)

    def __init__(self, bits: bytes) -> None:
        """Make a code from its 16 bytes."""
        if len(bits) != CODE_SIZE:
            raise InvalidUri(f"a device code has {CODE_SIZE} bytes, got {len(bits)}")
        self._bits = bits

    @classmethod
    def generate(cls) -> DeviceCode:
        """Make a random code."""
        return cls(secrets.token_bytes(CODE_SIZE))

    @classmethod
    def parse(cls, text: str) -> DeviceCode:
        """Read a typed code. Grouping and case don't matter, nor do 0 for O and 1 for I. Raises `InvalidUri`."""
        plain = "".join(text.replace("-", "").split()).upper().translate(str.maketrans("01", "OI"))
        try:
            data = base64.b32decode(plain + "=" * (-len(plain) % 8))
        except ValueError:
            raise InvalidUri("the device code is mistyped: expected letters and the digits 2 to 7") from None
        if len(data) != CODE_SIZE + 1 or data[CODE_SIZE:] != _check(data[:CODE_SIZE]):
            raise InvalidUri("the device code is mistyped: its check letters don't fit")
        code = cls(data[:CODE_SIZE])
        if code.reveal().replace("-", "") != plain:  # the last letter has unused bits
            raise InvalidUri("the device code is mistyped: its last letter doesn't fit")
        return code

    def reveal(self) -> str:
        """Return the code as it is shown."""
        plain = base64.b32encode(self._bits + _check(self._bits)).decode().rstrip("=")
        return "-".join(plain[start : start + 4] for start in range(0, len(plain), 4))

    def __repr__(self) -> str:
        return "<DeviceCode>"

    @property
    def bits(self) -> bytes:
        """The 16 bytes, to be kept in the vault."""
        return self._bits

    def to_existing(self) -> Channel:
        """Return the channel from the new device to the existing one."""
        return Channel(self._secret(), "to the existing device")

    def to_new(self) -> Channel:
        """Return the channel from the existing device to the new one."""
        return Channel(self._secret(), "to the new device")

    def _secret(self) -> EnrolmentSecret:
        return EnrolmentSecret(hashlib.sha256(b"MIMI-MMR 1.0 device code" + self._bits).digest())


class Channel:
    """One direction between the two devices: a queue, and the key that its messages are sealed to."""

    __slots__ = ("_context", "_key", "token")

    def __init__(self, secret: EnrolmentSecret, direction: str) -> None:
        """Derive the queue's token and the key pair from the code."""
        place = direction.encode()
        self.token = AccessToken(expand_with_label(secret, "enrolment queue", place))
        self._key = SealingKey(Kem.X25519, expand_with_label(secret, "enrolment key", place))
        # The secret in the context means that only somebody who knows the code can seal to this key.
        self._context = expand_with_label(secret, "enrolment context", place)

    def seal(self, content: Struct) -> SealedBox:
        """Seal a message for the other device."""
        return self._key.public.seal(_PURPOSE, self._context, pad(content.to_bytes(), PADDING))

    def open(self, message: bytes) -> bytes:
        """Open a message of the other device; raises `SealedBoxRejected` or `ParseError`."""
        return unpad(self._key.open(_PURPOSE, self._context, SealedBox.from_bytes(message)))


@dataclass(frozen=True, slots=True)
class EnrolmentRequest(Struct):
    """Message of the new device: what the existing device asks the provider to certify."""

    KIND: ClassVar[int] = 1
    kind: Annotated[int, U8]
    request: AddDeviceRequest


@dataclass(frozen=True, slots=True)
class EnrolmentGrant(Struct):
    """Message of the existing device: certificate chain, the user's identity key, the devices' pseudonym."""

    chain: Annotated[tuple[bytes, ...], Vector(Opaque(MAX_CERTIFICATE), count=MAX_CHAIN)]
    identity_seed: Annotated[bytes, Fixed(32)] = field(repr=False)
    set_seed: Annotated[bytes, Fixed(32)] = field(repr=False)


@dataclass(frozen=True, slots=True)
class EnrolmentRefusal(Struct):
    """Message of the existing device instead of a grant: it did not add the device of this key, and why.

    `EnrolmentGrant` has no kind; no grant begins with this one, since no length does (RFC 9420, section 2.1.2). The
    key is there since another device may try the same code afterwards, and reads the same queue.
    """

    KIND: ClassVar[int] = 255
    kind: Annotated[int, U8]
    device_public_key: Annotated[bytes, Fixed(32)]
    reason: Annotated[str, Text(1024)]


@dataclass(frozen=True, slots=True)
class EnrolmentArrival(Struct):
    """Message of the certified new device: the KeyPackage that adds it to the devices' room."""

    KIND: ClassVar[int] = 2
    kind: Annotated[int, U8]
    package: OpenKeyPackage


def _check(bits: bytes) -> bytes:
    return hashlib.sha256(b"MIMI-MMR 1.0 device code check" + bits).digest()[:1]
