"""A device certificate speaks for one device of one user of the CA's own domain, while it lasts, or not at all."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from mimi_mmr.crypto.certificates import DEVICE_LIFETIME, CertificateAuthority, TrustAnchors, utc
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import BindingRejected, CertificateRejected
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.bench import DAY, World

USER = MimiUri("b.example", Kind.USER, "bob")
DEVICE = MimiUri("b.example", Kind.DEVICE, "bob-phone")
KEY = SigningKey.generate()


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def forge(
    ca: CertificateAuthority,
    now: float,
    names: list[str] | None = None,
    key: object = None,
    *,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    is_ca: bool = False,
) -> bytes:
    """A certificate that the CA's honest code would not issue."""
    public = key or Ed25519PublicKey.from_public_bytes(KEY.public)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca.root.subject)
        .public_key(public)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(utc(now) - datetime.timedelta(days=1))
        .not_valid_after(utc(now) + datetime.timedelta(days=9))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca._key.public_key()), critical=False
        )
    )
    if names is not None:
        sans = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name) for name in names])
        builder = builder.add_extension(sans, critical=True)
    return builder.sign(ca._key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_an_issued_certificate_gives_user_device_and_key(world: World) -> None:
    der = world.providers["b.example"].ca.issue_device(USER, DEVICE, KEY.public, world.now)
    assert world.trust.verify_device([der], world.now) == (USER, DEVICE, KEY.public)


def test_a_certificate_says_no_more_than_the_date(world: World) -> None:
    der = world.providers["b.example"].ca.issue_device(USER, DEVICE, KEY.public, world.now)
    start = x509.load_der_x509_certificate(der).not_valid_before_utc
    assert (start.hour, start.minute, start.second) == (0, 0, 0)


def test_a_ca_issues_for_its_own_domain_only(world: World) -> None:
    with pytest.raises(CertificateRejected, match=r"expected a URI of a\.example"):
        world.providers["a.example"].ca.issue_device(USER, DEVICE, KEY.public, world.now)


def test_another_providers_ca_vouches_for_nobody_here(world: World) -> None:
    der = forge(world.providers["a.example"].ca, world.now, [str(USER), str(DEVICE)])
    with pytest.raises(CertificateRejected, match=r"does not lead to the CA of b\.example"):
        world.trust.verify_device([der], world.now)


def test_a_ca_of_the_same_name_with_another_key_is_refused(world: World) -> None:
    impostor = CertificateAuthority.create("b.example", world.now)
    der = impostor.issue_device(USER, DEVICE, KEY.public, world.now)
    for chain in ([der], [der, impostor.root.public_bytes(Encoding.DER)]):
        with pytest.raises(CertificateRejected, match="does not lead"):
            world.trust.verify_device(chain, world.now)


def test_a_domain_without_anchor_is_refused(world: World) -> None:
    stranger = CertificateAuthority.create("z.example", world.now)
    user, device = MimiUri("z.example", Kind.USER, "zoe"), MimiUri("z.example", Kind.DEVICE, "zoe-phone")
    der = stranger.issue_device(user, device, KEY.public, world.now)
    with pytest.raises(CertificateRejected, match=r"no trust anchor is configured for z\.example"):
        world.trust.verify_device([der], world.now)


@pytest.mark.parametrize("shift", [-2 * DAY, DEVICE_LIFETIME.total_seconds() + DAY])
def test_a_certificate_is_good_within_its_time_only(world: World, shift: float) -> None:
    der = world.providers["b.example"].ca.issue_device(USER, DEVICE, KEY.public, world.now)
    with pytest.raises(CertificateRejected):
        world.trust.verify_device([der], world.now + shift)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (None, "no SAN"),
        ([str(USER)], "exactly one user and one device"),
        ([str(USER), "mimi://b.example/u/eve", str(DEVICE)], "exactly one user and one device"),
        ([str(USER), "mimi://b.example/u/eve"], "exactly one user and one device"),
        ([str(DEVICE), "mimi://b.example/d/tablet"], "exactly one user and one device"),
        ([str(USER), "mimi://b.example/r/room"], "exactly one user and one device"),
        ([str(USER), "mimi://b.example/d/eve/phone"], "a device of another user"),
        ([str(USER), "mimi://c.example/d/phone"], r"user of b\.example and device of c\.example"),
    ],
)
def test_a_certificate_names_one_user_and_one_device(world: World, names: list[str] | None, why: str) -> None:
    der = forge(world.providers["b.example"].ca, world.now, names)
    with pytest.raises(CertificateRejected, match=why):
        world.trust.verify_device([der], world.now)


@pytest.mark.parametrize("name", ["https://b.example/", "mimi://b.example/u/Bob", "mimi:"])
def test_a_san_that_is_no_mimi_uri_is_refused_as_a_certificate(world: World, name: str) -> None:
    der = forge(world.providers["b.example"].ca, world.now, [name, str(DEVICE)])
    with pytest.raises(CertificateRejected, match="MIMI URI"):
        world.trust.verify_device([der], world.now)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()).public_key(),
        rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key(),
    ],
    ids=["P-256", "RSA"],
)
def test_a_key_that_mls_could_not_sign_with_is_refused(world: World, key: object) -> None:
    der = forge(world.providers["b.example"].ca, world.now, [str(USER), str(DEVICE)], key)
    with pytest.raises(CertificateRejected, match="expected an Ed25519 key"):
        world.trust.verify_device([der], world.now)


