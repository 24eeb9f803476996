"""The benchmark of identities resolves whom it says it resolves, and verifies what it says it verifies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from nacl.exceptions import BadSignatureError

import mimi_mmr
from benchmarks.identities import Crowd, Turns, ed25519, measure, untold
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.member.whois import Standing

ROOT = Path(mimi_mmr.__file__).parent.parent


@pytest.fixture(scope="module")
def crowd() -> Crowd:
    return Crowd.gather(12, wrong=[3, 7])


def test_a_wrong_link_counts_as_unverified(crowd: Crowd) -> None:
    row = measure(crowd, 1)
    assert (row.n, row.verified, row.unverified) == (12, 10, 2)
    found = crowd.unread().who(crowd.fresh(), crowd.providers.now)
    assert [one.leaf for one in found if one.standing is Standing.UNVERIFIED] == [3, 7]
    names = {one.leaf: one.member.device.user.name for one in found if one.member}
    assert names == {leaf: f"user-{leaf}" for leaf in range(12) if leaf not in (3, 7)}


def test_four_signatures_are_verified_of_each_and_all_in_turn(crowd: Crowd) -> None:
    assert [len(checks) for checks in crowd.checks] == [0 if at in (3, 7) else 4 for at in range(12)]
    seen: list[int] = []
    counted = [[lambda at=at: seen.append(at) for _ in checks] for at, checks in enumerate(crowd.checks)]  # type: ignore[misc]
    told: list[tuple[int, int]] = []
    turns = Turns(counted, lambda done, total: told.append((done, total)))
    crowd.unread().who(crowd.fresh(), crowd.providers.now, turns)
    assert seen == [at for at in range(12) if at not in (3, 7) for _ in range(4)]
    assert told == [(12, 12)]
    assert len(turns.resolving) == len(turns.verifying) == 1


def test_a_bare_verification_does_verify() -> None:
    key = SigningKey.generate()
    signature = key.private.sign(b"content")
    ed25519(key.public, signature, b"content")()
    with pytest.raises(BadSignatureError):
        ed25519(key.public, signature, b"contend")()


def test_each_round_meets_the_members_for_the_first_time(crowd: Crowd) -> None:
    assert crowd.fresh().devices is not crowd.fresh().devices
    assert len(measure(crowd, 3, untold).rounds) == 3


def test_it_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.identities", "--sizes", "5", "8", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path), "--progress"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert "bare Ed25519" in done.stdout
    written = json.loads((tmp_path / "identities.json").read_text())
    assert [(row["n"], row["verified"]) for row in written["rooms"]] == [(5, 5), (8, 8)]
    assert "making 8 members" in done.stderr or "resolving" in done.stderr
