"""MIMI URIs (`mimi://provider/kind/name`) and pseudonyms.

-06 writes identifiers as MIMI URIs; kinds here are `u` (user), `d` (device), `r` (room), and for pseudonyms
`p` (user pseudonym) and `c` (client pseudonym), each a UUID qualified by the provider's domain. A device's name is
unique within its user's account, so its URI names the user as well: `mimi://provider/d/user/name`.
"""

from __future__ import annotations

import enum
import hashlib
import ipaddress
import re
import unicodedata
import uuid
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Self
from urllib.parse import urlsplit

from mimi_mmr.errors import InvalidUri, ParseError
from mimi_mmr.presentation import Opaque, Reader, Struct, slot, vec

MAX_URI = 520  # that of a device whose domain, user and name have their greatest lengths
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})+\Z")
_ADDRESS = re.compile(
    r"(?:.*\.)?\d[0-9a-fx]*\.?\Z|[^/]*:.*"
)  # what some programs read as an IPv4 or IPv6 address
_ALSO_IN_U_LABELS = "-\u00b7\u0375\u05f3\u05f4\u200c\u200d\u30fb"  # RFC 5892, appendix A
_BAD_NAME = "expected a name of 1 to 128 lower-case letters, digits, or . _ ~ - inside"
_LETTERS = r"[a-z0-9](?:[a-z0-9._~-]{0,126}[a-z0-9])?"
_NAME = re.compile(rf"{_LETTERS}\Z")
_URI = re.compile(rf"mimi://([^/]{{1,253}})/([a-z])/({_LETTERS})(?:/({_LETTERS}))?\Z")


class Kind(enum.StrEnum):
    """The kind of thing that a MIMI URI names."""

    USER = "u"
    DEVICE = "d"
    ROOM = "r"
    USER_PSEUDONYM = "p"
    CLIENT_PSEUDONYM = "c"


_KINDS = {kind.value: kind for kind in Kind}


@lru_cache(1024)  # a room has few provider domains
def check_domain(domain: str) -> str:
    """Return a provider's domain, or raise `InvalidUri`: a DNS name with at least two labels, in one spelling.

    That is: lower case, no dot at the end, A-labels for other letters than ASCII's (RFC 5890, section 2.3.2.1). No
    address: the last label begins with a letter (RFC 1123, section 2.1).
    """
    if _ADDRESS.match(domain):
        raise InvalidUri("expected a domain name, got what looks like an IP address or has a port")
    if not _DOMAIN.match(domain):
        raise InvalidUri(
            "expected a lower-case domain name with at least two labels, without a dot at its end, and with"
            " A-labels (xn--…) for other letters than a to z"
        )
    labels = domain.split(".")
    if not labels[-1][0].isalpha():
        raise InvalidUri("expected a domain name whose last label begins with a letter")
    if not all(_is_plain(label) or _is_a_label(label) for label in labels):
        raise InvalidUri("a label of the domain is not a valid A-label (xn--…)")
    return domain


def _is_plain(label: str) -> bool:
    return label[2:4] != "--"  # RFC 5891, section 4.2.3.1


def _is_a_label(label: str) -> bool:
    """Return whether a label is the one encoding of letters that need it (RFC 5890, section 2.3.2.1)."""
    prefix, encoded = label[:4], label[4:]
    try:
        text = encoded.encode("ascii").decode("punycode")
        again = text.encode("punycode").decode("ascii")
        text.encode()  # refuses surrogates
    except ValueError:
        return False
    return (
        prefix == "xn--"
        and again == encoded
        and not text.isascii()
        and unicodedata.normalize("NFC", text.lower()) == text
        and all(unicodedata.category(letter)[0] in "LMN" or letter in _ALSO_IN_U_LABELS for letter in text)
    )


def check_name(name: str) -> str:
    """Return a local name (lower-case letters, digits and `. _ ~ -` inside), or raise `InvalidUri`."""
    if not _NAME.match(name):
        raise InvalidUri(_BAD_NAME)
    return name


@dataclass(frozen=True, slots=True, order=True)
class MimiUri:
    """`mimi://domain/kind/name`, checked; for a device, `mimi://domain/d/owner/name`.

    `owner` is the name of the user whose device it is. It is empty in other URIs, and in those of devices that were
    registered before version 0.3.0: `mimi://domain/d/name`.
    """

    domain: str
    kind: Kind
    name: str
    owner: str = ""

    def __post_init__(self) -> None:
        """Refuse a URI that `parse` would not accept."""
        check_domain(self.domain)
        check_name(self.name)
        if self.owner:
            _check_owner(self.kind, self.owner)

    def __str__(self) -> str:
        if self.owner:
            return f"mimi://{self.domain}/{self.kind}/{self.owner}/{self.name}"
        return f"mimi://{self.domain}/{self.kind}/{self.name}"

    @classmethod
    def of_device(cls, user: MimiUri, name: str) -> Self:
        """Return the URI of a user's device; raise `InvalidUri` for a name that is none."""
        return cls(user.domain, Kind.DEVICE, name, user.name)

    @classmethod
    def parse(cls, text: str, kind: Kind | None = None) -> Self:
        """Parse a URI, of the given kind if one is given; raise `InvalidUri`."""
        whole = _URI.match(text)
        domain, letter, first, second = whole.groups() if whole else _parts(text)
        found = _KINDS.get(letter)
        if found is None:
            raise InvalidUri("unknown kind of MIMI URI")
        if kind is not None and found is not kind:
            raise InvalidUri(f"expected a {kind.name} URI, got a {found.name} one")
        if not whole:
            check_name(first)
        name, owner = (first, "") if second is None else (second, _check_owner(found, first))
        made = object.__new__(cls)  # sets the slots directly, which is faster than `__init__`
        _put_domain(made, check_domain(domain))
        _put_kind(made, found)
        _put_name(made, name)
        _put_owner(made, owner)
        return made


