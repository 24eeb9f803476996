"""Devices whose clocks differ by less than an hour: what waits comes to its end, and nothing is lost meanwhile.

The MLS library dates KeyPackages by the system's clock. So the first three stories run in a process whose system
clock they set.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mimi_mmr.client import Client, Membership
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.errors import LifetimeRefused, NotYet
from mimi_mmr.mls.mls_rs.group import MlsRsGroup
from tests.mimi_mmr.conftest import Clock, LiveWorld, connect, invited, until_epoch
from tests.needs import needs

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


def set_clock(ahead: int) -> None:
    """Set this process's system clock to `ahead` seconds before the true time."""
    Path(os.environ["FAKETIME_TIMESTAMP_FILE"]).write_text(f"{ahead:+d}\n")


@needs("faketime")
@pytest.mark.parametrize(
    "story",
    [
        "first_contact_waits",
        pytest.param("adding_to_a_room_waits", marks=pytest.mark.nightly),
        pytest.param("a_later_try_uses_the_same_key_packages", marks=pytest.mark.nightly),
    ],
)
def test_whoever_adds_a_device_whose_clock_is_ahead_waits(story: str, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    environment = os.environ | {
        "LD_PRELOAD": str(LIBRARIES[-1]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        "NO_FAKE_STAT": "1",
    }
    python = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "python_functions=story_*",
    ]
    done = subprocess.run(
        [*python, f"{__file__}::story_{story}"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=120,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


async def story_first_contact_waits(live: LiveWorld) -> None:
    """Bob's clock is 20 minutes ahead when he accepts."""
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    outgoing = await alice.people.request_connection(bob.contact_code)
    (incoming,) = await bob.people.connection_requests()
    set_clock(1200)
    await bob.people.accept(incoming)
    set_clock(0)
    for _ in range(2):
        assert await alice.people.complete_connection(outgoing, wait=0) is None
        await alice.tend()
        assert bob.user in alice.people.outgoing
    notices = [notice.text for notice in alice.notices.take()]
    assert len(notices) == 1
    assert "accepted, and the connection waits" in notices[0]
    assert "20 minutes" in notices[0]
    set_clock(1199)
    assert await alice.people.complete_connection(outgoing, wait=30) is not None
    assert await invited(bob)
    assert not alice.people.outgoing


async def keyed(live: LiveWorld) -> tuple[Client, Client, Contact, Membership]:
    """Alice's room; Bob, whom she knows, has published a KeyPackage while his clock was 90 seconds ahead."""
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, to_alice = await connect(alice, bob)
    room = await alice.rooms.create()
    set_clock(90)
    bob.key_packages.maker._made.clear()  # those were made at the true time
    await bob.key_packages.publish(to_alice, 1)
    set_clock(0)
    return alice, bob, to_bob, room


async def story_adding_to_a_room_waits(live: LiveWorld) -> None:
    alice, bob, to_bob, room = await keyed(live)
    seen: list[str] = []

    def waiting(error: NotYet) -> None:
        seen.append(str(error))
        set_clock(89)  # a second is left

    await alice.rooms.add(room, [to_bob], waiting)
    assert len(seen) == 1
    assert "the clock of the device that made it is ahead, or this one is behind" in seen[0]
    joined = await invited(bob)
    await until_epoch(bob, joined, room.room.epoch)


async def story_a_later_try_uses_the_same_key_packages(live: LiveWorld) -> None:
    """The shelf has one set, and a background task does not wait for minutes."""
    alice, bob, to_bob, room = await keyed(live)
    for _ in range(2):
        with pytest.raises(NotYet):
            await alice.rooms.adding.add(room, [to_bob])
    set_clock(90)
    await alice.rooms.adding.add(room, [to_bob])
    assert await invited(bob)


async def test_a_follower_tries_a_commit_that_is_not_yet_valid_again(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An MLS library may refuse an Add whose KeyPackage begins later, by its own clock."""
    clock = Clock()
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example", clock=clock)
    cathy = await live.person("cathy", "c.example")
    to_bob, to_alice = await connect(alice, bob)
    to_cathy, from_cathy = await connect(alice, cathy)
    await bob.key_packages.publish(to_alice, 1)
    await cathy.key_packages.publish(from_cathy, 1)
    room = await alice.rooms.create()
    await alice.rooms.add(room, [to_bob])
    at_bob = await invited(bob)
    await until_epoch(bob, at_bob, room.room.epoch)
    before, acknowledged = at_bob.room.epoch, at_bob.acknowledged
    await alice.rooms.add(room, [to_cathy])
    await alice.rooms.send(room, "welcome")

    def refuses(self: MlsRsGroup, commit: object) -> None:
        raise LifetimeRefused("not within the lifetime")

    clock.ahead = -300.0
    with monkeypatch.context() as patched:
        patched.setattr(MlsRsGroup, "process_commit", refuses)
        for _ in range(3):
            assert await bob.rooms.sync(at_bob, wait=0.1) == 0
        assert (at_bob.room.epoch, at_bob.acknowledged) == (before, acknowledged)
        assert not at_bob.blocked
        assert not at_bob.desynchronised
        (problem,) = at_bob.problems
        assert "a commit waits until it is valid" in problem
    clock.ahead = 0.0
    await until_epoch(bob, at_bob, room.room.epoch)
    while not at_bob.messages:
        await bob.rooms.sync(at_bob, wait=5)
    assert at_bob.messages.popleft().text == "welcome"
    assert at_bob.usable


@pytest.mark.parametrize("ahead", [1200.0, -1200.0])
async def test_a_device_whose_clock_is_20_minutes_off_connects_adds_and_is_added(
    live: LiveWorld, ahead: float
) -> None:
    """The times in its requests are off, too. Its MLS library has the true time here."""
    clock = Clock()
    clock.ahead = max(ahead, 0.0)
    alice, bob = await live.person("alice", "a.example", clock=clock), await live.person("bob", "b.example")
    to_bob, to_alice = await connect(alice, bob)
    await bob.key_packages.publish(to_alice, 1)
    await alice.key_packages.publish(to_bob, 1)
    mine, theirs = await alice.rooms.create(), await bob.rooms.create()
    clock.ahead = ahead
    package = await alice.key_packages.claim(to_bob, "a.example")
    assert package
    await alice.key_packages.tend(to_bob)
    await bob.rooms.add(theirs, [bob.people.contacts[alice.user]])
    assert (await invited(alice)).uri == theirs.uri
    link = await alice.rooms.links.create(mine, lifetime=7 * 86400)
    assert link.room == mine.uri


async def test_a_device_whose_clock_is_off_learns_it_from_its_provider_and_its_relay(live: LiveWorld) -> None:
    clock = Clock()
    alice = await live.person("alice", "a.example", clock=clock)
    await alice.rooms.create()
    assert alice.path.clock_check.finding() == ""
    clock.ahead = 240.0
    await (
        alice.account.registered_devices()
    )  # asks the own provider; a room is made through another one's relay
    await alice.rooms.create()
    assert alice.path.clock_check.ahead.keys() > {"a.example"}
    finding = alice.path.clock_check.finding()
    assert finding.startswith("this device's clock is 4 minutes ahead of ")
    assert "a.example's and " in finding or " and a.example's" in finding
    assert time.time() < clock()
