"""What is known of a certificate's form never lets a certificate pass that path validation refuses."""

from __future__ import annotations

import datetime
from contextlib import suppress
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from mimi_mmr.crypto.certificate_forms import DeviceCertificate
from mimi_mmr.crypto.certificates import (
    DEVICE_LIFETIME,
    CertificateAuthority,
    DeviceChain,
    Span,
    TrustAnchors,
    Verdicts,
    _ca_usage,
    day,
    utc,
)
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import BindingRejected, CertificateRejected
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.bench import DAY, World

WORLD = World()
CA = WORLD.providers["b.example"].ca
USER, DEVICE = MimiUri("b.example", Kind.USER, "bob"), MimiUri("b.example", Kind.DEVICE, "bob-phone")
KEY = SigningKey.generate()
Verdict = tuple[MimiUri, MimiUri, bytes] | str


def issue(name: str = "bob") -> bytes:
    device = MimiUri("b.example", Kind.DEVICE, f"{name}-phone")
    key = SigningKey.generate().public
    return CA.issue_device(MimiUri("b.example", Kind.USER, name), device, key, WORLD.now)


def knowing(*certificates: bytes) -> TrustAnchors:
    """Anchors that have seen certificates of these forms."""
    trust = TrustAnchors(WORLD.trust.roots)
    for der in certificates or (issue(),):
        trust.verify_device([der], WORLD.now)
    return trust


def by_path(chain: list[bytes], now: float) -> Verdict:
    """What path validation says, to anchors that have seen nothing."""
    try:
        found = TrustAnchors(WORLD.trust.roots)._by_path(DeviceChain(tuple(chain)), now)
    except CertificateRejected as error:
        return str(error)
    return found.user, found.device, found.key


def by_form(trust: TrustAnchors, chain: list[bytes], now: float) -> Verdict | None:
    """What is known of its form says, if anything."""
    found = trust._by_form(DeviceChain.read(chain), now)
    return found and (found.user, found.device, found.key)


def check_agreement(chain: list[bytes], now: float = WORLD.now, trust: TrustAnchors | None = None) -> None:
    trust = trust or knowing()
    slow, fast = by_path(chain, now), by_form(trust, chain, now)
    assert fast in (None, slow)
    try:
        assert trust.verify_device(chain, now) == slow
    except CertificateRejected as error:
        assert str(error) == slow


def sign(tbs: bytes, key: ec.EllipticCurvePrivateKey = CA._key) -> bytes:
    """A certificate of whatever this is, signed by the CA."""
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    signature = key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return element(0x30, tbs + algorithm + element(0x03, b"\0" + signature))


def element(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = (
        bytes([size])
        if size < 0x80
        else bytes([0x81, size])
        if size < 0x100
        else b"\x82" + size.to_bytes(2, "big")
    )
    return bytes([tag]) + length + content


def tbs_of(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).tbs_certificate_bytes


def test_a_form_that_was_seen_spares_path_validation() -> None:
    trust, other = knowing(), issue("a-name-of-another-length")
    assert by_form(trust, [other], WORLD.now) == by_path([other], WORLD.now) != None  # noqa: E711
    assert by_form(TrustAnchors(WORLD.trust.roots), [other], WORLD.now) is None
    assert by_form(trust, [other, CA.root.public_bytes(Encoding.DER)], WORLD.now) is None  # another chain
    read, seen = DeviceCertificate.read(other), DeviceCertificate.read(issue())
    assert read and seen and read.form == seen.form


@pytest.mark.parametrize("days", [-2, -1, 0, 1, 88, 89, 90, 91, 4000])
def test_a_form_is_good_while_its_chain_is(days: int) -> None:
    trust = knowing()
    for edge in (-1, 0, 0.5, 1):
        check_agreement([issue()], day(utc(WORLD.now)).timestamp() + days * DAY + edge, trust)
    end = day(utc(WORLD.now - 3600)).timestamp() + DEVICE_LIFETIME.total_seconds()
    assert by_form(trust, [issue()], end) and not by_form(trust, [issue()], end + 1)


@settings(max_examples=300)
@given(at=st.integers(0, 370), value=st.integers(0, 255), how=st.sampled_from(["set", "insert", "delete"]))
def test_a_changed_certificate(at: int, value: int, how: str) -> None:
    check_agreement([mutated(issue(), at, value, how)])


@settings(max_examples=600)
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, 270), st.integers(0, 255), st.sampled_from(["set", "set", "insert", "delete"])
        ),
        min_size=1,
        max_size=3,
    )
)
def test_a_changed_certificate_that_the_ca_signs_all_the_same(changes: list[tuple[int, int, str]]) -> None:
    tbs = tbs_of(issue())
    for change in changes:
        tbs = mutated(tbs, *change)
    check_agreement([sign(tbs)])


