"""Rotation of a stored key ring by several workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ohttp_relay.capsule import encapsulate_request
from ohttp_relay.gateway import KeyKeeper
from ohttp_relay.keys import KeyRing, decode_key_list

# Rotation


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_keepers_of_several_workers_agree_and_erase(tmp_path: Path) -> None:
    clock = Clock()
    folder = tmp_path / "k"
    KeyRing.generate(overlap=50.0, clock=clock).save(folder)
    rings = [KeyRing.load(folder, clock=clock) for _ in range(3)]
    keepers = [KeyKeeper(ring, folder, lifetime=100.0, lead=10.0) for ring in rings]
    held = set()
    for _ in range(40):
        clock.now += 10
        for keeper in keepers:
            keeper.tend()
        assert len({ring.public_list() for ring in rings}) == 1
        stored = json.loads((folder / "keyring.json").read_text())
        held.add(len(stored["keys"]))
    assert held == {1, 2}  # never a third, and the old one goes
    assert len({ring.keys[-1].config.key_id for ring in rings}) == 1


@pytest.mark.parametrize("ages", [(300, 250), (300, 20), (120, 20), (20, 10)])
def test_rings_of_any_age_start_well(tmp_path: Path, ages: tuple[int, int]) -> None:
    """Two expired, one expired, one overlapping, two valid."""
    clock = Clock()
    ring = KeyRing.generate(overlap=50.0, clock=clock)
    clock.now += ages[0] - ages[1]
    ring.rotate()
    ring.save(tmp_path / "k")
    clock.now += ages[1]
    loaded = KeyRing.load(tmp_path / "k", clock=clock)
    KeyKeeper(loaded, tmp_path / "k", lifetime=200.0).tend()
    capsule, _ = encapsulate_request(loaded.public_configs()[0], b"x")
    assert loaded.keys
    assert len(decode_key_list(loaded.public_list())) == 1
    assert capsule
