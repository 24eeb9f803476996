"""HPKE held to published vectors: RFC 9180, the X-Wing draft, and draft-ietf-hpke-pq."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyhpke import KEMId, KEMKeyPair, OpenError

from ohttp_relay.errors import OpenFailed
from ohttp_relay.hpke import KEMS, AeadId, KemId, KemSecret, Suite, XWing, XWingPair, cipher_suite
from ohttp_relay.hpke.recipient import Schedule
from ohttp_relay.hpke.sender import XWingPrivateKey, start_sending

VECTORS = Path(__file__).parents[2] / "vectors"
RFC = json.loads((VECTORS / "rfc9180-base.json").read_text())
PQ = json.loads((VECTORS / "hpke-pq-x-wing.json").read_text())
XWINGS = json.loads((VECTORS / "x-wing-draft.json").read_text())


def title(vector: dict[str, Any]) -> str:
    return f"{KemId(vector['kem_id']).name}-{AeadId(vector['aead_id']).name}"


def octets(vector: dict[str, Any], *names: str) -> list[bytes]:
    return [bytes.fromhex(vector[name]) for name in names]


@pytest.mark.parametrize("vector", RFC, ids=title)
def test_pyhpke_seals_and_exports_as_the_rfc_says(vector: dict[str, Any]) -> None:
    kem, aead = KemId(vector["kem_id"]), AeadId(vector["aead_id"])
    public, info, ephemeral, enc = octets(vector, "pkRm", "info", "skEm", "enc")
    made, sender = start_sending(kem, aead, public, info, KemSecret(ephemeral))
    assert made == enc
    for message in vector["encryptions"]:
        plaintext, aad, ciphertext = octets(message, "pt", "aad", "ct")
        if message is vector["encryptions"][0] or aad in (b"Count-1", b"Count-2"):
            assert sender.seal(plaintext, aad) == ciphertext
    for export in vector["exports"]:
        context, value = octets(export, "exporter_context", "exported_value")
        assert sender.export(context, export["L"]) == value


@pytest.mark.parametrize("vector", [*RFC, *PQ], ids=title)
def test_the_gateways_end_opens_and_exports_as_published(vector: dict[str, Any]) -> None:
    secret, enc, info, public, shared = octets(vector, "skRm", "enc", "info", "pkRm", "shared_secret")
    private = KEMS[vector["kem_id"]].load(KemSecret(secret))
    assert private.public == public
    assert private.decapsulate(enc) == shared
    context = Schedule(vector["kem_id"], Suite(vector["kdf_id"], vector["aead_id"]), info).context(shared)
    for message in vector["encryptions"][:3]:
        plaintext, aad, ciphertext = octets(message, "pt", "aad", "ct")
        assert context.open(ciphertext, aad) == plaintext
    for export in vector["exports"]:
        label, value = octets(export, "exporter_context", "exported_value")
        if export["L"] <= 32:
            assert context.export(label, export["L"]) == value


@pytest.mark.parametrize("vector", PQ, ids=title)
def test_pyhpke_with_x_wing_opens_and_exports_as_published(vector: dict[str, Any]) -> None:
    secret, enc, info, public, shared = octets(vector, "skRm", "enc", "info", "pkRm", "shared_secret")
    suite = cipher_suite(KemId.X_WING, AeadId(vector["aead_id"]))
    private = suite.kem.deserialize_private_key(secret)
    assert private.to_public_bytes() == public
    assert private.to_private_bytes() == secret
    assert suite.kem.decap(enc, private) == shared
    recipient = suite.create_recipient_context(enc, private, info=info)
    for message in vector["encryptions"][:3]:
        plaintext, aad, ciphertext = octets(message, "pt", "aad", "ct")
        assert recipient.open(ciphertext, aad) == plaintext
    for export in vector["exports"]:
        context, value = octets(export, "exporter_context", "exported_value")
        assert recipient.export(context, export["L"]) == value


@pytest.mark.parametrize("vector", XWINGS, ids=range(len(XWINGS)))
def test_x_wing_is_that_of_its_draft(vector: dict[str, str]) -> None:
    seed, public, ciphertext, shared = octets(vector, "seed", "pk", "ct", "ss")
    key = KEMS[KemId.X_WING].load(KemSecret(seed))
    assert key.public == public
    assert key.decapsulate(ciphertext) == shared
    private = XWing().deserialize_private_key(seed)
    assert XWing().decap(ciphertext, private) == shared


def test_x_wing_encapsulates_for_the_key_and_afresh() -> None:
    key = KEMS[KemId.X_WING].generate()
    kem = XWing()
    public = kem.deserialize_public_key(key.public)
    found = [kem.encap(public) for _ in range(3)]
    assert all(key.decapsulate(enc) == shared for shared, enc in found)
    assert len({shared for shared, _ in found}) == len({enc for _, enc in found}) == 3


def test_a_derived_pair_fits_together() -> None:
    pair = XWing().derive_key_pair(b"input keying material of some length")
    shared, enc = XWing().encap(pair.public_key)
    assert XWing().decap(enc, pair.private_key) == shared


BAD_PUBLIC = [
    (KemId.X25519, bytes(32)),
    (KemId.X25519, bytes(31)),
    (KemId.X25519, bytes(33)),
    (KemId.P256, bytes(65)),
    (KemId.P256, b"\x04" + bytes(64)),
    (KemId.P256, b"\x02" + bytes(64)),
    (KemId.X_WING, bytes(1216)),  # its point is of low order
    (KemId.X_WING, b"\xff" * 1216),  # its lattice vector is out of range
    (KemId.X_WING, bytes(1215)),
    (KemId.X_WING, bytes(1217)),
]


@pytest.mark.parametrize(("kem", "public"), BAD_PUBLIC)
def test_nothing_is_sealed_to_a_bad_public_key(kem: KemId, public: bytes) -> None:
    with pytest.raises(ValueError):
        start_sending(kem, AeadId.AES_128_GCM, public, b"info")


def test_a_compressed_point_is_refused_although_pyhpke_would_take_it() -> None:
    suite = cipher_suite(KemId.P256, AeadId.AES_128_GCM)
    public = KEMS[KemId.P256].generate().public
    compressed = bytes([2 + (public[-1] & 1)]) + public[1:33]
    assert suite.kem.deserialize_public_key(compressed).to_public_bytes() == public
    with pytest.raises(ValueError, match="65 bytes"):
        start_sending(KemId.P256, AeadId.AES_128_GCM, compressed, b"info")


@pytest.mark.parametrize("kem", list(KEMS))
def test_bad_encapsulated_keys_and_changed_bytes_are_errors_at_both_ends(kem: KemId) -> None:
    key = KEMS[kem].generate()
    enc, sender = start_sending(kem, AeadId.AES_256_GCM, key.public, b"info")
    sealed = sender.seal(b"message")
    suite = cipher_suite(kem, AeadId.AES_256_GCM)
    private = suite.kem.deserialize_private_key(key.secret().reveal())
    assert suite.create_recipient_context(enc, private, info=b"info").open(sealed) == b"message"
    for bad in (enc[:-1], enc + b"\0", bytes(len(enc)), b""):
        with pytest.raises(ValueError):
            suite.create_recipient_context(bad, private, info=b"info")
        with pytest.raises(OpenFailed):
            key.decapsulate(bad)
    with pytest.raises(OpenError):
        suite.create_recipient_context(enc, private, info=b"info").open(sealed[:-1] + b"\0")


def test_x_wing_has_base_mode_only_and_no_fixed_ephemeral_key() -> None:
    kem, key = XWing(), KEMS[KemId.X_WING].generate()
    public, private = kem.deserialize_public_key(key.public), kem.deserialize_private_key(bytes(32))
    pair = KEMKeyPair(private, public)
    enc = kem.encap(public)[1]
    for use in (
        lambda: kem.encap(public, private),
        lambda: kem.encap(public, None, pair),
        lambda: kem.decap(enc, private, public),
        lambda: start_sending(KemId.X_WING, AeadId.AES_128_GCM, key.public, b"", KemSecret(bytes(32))),
        lambda: kem.deserialize_private_key(bytes(31)),
        lambda: XWingPair.of(bytes(95)),
    ):
        with pytest.raises(ValueError):
            use()


def test_a_key_made_of_a_pair_has_no_seed_to_give() -> None:
    with pytest.raises(ValueError, match="seed"):
        XWingPrivateKey(XWingPair.of(bytes(range(96)))).to_private_bytes()


def test_pyhpke_has_no_x_wing_of_its_own() -> None:
    """When this fails, the library's own X-Wing may replace the plugged-in one."""
    assert int(KemId.X_WING) not in {kem.value for kem in KEMId}
