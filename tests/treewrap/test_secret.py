"""Secrets do not get out by accident."""

from __future__ import annotations

import copy
import pickle

import pytest

from treewrap import EpochSecret, LeafSecret, LinkKey, RoomSecret, RootKey, Secret, Set


@pytest.mark.parametrize("kind", [LeafSecret, EpochSecret, RoomSecret, RootKey])
def test_a_secret_hides_itself(kind: type[Secret]) -> None:
    secret = kind(b"\xab" * 32)
    for shown in (repr(secret), str(secret), f"{secret}", repr([secret])):
        assert "ab" not in shown.lower().replace(kind.__name__.lower(), "")
    assert secret.reveal() == b"\xab" * 32
    for leak in (pickle.dumps, copy.copy, copy.deepcopy, hash):
        with pytest.raises(TypeError):
            leak(secret)
    with pytest.raises(ValueError, match="expected 32 bytes, got 31"):
        kind(bytes(31))


def test_secrets_are_equal_only_within_their_type() -> None:
    assert LeafSecret(bytes(32)) == LeafSecret(bytes(32))
    assert LeafSecret(bytes(32)) != LeafSecret(b"1" * 32)
    assert LeafSecret(bytes(32)) != RoomSecret(bytes(32))
    assert LeafSecret(bytes(32)) != bytes(32)
    assert LeafSecret.generate() != LeafSecret.generate()


def test_a_change_hides_its_secret() -> None:
    assert repr(Set(1, LeafSecret(b"\xab" * 32))) == "Set(leaf=1, secret=LeafSecret(...))"


def test_a_link_key_hides_itself() -> None:
    key = LinkKey.generate()
    assert repr(key) == "LinkKey(MLKEM768_X25519, ...)"
    with pytest.raises(TypeError):
        pickle.dumps(key)
