"""X.509: a provider's CA, the certificates it issues to devices and to itself, and their verification.

The CA key is P-256, since `cryptography.x509.verification` (RFC 5280 path validation) does not permit Ed25519
issuers. Subjects' keys are Ed25519, the signature keys of MLS cipher suite 1.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from mimi_mmr.crypto.certificate_forms import DeviceCertificate
from mimi_mmr.errors import CertificateRejected, InvalidUri
from mimi_mmr.uris import Kind, MimiUri, check_domain

DEVICE_LIFETIME = datetime.timedelta(days=90)
CA_LIFETIME = datetime.timedelta(days=3650)
MAX_CHAIN = 4
MAX_CERTIFICATE = 4096
REMEMBERED = 16384
_BACKDATE = datetime.timedelta(hours=1)
_K = TypeVar("_K")
_V = TypeVar("_V")


def utc(now: float) -> datetime.datetime:
    """Return seconds since the epoch as an aware time."""
    return datetime.datetime.fromtimestamp(now, datetime.UTC)


def day(moment: datetime.datetime) -> datetime.datetime:
    """Return the start of the day, so that a certificate's times reveal the date only."""
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


class CertificateAuthority:
    """A provider's CA: one P-256 key, one self-signed root."""

    def __init__(self, domain: str, key: ec.EllipticCurvePrivateKey, root: x509.Certificate) -> None:
        """Store the key and its root certificate."""
        self.domain = domain
        self.root = root
        self._key = key

    @classmethod
    def create(cls, domain: str, now: float) -> CertificateAuthority:
        """Make a new CA for this domain."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(check_domain(domain))
        root = (
            _builder(name, name, key.public_key(), utc(now), CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_ca_usage(), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(domain, key, root)

    @classmethod
    def load(cls, domain: str, pem: bytes) -> CertificateAuthority:
        """Read the output of `to_pem`; raise `CertificateRejected`."""
        try:
            key, root = load_pem_private_key(pem, None), x509.load_pem_x509_certificate(pem)
        except ValueError:
            raise CertificateRejected(f"the CA file of {domain} is not a PEM key and certificate") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or root.subject != _name(domain):
            raise CertificateRejected(f"the CA file is not one of {domain}")
        return cls(domain, key, root)

    def to_pem(self) -> bytes:
        """Encode key and root; the result contains the private key."""
        key = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return key + self.root.public_bytes(Encoding.PEM)

    def root_pem(self) -> bytes:
        """Encode the trust anchor that others configure."""
        return self.root.public_bytes(Encoding.PEM)

    def issue_device(self, user: MimiUri, device: MimiUri, key: bytes, now: float) -> bytes:
        """Issue a device certificate (DER) over a 32-byte Ed25519 key, with both URIs as SANs."""
        for uri in (user, device):
            if uri.domain != self.domain:
                raise CertificateRejected(f"expected a URI of {self.domain}, got one of {uri.domain}")
        if device.owner not in ("", user.name):
            raise CertificateRejected("expected a device of the user, got another user's")
        names = x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier(str(uri)) for uri in (user, device)]
        )
        return self._issue(names, key, ExtendedKeyUsageOID.CLIENT_AUTH, now)

    def issue_provider(self, key: bytes, now: float) -> bytes:
        """Issue the provider's own certificate (DER); its key signs the provider's HPKE keys."""
        names = x509.SubjectAlternativeName([x509.DNSName(self.domain)])
        return self._issue(names, key, ExtendedKeyUsageOID.SERVER_AUTH, now)

    def issue_server(
        self, key: ec.EllipticCurvePublicKey, addresses: Sequence[str], now: float
    ) -> x509.Certificate:
        """Issue a TLS server certificate for the domain and the given IP addresses (tests, demos, private nets)."""
        alternatives: list[x509.GeneralName] = [x509.DNSName(self.domain)]
        alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        builder = self._subject(x509.SubjectAlternativeName(alternatives), key, now)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        return builder.add_extension(usage, critical=False).sign(self._key, hashes.SHA256())

    def _issue(
        self, names: x509.SubjectAlternativeName, key: bytes, usage: x509.ObjectIdentifier, now: float
    ) -> bytes:
        builder = self._subject(names, Ed25519PublicKey.from_public_bytes(key), now)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.DER)

    def _subject(
        self,
        names: x509.SubjectAlternativeName,
        key: Ed25519PublicKey | ec.EllipticCurvePublicKey,
        now: float,
    ) -> x509.CertificateBuilder:
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            _builder(x509.Name([]), self.root.subject, key, utc(now), DEVICE_LIFETIME)
            .add_extension(names, critical=True)
            .add_extension(issuer, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )


@dataclass(frozen=True, slots=True)
class Span:
    """A period of validity in seconds since the epoch, both ends included."""

    start: float
    end: float

    @classmethod
    def of(cls, chain: Iterable[x509.Certificate]) -> Span:
        """Return the period in which every certificate of a chain is valid."""
        spans = [(one.not_valid_before_utc.timestamp(), one.not_valid_after_utc.timestamp()) for one in chain]
        return cls(max(start for start, _ in spans), min(end for _, end in spans))


class Verdicts(Generic[_K, _V]):
    """A cache of positive verification results, by all verified content except the time; the oldest goes first."""

    __slots__ = ("_found", "_limit")

    def __init__(self, limit: int = REMEMBERED) -> None:
        """Make a cache of at most `limit` entries."""
        self._found: dict[_K, tuple[Span, _V]] = {}
        self._limit = limit

    def get(self, key: _K, now: float) -> tuple[Span, _V] | None:
        """Return a result that holds at this time, with its period of validity, or None."""
        found = self._found.get(key)
        return found if found is not None and found[0].start <= now <= found[0].end else None

    def put(self, key: _K, span: Span, value: _V) -> None:
        """Store a result."""
        if key not in self._found and len(self._found) >= self._limit:
            del self._found[next(iter(self._found))]
        self._found[key] = (span, value)


@dataclass(frozen=True, slots=True)
class _Issuer:
    """The key that signs certificates of a form that path validation has accepted."""

    key: ec.EllipticCurvePublicKey
    algorithm: ec.ECDSA

    def signed(self, certificate: DeviceCertificate) -> bool:
        try:
            self.key.verify(certificate.signature, certificate.signed, self.algorithm)
        except InvalidSignature:
            return False
        return True


@dataclass(slots=True)
class CertifiedDevice:
    """The verified content of a device's chain: URIs, 32-byte key, and the chain's period of validity."""

    user: MimiUri
    device: MimiUri
    key: bytes
    span: Span


@dataclass(slots=True)
class DeviceChain:
    """A device's chain (DER, the device's certificate first), parsed but not verified.

    `certificate` and its `names` (user, device) are None if `certificate_forms` can't parse the certificate; then
    path validation reads it.
    """

    chain: tuple[bytes, ...]
    certificate: DeviceCertificate | None = None
    names: tuple[MimiUri, MimiUri] | None = None

    @classmethod
    def read(cls, chain: Sequence[bytes]) -> DeviceChain:
        """Parse the chain's first certificate, if `certificate_forms` can."""
        certificate = DeviceCertificate.read(chain[0]) if chain else None
        if certificate is None:
            return cls(tuple(chain))
        try:
            names = _user_and_device([MimiUri.parse(uri) for uri in certificate.uris])
        except (InvalidUri, CertificateRejected):
            return cls(tuple(chain))
        return cls(tuple(chain), certificate, names)