def _check_owner(kind: Kind, owner: str) -> str:
    if kind is not Kind.DEVICE:
        raise InvalidUri("only the URI of a device names two")
    return check_name(owner)


def _parts(text: str) -> tuple[str, str, str, None]:
    """Split a URI into domain, kind and name, without checking them; raise `InvalidUri`."""
    parts = text.split("/")
    if len(parts) != 5 or parts[0] != "mimi:" or parts[1] or len(text) > MAX_URI:
        raise InvalidUri("expected mimi://domain/kind/name")
    return parts[2], parts[3], parts[4], None


_HOST = re.compile(r"[a-z0-9._-]{1,253}")


def https_origin(text: str, *, with_path: bool = False) -> str:
    """Return an origin, `https://host[:port]`, in its one spelling, so that two can be compared.

    That is: lower case, no port 443, no dot at the end, addresses in their shortest form. With `with_path` a path
    and a query may follow, which are left out. Raises `InvalidUri`. Source: RFC 6454, section 6.1.
    """
    if not text.isascii() or not text.isprintable() or " " in text:  # `urlsplit` would leave some letters out
        raise InvalidUri("expected https://host[:port] in ASCII (xn--… for other letters)")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", 443 if parts.port is None else parts.port
    except ValueError:
        raise InvalidUri("expected https://host[:port]") from None
    more = parts.path not in ("", "/") or parts.query or "?" in text or "#" in text
    if parts.scheme != "https" or "@" in parts.netloc or not port or (more and not with_path):
        raise InvalidUri("expected https://host[:port]")
    return f"https://{_one_host(host)}" + ("" if port == 443 else f":{port}")


def _one_host(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.lower().removesuffix(".")
        if not _HOST.fullmatch(name) or "" in name.split("."):
            raise InvalidUri("expected https://host[:port], with a name or an address as its host") from None
        return name
    if "%" in host:
        raise InvalidUri("expected https://host[:port], got an address with a zone")
    return f"[{address}]" if address.version == 6 else str(address)


_OPAQUE = Opaque(MAX_URI)
_put_domain, _put_kind, _put_name, _put_owner = (
    slot(MimiUri, name) for name in ("domain", "kind", "name", "owner")
)


@dataclass(frozen=True, slots=True)
class UriCodec:
    """`IdentifierUri` (-06, "Fetch Key Material"): `opaque uri<V>`, parsed when it is read."""

    kind: Kind | None = None

    def write(self, out: bytearray, value: MimiUri) -> None:
        """Append the value."""
        out += vec(str(value).encode())  # the limits of the parts keep this below MAX_URI bytes

    def read(self, reader: Reader, what: str) -> MimiUri:
        """Read one value."""
        start = reader.offset
        try:
            return MimiUri.parse(_OPAQUE.read(reader, what).decode(), self.kind)
        except UnicodeDecodeError:
            raise ParseError(f"{what} is not UTF-8", start) from None
        except InvalidUri as error:
            raise ParseError(f"{what}: {error}", start) from None


USER = UriCodec(Kind.USER)
DEVICE = UriCodec(Kind.DEVICE)
ROOM = UriCodec(Kind.ROOM)
USER_PSEUDONYM = UriCodec(Kind.USER_PSEUDONYM)
CLIENT_PSEUDONYM = UriCodec(Kind.CLIENT_PSEUDONYM)


def uuid8(digest: bytes) -> str:
    """Write the first 16 bytes of a hash as a UUIDv8 (RFC 9562, section 5.8)."""
    text = digest[:16].hex()
    variant = "89ab"[digest[8] >> 4 & 3]
    return f"{text[:8]}-{text[8:12]}-8{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


def self_certifying_pseudonym(domain: str, set_public_key: bytes) -> MimiUri:
    """Return the user pseudonym made of the hash of an Ed25519 key (32 bytes); only its holder can prove it."""
    return MimiUri(domain, Kind.USER_PSEUDONYM, _pseudonym(domain, set_public_key))


def is_self_certifying(user: MimiUri, set_public_key: bytes) -> bool:
    """Return whether this is the user pseudonym of that key."""
    return user.kind is Kind.USER_PSEUDONYM and user.name == _pseudonym(user.domain, set_public_key)


def _pseudonym(domain: str, set_public_key: bytes) -> str:
    return uuid8(hashlib.sha256(_pseudonyms_of(domain) + vec(set_public_key)).digest())


@lru_cache(1024)  # see `check_domain`
def _pseudonyms_of(domain: str) -> bytes:
    return b"MIMI-MMR 1.0 user pseudonym" + vec(domain.encode())


def random_uri(domain: str, kind: Kind, rng_bytes: bytes) -> MimiUri:
    """Make a URI for a room or client pseudonym: a UUIDv4 from 16 random bytes."""
    return MimiUri(domain, kind, str(uuid.UUID(bytes=rng_bytes, version=4)))


@dataclass(frozen=True, slots=True)
class IdentifierUri(Struct):
    """-06's struct, for messages that carry nothing but a URI."""

    uri: Annotated[MimiUri, UriCodec()]
