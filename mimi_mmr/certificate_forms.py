"""The form of a device certificate: all of it but the serial number, the key and the two URIs.

A provider's CA gives one form to all the devices that it certifies on one day. Path validation (RFC 5280) looks
at nothing else of a certificate than its form and its signature, so its verdict on one holds for every other of
the form; what this module can't take apart, it leaves to path validation.

Source: RFC 5280, section 4.1; the encoding is DER (X.690): a length in its shortest form, a number without
needless zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

_SEQUENCE, _INTEGER, _BITS, _OCTETS, _URI, _EXTENSIONS = 0x30, 0x02, 0x03, 0x04, 0x86, 0xA3
_V3 = bytes.fromhex("a003020102")
_ED25519 = bytes.fromhex(
    "302a300506032b6570032100"
)  # SubjectPublicKeyInfo (RFC 8410, section 4), then 32 bytes
_SAN_CRITICAL = bytes.fromhex("0603551d110101ff")
_KEY_SIZE = 32
_MAX_SERIAL = 20


@dataclass(frozen=True, slots=True)
class DeviceCertificate:
    """A certificate taken apart. Two with an equal `form` differ in serial number, key, URIs, signature only."""

    form: bytes
    key: bytes
    uris: tuple[str, str]
    signed: bytes
    signature: bytes

    @classmethod
    def read(cls, der: bytes) -> DeviceCertificate | None:
        """Take apart a certificate for an Ed25519 key (32 bytes) and two URIs; None if it is another kind."""
        try:
            return _read(der)
        except (_OtherForm, IndexError, UnicodeDecodeError):
            return None


class _OtherForm(Exception):
    """Not what is looked for here."""


def _read(der: bytes) -> DeviceCertificate:
    start, end = _whole(der, 0, _SEQUENCE, len(der))
    at, tbs_end = _open(der, start, _SEQUENCE, end)
    signed = der[start:tbs_end]
    at = _skip_serial(der, _expect(der, at, _V3), tbs_end)
    names_start = at
    for _ in range(4):  # signature algorithm, issuer, validity, subject
        at = _open(der, at, _SEQUENCE, tbs_end)[1]
    names = der[names_start:at]
    at = _expect(der, at, _ED25519)
    key = der[at : at + _KEY_SIZE]
    at, _ = _whole(der, at + _KEY_SIZE, _EXTENSIONS, tbs_end)
    at, _ = _whole(der, at, _SEQUENCE, tbs_end)
    before, uris, after = _split_extensions(der, at, tbs_end)
    algorithm_end = _open(der, tbs_end, _SEQUENCE, end)[1]
    at, _ = _whole(der, algorithm_end, _BITS, end)
    at = _expect(der, at, b"\0")  # no unused bits
    parts = (names, before, after, der[tbs_end:algorithm_end])
    form = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return DeviceCertificate(form, key, uris, signed, der[at:end])


def _split_extensions(der: bytes, at: int, end: int) -> tuple[bytes, tuple[str, str], bytes]:
    """What stands before the critical subjectAltName, its two URIs, and what stands after it."""
    start = at
    while at < end:
        inside, after = _open(der, at, _SEQUENCE, end)
        if der.startswith(_SAN_CRITICAL, inside):
            return der[start:at], _read_uris(der, inside + len(_SAN_CRITICAL), after), der[after:end]
        at = after
    raise _OtherForm


def _read_uris(der: bytes, at: int, end: int) -> tuple[str, str]:
    at, _ = _whole(der, at, _OCTETS, end)
    at, _ = _whole(der, at, _SEQUENCE, end)
    first, first_end = _open(der, at, _URI, end)
    second, _ = _whole(der, first_end, _URI, end)
    return der[first:first_end].decode("ascii"), der[second:end].decode("ascii")


def _skip_serial(der: bytes, at: int, end: int) -> int:
    """Past a positive number of at most 20 bytes (RFC 5280, section 4.1.2.2), with no needless zero in front."""
    start, after = _open(der, at, _INTEGER, end)
    serial = der[start:after]
    needless = serial[:1] == b"\0" and serial[1:2] < b"\x80"
    if not 0 < len(serial) <= _MAX_SERIAL or serial[0] >= 0x80 or needless:
        raise _OtherForm
    return after


def _expect(der: bytes, at: int, constant: bytes) -> int:
    if not der.startswith(constant, at):
        raise _OtherForm
    return at + len(constant)


def _open(der: bytes, at: int, tag: int, limit: int) -> tuple[int, int]:
    """Where the content of the element at `at` starts and ends."""
    if der[at] != tag:
        raise _OtherForm
    size = der[at + 1]
    start = at + 2
    if size >= 0x80:
        start += size - 0x80
        least = 0x80 if size == 0x81 else 0x100
        if not 0x81 <= size <= 0x82:
            raise _OtherForm
        size = int.from_bytes(der[at + 2 : start], "big")
        if size < least:
            raise _OtherForm
    if start + size > limit:
        raise _OtherForm
    return start, start + size


def _whole(der: bytes, at: int, tag: int, end: int) -> tuple[int, int]:
    """The same for an element that must end at `end`."""
    bounds = _open(der, at, tag, end)
    if bounds[1] != end:
        raise _OtherForm
    return bounds
