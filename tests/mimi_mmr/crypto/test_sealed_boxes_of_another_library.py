"""Sealed boxes and the one-shot HPKE of `cryptography`: each opens what the other sealed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mimi_mmr.crypto.sealing import Kem, SealedBox, SealingKey, hpke_info
from mimi_mmr.errors import SealedBoxRejected

VECTORS = Path(__file__).parents[2] / "vectors"
STORED = json.loads((VECTORS / "sealed-boxes.json").read_text())
SUITES = {
    Kem.X25519: hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
    Kem.X_WING: hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
}
each_kem = pytest.mark.parametrize("kem", list(Kem), ids=lambda kem: kem.name)


def their_key(kem: Kem, seed: bytes) -> X25519PrivateKey | hpke.MLKEM768X25519PrivateKey:
    if kem is Kem.X25519:
        return X25519PrivateKey.from_private_bytes(seed)
    lattice = MLKEM768PrivateKey.from_seed_bytes(seed[:64])
    return hpke.MLKEM768X25519PrivateKey(lattice, X25519PrivateKey.from_private_bytes(seed[64:]))


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: f"{stored['kem']} {stored['purpose']}")
def test_boxes_sealed_by_the_one_shot_api_and_stored_still_open(stored: dict[str, str]) -> None:
    key = SealingKey(Kem[stored["kem"]], bytes.fromhex(stored["seed"]))
    assert key.public.public_key.hex() == stored["public_key"]
    box = SealedBox.from_bytes(bytes.fromhex(stored["box"]))
    assert key.open(stored["purpose"], bytes.fromhex(stored["context"]), box).hex() == stored["plaintext"]


@each_kem
def test_each_opens_what_the_other_seals(kem: Kem) -> None:
    key, suite = SealingKey.generate(kem), SUITES[kem]
    theirs, info = their_key(kem, key.seed), hpke_info("greeting", b"room")
    ours = key.public.seal("greeting", b"room", b"hello")
    assert suite.decrypt(ours.ciphertext, theirs, info) == b"hello"
    sealed = SealedBox(kem, suite.encrypt(b"hello", theirs.public_key(), info))
    assert key.open("greeting", b"room", sealed) == b"hello"
    assert len(sealed.ciphertext) == len(ours.ciphertext)


LOW_ORDER = (
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
)


@each_kem
@pytest.mark.parametrize("point", LOW_ORDER, ids=range(len(LOW_ORDER)))
def test_a_box_with_a_point_of_low_order_does_not_open(kem: Kem, point: bytes) -> None:
    key = SealingKey.generate(kem)
    whole = key.public.seal("greeting", b"", b"hello").ciphertext
    at = 0 if kem is Kem.X25519 else 1088
    with pytest.raises(SealedBoxRejected, match="does not open"):
        key.open("greeting", b"", SealedBox(kem, whole[:at] + point + whole[at + 32 :]))
