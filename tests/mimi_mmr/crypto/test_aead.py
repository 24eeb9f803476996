"""AES-256-GCM: published vectors, and what does not open."""

from __future__ import annotations

import pytest

from mimi_mmr.crypto.aead import NONCE, TAG, InvalidTag, OneTimeKey, RandomNonceCipher, open_once, seal_once


@pytest.mark.parametrize(
    ("plaintext", "sealed"),
    [
        ("", "530f8afbc74536b9a963b4f1c4cb738b"),
        ("00" * 16, "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"),
    ],
)
def test_the_vectors_of_gcms_specification(plaintext: str, sealed: str) -> None:
    """Test cases 13 and 14 of McGrew and Viega's submission to NIST: a key and a nonce of zeros."""
    key = OneTimeKey(bytes(32))
    assert seal_once(key, bytes.fromhex(plaintext)).hex() == sealed
    assert open_once(key, bytes.fromhex(sealed)).hex() == plaintext


def test_what_a_one_time_key_sealed_opens_as_it_was_only() -> None:
    key = OneTimeKey.generate()
    sealed = seal_once(key, b"once", b"for this room")
    assert open_once(key, sealed, b"for this room") == b"once"
    for wrong, other, aad in (
        (OneTimeKey.generate(), sealed, b"for this room"),
        (key, sealed, b"for that room"),
        (key, sealed, b""),
        (key, sealed[:-1], b"for this room"),
        (key, bytes([sealed[0] ^ 1]) + sealed[1:], b"for this room"),
        (key, b"", b"for this room"),
    ):
        with pytest.raises(InvalidTag):
            open_once(wrong, other, aad)


def test_a_cipher_of_random_nonces_never_seals_the_same_twice() -> None:
    cipher = RandomNonceCipher(bytes(32))
    sealed = {cipher.seal(b"often", b"row") for _ in range(64)}
    assert len(sealed) == len({one[:NONCE] for one in sealed}) == 64
    for one in sealed:
        assert len(one) == NONCE + len(b"often") + TAG
        assert cipher.open(one, b"row") == b"often"


def test_what_a_cipher_of_random_nonces_did_not_seal_does_not_open() -> None:
    cipher = RandomNonceCipher(bytes(32))
    sealed = cipher.seal(b"often", b"row")
    for wrong in (sealed[:-1], sealed[1:], sealed[:NONCE], sealed[: NONCE + TAG], b""):
        with pytest.raises(InvalidTag):
            cipher.open(wrong, b"row")
    with pytest.raises(InvalidTag):
        cipher.open(sealed, b"another row")
    with pytest.raises(InvalidTag):
        RandomNonceCipher(bytes([1]) * 32).open(sealed, b"row")