def test_a_certificate_for_servers_is_not_one_of_a_device(world: World) -> None:
    names = [str(USER), str(DEVICE)]
    der = forge(world.providers["b.example"].ca, world.now, names, usage=ExtendedKeyUsageOID.SERVER_AUTH)
    with pytest.raises(CertificateRejected, match="does not lead"):
        world.trust.verify_device([der], world.now)


def test_a_device_certificate_signs_no_other(world: World) -> None:
    """The path length of the root forbids a middleman, also one that the CA made by mistake."""
    ca = world.providers["b.example"].ca
    middle = ec.generate_private_key(ec.SECP256R1())
    between = forge(ca, world.now, [str(USER), str(DEVICE)], middle.public_key(), is_ca=True)
    below = CertificateAuthority("b.example", middle, x509.load_der_x509_certificate(between))
    der = below.issue_device(USER, DEVICE, KEY.public, world.now)
    with pytest.raises(CertificateRejected, match="does not lead"):
        world.trust.verify_device([der, between], world.now)


@pytest.mark.parametrize("chain", [[], [b""], [b"\x30\x03\x02\x01\x01"], [b"not a certificate"]])
def test_bytes_that_are_no_chain_are_refused(world: World, chain: list[bytes]) -> None:
    with pytest.raises(CertificateRejected, match="expected a chain of DER certificates"):
        world.trust.verify_device(chain, world.now)


def test_a_flipped_bit_anywhere_is_refused(world: World) -> None:
    der = world.providers["b.example"].ca.issue_device(USER, DEVICE, KEY.public, world.now)
    for at in range(0, len(der), 7):
        changed = der[:at] + bytes([der[at] ^ 1]) + der[at + 1 :]
        with pytest.raises(CertificateRejected):
            world.trust.verify_device([changed], world.now)


def test_a_provider_certificate_is_for_that_provider(world: World) -> None:
    ca = world.providers["b.example"].ca
    der = ca.issue_provider(KEY.public, world.now)
    assert world.trust.verify_provider("b.example", [der], world.now) == KEY.public
    with pytest.raises(CertificateRejected, match=r"expected a certificate of a\.example"):
        world.trust.verify_provider("a.example", [der], world.now)
    device = ca.issue_device(USER, DEVICE, KEY.public, world.now)
    with pytest.raises(CertificateRejected):
        world.trust.verify_provider("b.example", [device], world.now)
    with pytest.raises(CertificateRejected):
        world.trust.verify_device([der], world.now)


def test_a_tls_certificate_does_not_sign_for_the_provider(world: World) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    tls = world.providers["b.example"].ca.issue_server(key, [], world.now).public_bytes(Encoding.DER)
    with pytest.raises(CertificateRejected, match="expected an Ed25519 key"):
        world.trust.verify_provider("b.example", [tls], world.now)


def test_a_ca_reads_back_and_is_of_one_domain(world: World) -> None:
    ca = world.providers["b.example"].ca
    again = CertificateAuthority.load("b.example", ca.to_pem())
    der = again.issue_device(USER, DEVICE, KEY.public, world.now)
    assert world.trust.verify_device([der], world.now)[0] == USER
    with pytest.raises(CertificateRejected, match=r"not one of a\.example"):
        CertificateAuthority.load("a.example", ca.to_pem())
    for pem in (b"", ca.root_pem()):
        with pytest.raises(CertificateRejected, match="not a PEM key and certificate"):
            CertificateAuthority.load("b.example", pem)


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_an_anchor_that_is_no_certificate_is_named(pem: bytes) -> None:
    with pytest.raises(CertificateRejected, match=r"trust anchor of a\.example"):
        TrustAnchors.from_pem({"a.example": pem})


# --- the user binding --------------------------------------------------------------------------------


def test_a_real_credential_needs_the_users_own_signature_over_this_device(world: World) -> None:
    """A hostile provider can certify a device of its own for the user; it can't bind it to the user's key."""
    bob = world.device("bob", "b.example")
    assert bob.credential.verify(world.trust, world.now).identity_key == bob.credential.identity_key
    hostile = SigningKey.generate()
    user, device = bob.user, MimiUri("b.example", Kind.DEVICE, "wiretap")
    chain = (world.providers["b.example"].ca.issue_device(user, device, hostile.public, world.now),)
    stolen = type(bob.credential)(chain, bob.credential.identity_key, bob.credential.binding_signature)
    with pytest.raises(BindingRejected, match="user binding"):
        stolen.verify(world.trust, world.now)


def test_a_binding_is_over_user_device_and_key(world: World) -> None:
    identity = SigningKey.generate()
    one = world.device("bob", "b.example", identity)
    for other in (world.device("bob", "b.example", identity), world.device("bert", "b.example", identity)):
        mixed = type(one.credential)(
            one.credential.chain, identity.public, other.credential.binding_signature
        )
        with pytest.raises(BindingRejected):
            mixed.verify(world.trust, world.now)


def test_ed25519_keys_of_low_order_sign_nothing(world: World) -> None:
    """libsodium refuses them; with a careless verifier one signature would fit every message."""
    bob = world.device("bob", "b.example")
    for weak in (bytes(32), b"\x01" + bytes(31)):
        forged = type(bob.credential)(bob.credential.chain, weak, weak + bytes(32))
        with pytest.raises(BindingRejected):
            forged.verify(world.trust, world.now)


def test_the_private_key_never_stands_in_a_certificate(world: World) -> None:
    secret = Ed25519PrivateKey.generate()
    key = SigningKey(secret)
    der = world.providers["b.example"].ca.issue_device(USER, DEVICE, key.public, world.now)
    assert key.seed() not in der