def mutated(data: bytes, at: int, value: int, how: str) -> bytes:
    at = min(at, len(data) - 1)
    if how == "set":
        return data[:at] + bytes([value]) + data[at + 1 :]
    return data[:at] + (bytes([value]) + data[at:] if how == "insert" else data[at + 1 :])


def test_every_byte_of_a_signed_certificate_changed() -> None:
    trust, tbs = knowing(), tbs_of(issue())
    taken = 0
    for at in range(len(tbs)):
        for flip in (0x01, 0x80):
            chain = [sign(mutated(tbs, at, tbs[at] ^ flip, "set"))]
            check_agreement(chain, trust=trust)
            taken += by_form(trust, chain, WORLD.now) is not None
    assert taken  # some of serial number, key and names may be anything


NAMES = st.sampled_from(
    [str(USER), str(DEVICE), "mimi://c.example/u/bob", "mimi://b.example/u/Bob", "https://b.example/"]
)
ODD: dict[str, Any] = {
    "names": st.lists(NAMES, min_size=1, max_size=3),
    "other_name": st.booleans(),
    "critical_names": st.booleans(),
    "subject": st.booleans(),
    "issuer": st.booleans(),
    "serial": st.integers(1, (1 << 159) - 1) | st.sampled_from([1, 127, 128, 255, 256, (1 << 159) - 1]),
    "starts": st.sampled_from([-4000, -1, 0, 1]),
    "lasts": st.sampled_from([1, 90, 30_000]),
    "is_ca": st.booleans(),
    "usage": st.sampled_from([None, ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
    "key_usage": st.booleans(),
    "unknown": st.sampled_from([None, False, True]),
    "hash": st.sampled_from([hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]),
    "ed25519": st.booleans(),
}  # fmt: skip


def odd(names: list[str], **how: Any) -> bytes:
    """A certificate that the CA's honest code would not issue, or would."""
    start = day(utc(WORLD.now - 3600)) + datetime.timedelta(days=how["starts"])
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, "bob")] if how["subject"] else []
    issuer = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "b.example")])
        if how["issuer"]
        else CA.root.subject
    )
    key = Ed25519PublicKey.from_public_bytes(KEY.public) if how["ed25519"] else CA._key.public_key()
    alternatives: list[x509.GeneralName] = [x509.UniformResourceIdentifier(name) for name in names]
    alternatives += [x509.DNSName("b.example")] if how["other_name"] else []
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(how["serial"])
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=how["lasts"]))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=how["critical_names"])
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(CA._key.public_key()), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=how["is_ca"], path_length=None), critical=True)
    )
    if how["usage"]:
        builder = builder.add_extension(x509.ExtendedKeyUsage([how["usage"]]), critical=False)
    if how["key_usage"]:
        usage = dict.fromkeys(
            ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement"], False
        )
        signs = {
            "key_cert_sign": how["is_ca"],
            "crl_sign": False,
            "encipher_only": False,
            "decipher_only": False,
        }
        builder = builder.add_extension(
            x509.KeyUsage(digital_signature=True, **usage, **signs), critical=True
        )
    if how["unknown"] is not None:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
        builder = builder.add_extension(extension, critical=how["unknown"])
    return builder.sign(CA._key, how["hash"]).public_bytes(Encoding.DER)


@settings(max_examples=300)
@given(how=st.fixed_dictionaries(ODD), other=st.integers(2, 1 << 100))
def test_a_certificate_of_any_form_twice(how: dict[str, Any], other: int) -> None:
    """A second one of the same form, whatever it is, gets the verdict that path validation has for it."""
    trust = TrustAnchors(WORLD.trust.roots)
    check_agreement([odd(**how)], trust=trust)
    check_agreement([odd(**how | {"serial": other})], trust=trust)
    check_agreement([odd(**how | {"names": [str(DEVICE), str(USER)]})], trust=trust)


