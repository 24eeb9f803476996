"""HPKE: published vectors, other libraries, refusals."""

from __future__ import annotations

import itertools

import pytest
from cryptography.hazmat.primitives import hpke as one_shot
from pyhpke import AEADId, CipherSuite, KDFId, KEMId

from ohttp_relay.capsule import decapsulate_request, encapsulate_request
from ohttp_relay.capsule.format import REQUEST_LABEL, RESPONSE_LABEL
from ohttp_relay.hpke import HKDF_SHA256, KEMS, AeadId, KemId, KemSecret, Suite
from ohttp_relay.hpke.kem import XWingKey
from ohttp_relay.keys import DEFAULT_SUITES, GatewayKey, KeyConfig, KeyRing

PYHPKE_KEMS = {KemId.X25519: KEMId.DHKEM_X25519_HKDF_SHA256, KemId.P256: KEMId.DHKEM_P256_HKDF_SHA256}

ALL = list(itertools.product(KEMS, DEFAULT_SUITES))


@pytest.mark.parametrize(("kem", "suite"), [(k, s) for k, s in ALL if k in PYHPKE_KEMS])
def test_pyhpke_opens_what_we_seal_and_the_other_way_round(kem: KemId, suite: Suite) -> None:
    theirs = CipherSuite.new(PYHPKE_KEMS[kem], KDFId.HKDF_SHA256, AEADId(suite.aead))
    private = KEMS[kem].derive(b"some input keying material, long")
    pair = theirs.kem.derive_key_pair(b"some input keying material, long")
    assert pair.public_key.to_public_bytes() == private.public
    config = KeyConfig(9, kem, private.public)
    capsule, _ = encapsulate_request(config, b"from us", suite)
    header, enc_end = capsule[:7], 7 + KEMS[kem].enc_size
    info = REQUEST_LABEL + b"\0" + header
    recipient = theirs.create_recipient_context(capsule[7:enc_end], pair.private_key, info=info)
    assert recipient.open(capsule[enc_end:]) == b"from us"
    enc, sender = theirs.create_sender_context(pair.public_key, info=info)
    ring = KeyRing([GatewayKey(config, private, 0)])
    opened = decapsulate_request(ring, header + enc + sender.seal(b"from them"))
    assert opened.request == b"from them"
    size = 16 if suite.aead == AeadId.AES_128_GCM else 32
    assert opened._context.export(RESPONSE_LABEL, size) == sender.export(RESPONSE_LABEL, size)


ONE_SHOT_AEADS = {
    AeadId.AES_128_GCM: one_shot.AEAD.AES_128_GCM,
    AeadId.AES_256_GCM: one_shot.AEAD.AES_256_GCM,
    AeadId.CHACHA20_POLY1305: one_shot.AEAD.CHACHA20_POLY1305,
}


def xwing_pair() -> tuple[XWingKey, one_shot.MLKEM768X25519PrivateKey]:
    ours = KEMS[KemId.X_WING].generate()
    assert isinstance(ours, XWingKey)
    return ours, one_shot.MLKEM768X25519PrivateKey(ours.pair.lattice, ours.pair.curve)


@pytest.mark.parametrize("aead", list(ONE_SHOT_AEADS))
def test_cryptographys_one_shot_hpke_agrees_on_x_wing(aead: AeadId) -> None:
    ours, theirs = xwing_pair()
    suite = one_shot.Suite(one_shot.KEM.MLKEM768_X25519, one_shot.KDF.HKDF_SHA256, ONE_SHOT_AEADS[aead])
    config = KeyConfig(3, KemId.X_WING, ours.public)
    capsule, _ = encapsulate_request(config, b"from us", Suite(HKDF_SHA256, aead))
    info = REQUEST_LABEL + b"\0" + capsule[:7]
    assert suite.decrypt(capsule[7:], theirs, info=info) == b"from us"
    sealed = suite.encrypt(b"from them", theirs.public_key(), info=info)
    ring = KeyRing([GatewayKey(config, ours, 0)])
    assert decapsulate_request(ring, capsule[:7] + sealed).request == b"from them"


def test_keys_of_the_wrong_size_are_refused() -> None:
    for kem in KEMS.values():
        for size in (0, 31, 33):
            with pytest.raises(ValueError):
                kem.load(KemSecret(b"\1" * size))
