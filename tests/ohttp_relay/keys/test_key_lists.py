"""Key configurations and lists of them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohttp_relay.errors import (
    InvalidKeyList,
    NoUsableKey,
)
from ohttp_relay.hpke import HKDF_SHA256, KEMS, AeadId, KemId, Suite
from ohttp_relay.keys import KeyConfig, KeyRing, choose_config, decode_key_list, encode_key_list


def test_derived_keys_and_lists_of_other_implementations(vectors) -> None:
    vector = vectors("martinthomson-derive-key.json")
    config = KeyConfig.from_bytes(bytes.fromhex(vector["expected_key_config"]))
    assert KEMS[KemId.X25519].derive(bytes.fromhex(vector["ikm"])).public == config.public_key
    listed = bytes.fromhex(vectors("netty-ohttp-keys.json")["hex"])
    (config,) = decode_key_list(listed)
    assert encode_key_list([config]) == listed


# Key lists


def entry(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


X = KeyRing.generate().public_configs()[0]
UNKNOWN = b"\x07\x99\x99" + bytes(50)


def test_unknown_kems_are_skipped_wherever_they_stand() -> None:
    data = entry(UNKNOWN) + entry(X.to_bytes()) + entry(UNKNOWN)
    assert decode_key_list(data) == (X,)
    assert decode_key_list(entry(UNKNOWN)) == ()


def test_a_bare_configuration_is_read() -> None:
    assert decode_key_list(X.to_bytes()) == (X,)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\0\0",
        entry(b"\x01\x00"),
        entry(X.to_bytes())[:-1],
        entry(X.to_bytes()) + b"\0",
        entry(X.to_bytes() + b"\0"),
        entry(X.to_bytes()[:-4]),
        entry(X.to_bytes()[:20]),
        entry(X.to_bytes()) + entry(X.to_bytes()[:-1]),
        entry(X.to_bytes()[:35] + b"\0\0"),
        entry(X.to_bytes()[:35] + b"\0\x02\0\x01"),
        X.to_bytes()[:-1],
        UNKNOWN,
    ],
    ids=lambda data: f"{len(data)} bytes",  # not by content: the keys are fresh in every process
)
def test_a_list_with_an_encoding_error_is_discarded_whole(data: bytes) -> None:
    with pytest.raises(InvalidKeyList):
        decode_key_list(data)


@given(st.binary(max_size=120))
def test_any_bytes_give_a_list_or_an_error(data: bytes) -> None:
    with contextlib.suppress(InvalidKeyList):
        decode_key_list(data)


def test_the_choice_follows_kem_preference_then_the_list() -> None:
    ring = KeyRing.generate([KemId.P256, KemId.X25519, KemId.X_WING])
    configs = decode_key_list(ring.public_list())
    assert choose_config(configs)[0].kem_id == KemId.X_WING
    assert choose_config(configs, [KemId.P256])[0].kem_id == KemId.P256
    odd = KeyConfig(1, KemId.X25519, X.public_key, (Suite(9, 9), Suite(HKDF_SHA256, AeadId.AES_256_GCM)))
    assert choose_config([odd])[1].aead == AeadId.AES_256_GCM
    for bad in ([], [KeyConfig(1, KemId.X25519, X.public_key, (Suite(9, 9),))]):
        with pytest.raises(NoUsableKey):
            choose_config(bad)