def test_a_provider_vouches_for_its_own_also_in_a_form_that_was_seen() -> None:
    trust = knowing()
    strange = [MimiUri("c.example", Kind.USER, "bob"), MimiUri("c.example", Kind.DEVICE, "bob-phone")]
    chain = [sign(tbs_of(issue()).replace(b"b.example/", b"c.example/"))]
    read = DeviceCertificate.read(chain[0])
    assert read and set(read.uris) == set(map(str, strange))
    check_agreement(chain, trust=trust)
    assert by_form(trust, chain, WORLD.now) is None


def test_another_key_of_a_ca_of_the_same_name() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    chain = [sign(tbs_of(issue()), other)]
    check_agreement(chain)
    assert by_form(knowing(), chain, WORLD.now) is None


def authority(
    name: str, above: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None, *extensions: x509.ExtensionType
) -> tuple[CertificateAuthority, bytes]:
    """A CA below another, or a root; and its certificate."""
    key, subject = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
    )
    issuer, signer = above or (subject, key)
    start = utc(WORLD.now - DAY)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_ca_usage(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    certificate = builder.sign(signer, hashes.SHA256())
    return CertificateAuthority("b.example", key, certificate), certificate.public_bytes(Encoding.DER)


def test_a_chain_with_a_middleman_is_validated_once_and_while_all_of_it_lasts() -> None:
    root, _ = authority("root", None)
    middle, between = authority("middle", (root.root.subject, root._key))
    trust = TrustAnchors({"b.example": (root.root,)})
    chains = [[middle.issue_device(USER, DEVICE, KEY.public, WORLD.now), between] for _ in range(2)]
    with pytest.raises(CertificateRejected):
        trust.verify_device(chains[0][:1], WORLD.now)
    found = trust.verify_device(chains[0], WORLD.now)
    assert by_form(trust, chains[1], WORLD.now) == found
    assert by_form(trust, chains[1][:1], WORLD.now) is None
    assert by_form(trust, [*chains[1], between], WORLD.now) is None
    assert by_form(trust, chains[1], WORLD.now + 30 * DAY) is None  # the device's own lasts 90 days


def test_names_that_an_issuer_constrains_are_looked_at_each_time() -> None:
    constraint = x509.NameConstraints([x509.DNSName("b.example")], None)
    root, _ = authority("root", None, constraint)
    trust = TrustAnchors({"b.example": (root.root,)})
    chain = [root.issue_device(USER, DEVICE, KEY.public, WORLD.now)]
    with suppress(CertificateRejected):  # as path validation will have it
        trust.verify_device(chain, WORLD.now)
    assert by_form(trust, chain, WORLD.now) is None


def test_the_same_real_credential_again_and_one_with_a_byte_of_it_changed() -> None:
    """What was verified is known by all that is in it, and for no longer than its chain is valid."""
    trust = TrustAnchors(WORLD.trust.roots)
    credential = WORLD.device("bob", "b.example").credential
    once = credential.verify(trust, WORLD.now)
    assert type(credential).from_bytes(credential.to_bytes()).verify(trust, WORLD.now) == once
    wire = credential.to_bytes()
    for at in range(8, len(wire), 3):
        changed = wire[:at] + bytes([wire[at] ^ 1]) + wire[at + 1 :]
        with pytest.raises((CertificateRejected, BindingRejected)):
            type(credential).from_bytes(changed).verify(trust, WORLD.now)
    with pytest.raises(CertificateRejected):
        credential.verify(trust, WORLD.now + 200 * DAY)
    with pytest.raises(CertificateRejected):
        credential.verify(TrustAnchors({}), WORLD.now)


def test_what_is_remembered_is_bounded() -> None:
    verdicts: Verdicts[int, str] = Verdicts(limit=3)
    for number in range(10):
        verdicts.put(number, Span(0, 10), str(number))
    assert [number for number in range(10) if verdicts.get(number, 5)] == [7, 8, 9]
    assert verdicts.get(9, 10) and not verdicts.get(9, 10.5) and not verdicts.get(9, -1)