def anchor_files(directory: Path) -> list[Path]:
    """Return the `.pem` files in a directory, sorted; editors and copying leave those that begin with a dot."""
    return sorted(path for path in directory.glob("*.pem") if not path.name.startswith("."))


_FormKey = tuple[str, tuple[bytes, ...], tuple[bytes, ...]]


@dataclass(slots=True)
class TrustAnchors:
    """The root certificates of each provider domain. No domain vouches for another.

    `devices` caches the results of verifying real credentials, by all of their content (`RealCredential.verify`).
    """

    roots: dict[str, tuple[x509.Certificate, ...]] = field(default_factory=dict)
    devices: Verdicts[tuple[object, ...], CertifiedDevice] = field(
        default_factory=Verdicts, repr=False, compare=False
    )
    _stores: dict[str, Store] = field(default_factory=dict, repr=False)
    _issuers: Verdicts[_FormKey, _Issuer] = field(default_factory=Verdicts, repr=False, compare=False)

    @classmethod
    def from_pem(cls, anchors: Mapping[str, bytes]) -> TrustAnchors:
        """Read one or more roots for each domain, as PEM; raise `CertificateRejected`."""
        roots = {}
        for domain, pem in anchors.items():
            try:
                roots[check_domain(domain)] = tuple(x509.load_pem_x509_certificates(pem))
            except ValueError:
                raise CertificateRejected(f"the trust anchor of {domain} is not a PEM certificate") from None
        return cls(roots)

    @classmethod
    def from_directory(cls, directory: Path) -> TrustAnchors:
        """Read a directory with one `<domain>.pem` for each provider."""
        return cls.from_pem({path.stem: path.read_bytes() for path in anchor_files(directory)})

    def replace(self, roots: Mapping[str, tuple[x509.Certificate, ...]]) -> None:
        """Trust these roots from now on, and forget what was verified under the old ones."""
        self.roots = dict(roots)
        self.devices, self._issuers = Verdicts(), Verdicts()
        self._stores.clear()

    def verify_device(self, chain: Sequence[bytes], now: float) -> tuple[MimiUri, MimiUri, bytes]:
        """Return a device's user URI, device URI and 32-byte key; raise `CertificateRejected`. See `certified`."""
        found = self.certified(DeviceChain.read(chain), now)
        return found.user, found.device, found.key

    def certified(self, chain: DeviceChain, now: float) -> CertifiedDevice:
        """Verify a device's chain and return what it says; raise `CertificateRejected`.

        The domain in the certificate selects the root, so that a provider can vouch for its own devices only. The
        first certificate of a form (`certificate_forms`) goes through path validation with the rest of its chain.
        For later certificates of that form with the same rest, only the signature and the parts outside the form
        are checked. If this quick check does not accept a certificate, path validation decides.
        """
        return self._by_form(chain, now) or self._by_path(chain, now)

    def _by_form(self, chain: DeviceChain, now: float) -> CertifiedDevice | None:
        if chain.certificate is None or chain.names is None:
            return None
        user, device = chain.names
        found = self._issuers.get((user.domain, chain.chain[1:], chain.certificate.form), now)
        if found is None or not found[1].signed(chain.certificate):
            return None
        return CertifiedDevice(user, device, chain.certificate.key, found[0])

    def _by_path(self, chain: DeviceChain, now: float) -> CertifiedDevice:
        leaf, rest = _load(chain.chain)
        user, device = _user_and_device(_mimi_uris(leaf))
        path = self._verify(user.domain, leaf, rest, now, server=False)
        key, span, issuer = _key(leaf), Span.of(path), _issuer_of(path)
        if chain.certificate is not None and issuer is not None:
            self._issuers.put((user.domain, chain.chain[1:], chain.certificate.form), span, issuer)
        return CertifiedDevice(user, device, key, span)

    def verify_provider(self, domain: str, chain: Sequence[bytes], now: float) -> bytes:
        """Verify a provider's own certificate and return its signature key; raise `CertificateRejected`."""
        leaf, rest = _load(chain)
        if _sans(leaf, x509.DNSName) != [domain]:
            raise CertificateRejected(f"expected a certificate of {domain}")
        self._verify(domain, leaf, rest, now, server=True)
        return _key(leaf)

    def _verify(
        self, domain: str, leaf: x509.Certificate, rest: list[x509.Certificate], now: float, *, server: bool
    ) -> list[x509.Certificate]:
        if domain not in self.roots:
            raise CertificateRejected(f"no trust anchor is configured for {domain}")
        store = self._stores.setdefault(domain, Store(list(self.roots[domain])))
        policy = PolicyBuilder().store(store).time(utc(now)).max_chain_depth(MAX_CHAIN)
        try:
            if server:
                return policy.build_server_verifier(x509.DNSName(domain)).verify(leaf, rest)
            return policy.build_client_verifier().verify(leaf, rest).chain
        except (VerificationError, ValueError, x509.InvalidVersion) as error:
            raise CertificateRejected(f"the chain does not lead to the CA of {domain}: {error}") from None


