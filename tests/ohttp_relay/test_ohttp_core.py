"""Keys, HPKE and capsules: published vectors, other libraries, and refusals."""

from __future__ import annotations

import contextlib
import itertools
import pickle

import pytest
from cryptography.hazmat.primitives import hpke as one_shot
from hypothesis import given
from hypothesis import strategies as st
from pyhpke import AEADId, CipherSuite, KDFId, KEMId

from ohttp_relay.capsule.client import encapsulate_request
from ohttp_relay.capsule.format import HEADER_SIZE, REQUEST_LABEL, RESPONSE_LABEL
from ohttp_relay.capsule.gateway import decapsulate_request
from ohttp_relay.errors import (
    ConfigurationError,
    InvalidKeyList,
    KeyFileError,
    NoUsableKey,
    OpenFailed,
    TruncatedCapsule,
    UnknownKey,
)
from ohttp_relay.hpke.kem import KEMS, KemId, KemSecret, XWingKey
from ohttp_relay.hpke.suites import HKDF_SHA256, AeadId, Suite
from ohttp_relay.keys.configuration import (
    DEFAULT_SUITES,
    KeyConfig,
    choose_config,
    decode_key_list,
    encode_key_list,
)
from ohttp_relay.keys.ring import GatewayKey, KeyRing

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


def test_derived_keys_and_lists_of_other_implementations(vectors) -> None:
    vector = vectors("martinthomson-derive-key.json")
    config = KeyConfig.from_bytes(bytes.fromhex(vector["expected_key_config"]))
    assert KEMS[KemId.X25519].derive(bytes.fromhex(vector["ikm"])).public == config.public_key
    listed = bytes.fromhex(vectors("netty-ohttp-keys.json")["hex"])
    (config,) = decode_key_list(listed)
    assert encode_key_list([config]) == listed


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


PYHPKE_KEMS = {KemId.X25519: KEMId.DHKEM_X25519_HKDF_SHA256, KemId.P256: KEMId.DHKEM_P256_HKDF_SHA256}


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


def test_x_wing_keys_expand_as_the_draft_says() -> None:
    # First vector of draft-connolly-cfrg-xwing-kem: the start of seed and public key.
    seed = bytes.fromhex("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26")
    public = KEMS[KemId.X_WING].load(KemSecret(seed)).public
    assert public.hex().startswith("e2236b35a8c24b39b10aa1323a96a919a2ced88400633a7b07131713fc14b2b5")


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


# Key rings


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_rings_survive_a_restart_with_tight_permissions(tmp_path) -> None:
    ring = KeyRing.generate([KemId.X25519, KemId.P256, KemId.X_WING])
    ring.save(tmp_path / "keys")
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "keys" / "keyring.json").stat().st_mode & 0o777 == 0o600
    loaded = KeyRing.load(tmp_path / "keys")
    assert loaded.public_list() == ring.public_list()
    for config in loaded.public_configs():
        capsule, _ = encapsulate_request(config, b"x")
        assert decapsulate_request(ring, capsule).request == b"x"


def test_rings_that_others_can_read_or_that_are_damaged_are_refused(tmp_path) -> None:
    folder = tmp_path / "keys"
    with pytest.raises(KeyFileError, match="no key ring"):
        KeyRing.load(folder)
    KeyRing.generate().save(folder)
    file = folder / "keyring.json"
    file.chmod(0o640)
    with pytest.raises(KeyFileError, match="open to group"):
        KeyRing.load(folder)
    file.chmod(0o600)
    folder.chmod(0o755)
    with pytest.raises(KeyFileError, match="open to group"):
        KeyRing.load(folder)
    folder.chmod(0o700)
    good = file.read_text()
    for bad in ("", "{}", "[]", good[:-10], good.replace('"format": 1', '"format": 2')):
        file.write_text(bad)
        with pytest.raises(KeyFileError):
            KeyRing.load(folder)
    other = KeyRing.generate().keys[0]
    mixed = GatewayKey(KeyRing.generate().keys[0].config, other.private, 0)
    KeyRing([mixed]).save(folder)
    with pytest.raises(KeyFileError, match="does not belong"):
        KeyRing.load(folder)


def test_rotation_overlaps_and_then_erases() -> None:
    clock = Clock()
    ring = KeyRing.generate(overlap=100.0, clock=clock)
    old = ring.public_configs()[0]
    clock.now += 50
    ring.rotate(lead=10.0)
    capsule, _ = encapsulate_request(old, b"x")
    new = ring.keys[1].config
    assert new.key_id != old.key_id
    assert ring.public_configs() == (old,)  # not yet advertised, but accepted
    assert decapsulate_request(ring, encapsulate_request(new, b"y")[0]).request == b"y"
    clock.now += 10
    assert ring.public_configs() == (new,)
    assert decapsulate_request(ring, capsule).request == b"x"
    clock.now += 100
    with pytest.raises(UnknownKey):
        decapsulate_request(ring, capsule)
    assert [key.config for key in ring.keys] == [new]
    ring.rotate()
    with pytest.raises(UnknownKey):
        decapsulate_request(ring, capsule)


def test_a_ring_whose_keys_are_all_of_the_future_still_serves_a_list() -> None:
    clock = Clock()
    ring = KeyRing.generate([KemId.P256, KemId.X25519], clock=clock)
    clock.now -= 500  # a clock set back
    assert [config.kem_id for config in ring.public_configs()] == [KemId.P256, KemId.X25519]


def test_identifiers_are_not_reused_while_held_and_run_out_with_an_error() -> None:
    ring = KeyRing.generate(clock=Clock())
    with pytest.raises(ConfigurationError, match="256"):
        for _ in range(300):
            ring.rotate()
    assert len({key.config.key_id for key in ring.keys}) == len(ring.keys)


def test_rotation_when_due_and_workers_that_read_again(tmp_path) -> None:
    clock = Clock()
    ring = KeyRing.generate(overlap=100.0, clock=clock)
    ring.save(tmp_path / "k")
    worker = KeyRing.load(tmp_path / "k", clock=clock)
    assert not worker.reload()
    assert not ring.rotate_if_due(50.0)
    clock.now += 50
    assert ring.rotate_if_due(50.0, lead=5.0)
    with KeyRing.locked(tmp_path / "k"):
        ring.save(tmp_path / "k")
    assert worker.reload()
    for now in (1050.0, 1055.0, 1154.0, 1156.0):
        clock.now = now
        assert worker.public_list() == ring.public_list()
        assert [k.config for k in worker.keys] == [k.config for k in ring.keys]
    (tmp_path / "k" / "keyring.json").unlink()
    with pytest.raises(KeyFileError):
        worker.reload()
    assert not KeyRing.generate().reload()


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


def test_keys_of_the_wrong_size_are_refused() -> None:
    for kem in KEMS.values():
        for size in (0, 31, 33):
            with pytest.raises(ValueError):
                kem.load(KemSecret(b"\1" * size))
