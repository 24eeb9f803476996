"""The form of a device certificate: everything except its serial number, key, two URIs and signature.

All device certificates that a CA issues on one day have the same form. Path validation (RFC 5280) checks the form,
the signature, and that the other parts are well-formed. So its result for one certificate holds for every
well-formed certificate of the same form that the same key signed. A certificate that this module can't parse is
left to path validation.

Source: RFC 5280, section 4.1; the encoding is DER (X.690): shortest lengths, integers without leading zero bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

_SEQUENCE, _INTEGER, _BITS, _OCTETS, _URI, _EXTENSIONS = 0x30, 0x02, 0x03, 0x04, 0x86, 0xA3
# Certificate and tbsCertificate (both of 256 bytes at least), version, then tag and length of the serial number.
_HEAD = struct.Struct(">HHHH5sBB")
_LONG_SEQUENCE = 0x3082
_V3 = bytes.fromhex("a003020102")
_ED25519 = bytes.fromhex(
    "302a300506032b6570032100"
)  # SubjectPublicKeyInfo (RFC 8410, section 4), then 32 bytes
_SAN_CRITICAL = bytes.fromhex("0603551d110101ff")
_KEY_SIZE = 32
_MAX_SERIAL = 20  # bytes (RFC 5280, section 4.1.2.2)


@dataclass(slots=True)
class DeviceCertificate:
    """A parsed certificate. Two with equal `form` differ only in serial number, key, URIs and signature."""

    form: tuple[bytes, ...]
    key: bytes
    uris: tuple[str, str]
    signed: bytes
    signature: bytes

    @classmethod
    def read(cls, der: bytes) -> DeviceCertificate | None:
        """Parse a certificate for an Ed25519 key (32 bytes) and two URIs; return None for any other kind."""
        try:
            return _read(der)
        except (_OtherForm, IndexError, UnicodeDecodeError, struct.error):
            return None


class _OtherForm(Exception):
    """The certificate has another form than this module parses."""


def _read(der: bytes) -> DeviceCertificate:
    end, start = len(der), 4
    outer, size, inner, tbs_size, version, integer, serial = _HEAD.unpack_from(der)
    tbs_end, names_start = start + 4 + tbs_size, _HEAD.size + serial
    if not (
        outer == inner == _LONG_SEQUENCE
        and size == end - 4 >= tbs_end - 4
        and tbs_size >= 0x100
        and version == _V3
        and integer == _INTEGER
        and 0 < serial <= _MAX_SERIAL
    ):
        raise _OtherForm
    first = der[_HEAD.size]
    if first >= 0x80 or (first == 0 and (serial == 1 or der[_HEAD.size + 1] < 0x80)):
        raise _OtherForm  # a serial number is positive, without needless leading zero bytes
    names_end = der.find(_ED25519, names_start)
    key_start = names_end + len(_ED25519)
    _check_names(der[names_start:names_end])
    key_end = key_start + _KEY_SIZE
    at = _open_last(der, key_end, _EXTENSIONS, tbs_end)
    extensions = _open_last(der, at, _SEQUENCE, tbs_end)
    san, san_end, uris = _find_uris(der, extensions, tbs_end)
    algorithm_end = _open(der, tbs_end, _SEQUENCE, end)[1]
    at = _open_last(der, algorithm_end, _BITS, end)
    signature = _expect(der, at, b"\0")  # no unused bits
    return DeviceCertificate(
        (
            der[names_start:names_end],
            der[extensions:san],
            der[san_end:tbs_end],
            der[tbs_end:algorithm_end],
        ),
        der[key_start:key_end],
        uris,
        der[start:tbs_end],
        der[signature:end],
    )


@lru_cache(1024)  # equal in all certificates that a CA issues on one day
def _check_names(names: bytes) -> None:
    """Check that these are signature algorithm, issuer, validity and subject, so that the key follows them."""
    at = 0
    for _ in range(4):
        at = _open(names, at, _SEQUENCE, len(names))[1]
    if at != len(names):
        raise _OtherForm


def _find_uris(der: bytes, at: int, end: int) -> tuple[int, int, tuple[str, str]]:
    """Return start and end of the critical subjectAltName, and its two URIs."""
    while at < end:
        inside, after = _open(der, at, _SEQUENCE, end)
        if der.startswith(_SAN_CRITICAL, inside):
            return at, after, _read_uris(der, inside + len(_SAN_CRITICAL), after)
        at = after
    raise _OtherForm


def _read_uris(der: bytes, at: int, end: int) -> tuple[str, str]:
    at = _open_last(der, at, _OCTETS, end)
    at = _open_last(der, at, _SEQUENCE, end)
    first, first_end = _open(der, at, _URI, end)
    second = _open_last(der, first_end, _URI, end)
    return der[first:first_end].decode("ascii"), der[second:end].decode("ascii")


def _expect(der: bytes, at: int, constant: bytes) -> int:
    if not der.startswith(constant, at):
        raise _OtherForm
    return at + len(constant)


def _open(der: bytes, at: int, tag: int, limit: int) -> tuple[int, int]:
    """Return start and end of the content of the element at `at`, which must not exceed `limit`."""
    size, start = der[at + 1], at + 2
    if size >= 0x80:
        size, start = _long_size(der, at + 1)
    end = start + size
    if der[at] != tag or end > limit:
        raise _OtherForm
    return start, end


def _open_last(der: bytes, at: int, tag: int, end: int) -> int:
    """Return the start of the content of the element at `at`, which must end at `end`."""
    size, start = der[at + 1], at + 2
    if size >= 0x80:
        size, start = _long_size(der, at + 1)
    if der[at] != tag or start + size != end:
        raise _OtherForm
    return start


def _long_size(der: bytes, at: int) -> tuple[int, int]:
    """Read a length in the long form, with one or two length bytes; return it and the start of the content."""
    start = at + 1 + der[at] - 0x80
    size = int.from_bytes(der[at + 1 : start], "big")
    if not 0x81 <= der[at] <= 0x82 or size < (0x80 if der[at] == 0x81 else 0x100):
        raise _OtherForm
    return size, start
