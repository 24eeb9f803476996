"""Key rings: storage, permissions, rotation."""

from __future__ import annotations

import pytest

from ohttp_relay.capsule import decapsulate_request, encapsulate_request
from ohttp_relay.errors import (
    ConfigurationError,
    KeyFileError,
    UnknownKey,
)
from ohttp_relay.hpke import KemId
from ohttp_relay.keys import GatewayKey, KeyRing

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