def _load(chain: Sequence[bytes]) -> tuple[x509.Certificate, list[x509.Certificate]]:
    # The library raises many kinds of errors for a hostile certificate (unknown version, repeated extension,
    # unknown algorithm), some of them only when an attribute is first read. All mean the same here.
    try:
        leaf, *rest = [x509.load_der_x509_certificate(der) for der in chain]
        _ = (leaf.version, leaf.extensions, leaf.public_key())
    except Exception as error:
        reason = type(error).__name__
        raise CertificateRejected(
            f"expected a chain of DER certificates, the device's first ({reason})"
        ) from None
    return leaf, rest


def _sans(leaf: x509.Certificate, kind: type[x509.UniformResourceIdentifier | x509.DNSName]) -> list[str]:
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        raise CertificateRejected("the certificate names nobody (no SAN)") from None
    return list(extension.value.get_values_for_type(kind))


def _mimi_uris(leaf: x509.Certificate) -> list[MimiUri]:
    try:
        return [MimiUri.parse(value) for value in _sans(leaf, x509.UniformResourceIdentifier)]
    except InvalidUri as error:
        raise CertificateRejected(f"a URI in the certificate is no MIMI URI: {error}") from None


def _user_and_device(uris: Sequence[MimiUri]) -> tuple[MimiUri, MimiUri]:
    user, device = uris if len(uris) == 2 else (None, None)
    if device is not None and device.kind is Kind.USER:
        user, device = device, user
    if user is None or device is None or user.kind is not Kind.USER or device.kind is not Kind.DEVICE:
        raise CertificateRejected("expected exactly one user and one device URI in the certificate")
    if user.domain != device.domain:
        raise CertificateRejected(f"user of {user.domain} and device of {device.domain} in one certificate")
    if device.owner not in ("", user.name):
        raise CertificateRejected("the certificate names a user, and a device of another user")
    return user, device


def _issuer_of(path: Sequence[x509.Certificate]) -> _Issuer | None:
    """Return the issuer of a validated path's first certificate; None if a CA in the path constrains names."""
    if len(path) < 2 or any(_constrains_names(issuer) for issuer in path[1:]):
        return None
    key, algorithm = path[1].public_key(), path[0].signature_algorithm_parameters
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(algorithm, ec.ECDSA):
        return None
    return _Issuer(key, algorithm)


def _constrains_names(issuer: x509.Certificate) -> bool:
    return any(extension.oid == ExtensionOID.NAME_CONSTRAINTS for extension in issuer.extensions)


def _key(leaf: x509.Certificate) -> bytes:
    key = leaf.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateRejected("expected an Ed25519 key in the certificate")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _name(domain: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, domain)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: Ed25519PublicKey | ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    lifetime: datetime.timedelta,
) -> x509.CertificateBuilder:
    start = day(now - _BACKDATE)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + lifetime)
    )


def _ca_usage() -> x509.KeyUsage:
    usages: Iterable[str] = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(key_cert_sign=True, crl_sign=True, **dict.fromkeys(usages, False))
