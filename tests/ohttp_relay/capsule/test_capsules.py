"""Capsules: the RFC's example, every suite, truncations and changes."""

from __future__ import annotations

import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohttp_relay.capsule import decapsulate_request, encapsulate_request
from ohttp_relay.capsule.format import HEADER_SIZE
from ohttp_relay.errors import (
    NoUsableKey,
    OpenFailed,
    TruncatedCapsule,
    UnknownKey,
)
from ohttp_relay.hpke import HKDF_SHA256, KEMS, AeadId, KemId, KemSecret, Suite
from ohttp_relay.keys import DEFAULT_SUITES, GatewayKey, KeyConfig, KeyRing

ALL = list(itertools.product(KEMS, DEFAULT_SUITES))


def hexes(vector: dict, *names: str) -> list[bytes]:
    return [bytes.fromhex(vector[name]) for name in names]


def test_appendix_a_of_the_rfc(vectors) -> None:
    vector = vectors("rfc9458-appendix-a.json")
    config_bytes, secret, ephemeral = hexes(
        vector, "key_config", "gateway_x25519_secret_key", "client_ephemeral_secret_key"
    )
    config = KeyConfig.from_bytes(config_bytes)
    assert config.to_bytes() == config_bytes
    private = KEMS[KemId.X25519].load(KemSecret(secret))
    assert private.public == config.public_key
    request, capsule = hexes(vector, "request_bhttp", "encapsulated_request")
    made, opener = encapsulate_request(config, request, ephemeral=KemSecret(ephemeral))
    assert made == capsule
    opened = decapsulate_request(KeyRing([GatewayKey(config, private, 0)]), capsule)
    assert opened.request == request
    response, nonce, sealed = hexes(vector, "response_bhttp", "response_nonce", "encapsulated_response")
    assert opened.seal(response, nonce) == sealed
    assert opener.open(sealed) == response


@pytest.mark.parametrize(("kem", "suite"), ALL)
def test_every_suite_round_trips_both_ways(kem: int, suite: Suite) -> None:
    ring = KeyRing.generate([kem])
    capsule, opener = encapsulate_request(ring.public_configs()[0], b"request", suite)
    opened = decapsulate_request(ring, capsule)
    assert opened.request == b"request"
    sealed = opened.seal(b"response")
    assert len(sealed) == (16 if suite.aead == AeadId.AES_128_GCM else 32) + 8 + 16
    assert opener.open(sealed) == b"response"
    for broken in (sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1])):
        with pytest.raises(OpenFailed):
            opener.open(broken)


@given(st.data())
def test_any_change_of_a_capsule_is_refused(data: st.DataObject) -> None:
    ring = RING
    capsule, _ = encapsulate_request(ring.public_configs()[0], b"request")
    at = data.draw(st.integers(0, len(capsule) - 1))
    changed = bytearray(capsule)
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises((OpenFailed, UnknownKey)):
        decapsulate_request(ring, bytes(changed))


RING = KeyRing.generate()


@pytest.mark.parametrize("kem", list(KEMS))
def test_every_truncation_of_a_capsule_is_refused(kem: int) -> None:
    ring = KeyRing.generate([kem])
    capsule, opener = encapsulate_request(ring.public_configs()[0], b"")
    for length in range(len(capsule)):
        with pytest.raises(TruncatedCapsule):
            decapsulate_request(ring, capsule[:length])
    sealed = decapsulate_request(ring, capsule).seal(b"")
    for length in range(len(sealed)):
        with pytest.raises(TruncatedCapsule):
            opener.open(sealed[:length])


def test_an_impossible_encapsulated_key_is_refused() -> None:
    for kem, enc in (
        (KemId.X25519, bytes(32)),
        (KemId.P256, b"\x04" + bytes(64)),
        (KemId.X_WING, bytes(1120)),
    ):
        ring = KeyRing.generate([kem])
        capsule, _ = encapsulate_request(ring.public_configs()[0], b"x")
        with pytest.raises(OpenFailed):
            decapsulate_request(ring, capsule[:HEADER_SIZE] + enc + capsule[HEADER_SIZE + len(enc) :])


def test_suites_that_are_not_advertised_are_refused() -> None:
    aes = Suite(HKDF_SHA256, AeadId.AES_128_GCM)
    ring = KeyRing.generate(suites=[aes])
    config = ring.public_configs()[0]
    for suite in DEFAULT_SUITES[1:]:
        capsule, _ = encapsulate_request(config, b"x", suite)
        with pytest.raises(UnknownKey, match="pair"):
            decapsulate_request(ring, capsule)


def test_each_request_has_a_fresh_context() -> None:
    config = RING.public_configs()[0]
    assert len({encapsulate_request(config, b"same")[0][7:39] for _ in range(20)}) == 20


def test_a_bad_public_key_is_told_as_such() -> None:
    for kem in KEMS.values():
        with pytest.raises(NoUsableKey):
            encapsulate_request(KeyConfig(1, kem.id, bytes(kem.public_size)), b"x")
    with pytest.raises(NoUsableKey):
        encapsulate_request(KeyConfig(1, 0x9999, b""), b"x")


def test_secrets_do_not_show() -> None:
    secret = KEMS[KemId.X25519].generate().secret()
    assert repr(secret) == "KemSecret(<hidden>)"
    assert secret == KemSecret(secret.reveal())
    assert secret != KemSecret(b"x")
    for action in (pickle.dumps, hash):
        with pytest.raises(TypeError):
            action(secret)
    config = RING.public_configs()[0]
    capsule, opener = encapsulate_request(config, b"plain")
    opened = decapsulate_request(RING, capsule)
    for shown in (repr(opener), repr(opened), repr(RING)):
        assert "plain" not in shown
        assert "Context" not in shown
