"""Members leave, and add and remove devices of their own, whatever their role."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mimi_mmr.errors import NotAllowed, RoomError
from mimi_mmr.hub import mode
from mimi_mmr.member import committing
from mimi_mmr.member.whois import Standing
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.protocol.room.departures import Departure
from mimi_mmr.protocol.room.policy import Identities, Role
from tests.mimi_mmr.bench import RoomBench, World, next_policy

WORLD = World()


@pytest.fixture
def bench() -> RoomBench:
    bench = RoomBench(world=WORLD)
    bench.commit("alice", add=["bob", "cathy", "dave"])
    return bench


def test_a_member_says_goodbye_and_any_other_removes_it(bench: RoomBench) -> None:
    goodbye = Content(ContentKind.DEPARTURE, bench.rooms["bob"].departure().to_bytes())
    sent = bench.rooms["bob"].encrypt(goodbye).app_message
    leaf, content = bench.read("cathy", sent)
    departure = Departure.from_bytes(content.body)
    assert bench.rooms["cathy"].departing(departure) == leaf == bench.leaf_of("bob")
    done = bench.commit("cathy", departures=[departure])
    assert all(followed.problems == () for followed in done.followed.values())
    assert done.followed["bob"].removed_self
    assert "bob" not in bench.rooms
    bench.check_agreement()


def test_several_leave_with_one_commit_an_admin_among_them(bench: RoomBench) -> None:
    leaving = [bench.rooms[name].departure() for name in ("alice", "dave")]
    done = bench.commit("bob", departures=leaving)
    assert bench.rooms.keys() == {"bob", "cathy"}
    assert done.followed["cathy"].problems == ()
    bench.check_agreement()
    bench.commit("bob", add=["erin"])
    bench.check_agreement()


def test_an_admin_may_remove_one_that_leaves_and_another_at_once(bench: RoomBench) -> None:
    done = bench.commit("alice", remove=["bob"], departures=[bench.rooms["cathy"].departure()])
    assert done.followed["dave"].removed == (1, 2)
    assert bench.rooms.keys() == {"alice", "dave"}
    bench.check_agreement()


def test_a_departure_that_was_answered_is_of_nobody_any_more(bench: RoomBench) -> None:
    departure = bench.rooms["bob"].departure()
    bench.commit("cathy", departures=[departure])
    bench.commit("alice", add=["erin"])
    assert bench.leaf_of("erin") == 1
    for name in bench.rooms:
        with pytest.raises(RoomError, match="of a client that the same commit removes"):
            bench.rooms[name].departing(departure)
        with pytest.raises(RoomError):
            bench.stage(name, departures=[departure])
    bench.commit("cathy")
    bench.check_agreement()


def test_a_departure_that_was_told_twice_is_answered_once(bench: RoomBench) -> None:
    departure = bench.rooms["bob"].departure()
    pending = bench.stage("cathy", departures=[departure, departure])
    assert pending.request.departures == (departure,)
    bench.settle("cathy", pending)
    bench.check_agreement()


def test_more_departures_than_fit_leave_nothing_behind(
    bench: RoomBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = [bench.rooms[name].departure() for name in ("bob", "dave")]
    monkeypatch.setattr(committing, "departures_hash", too_many)
    with pytest.raises(RoomError, match="the commit can't be made"):
        bench.stage("cathy", departures=leaving)
    monkeypatch.undo()
    bench.commit("cathy", departures=leaving)
    bench.check_agreement()


def too_many(departures: tuple[Departure, ...]) -> bytes:
    raise ValueError(f"vector of {len(departures)} items is above its limit")


def test_nobody_answers_its_own_departure(bench: RoomBench) -> None:
    with pytest.raises(RoomError, match="nobody removes itself"):
        bench.stage("bob", departures=[bench.rooms["bob"].departure()])


def test_a_departure_and_a_commit_on_its_way_survive_the_process(bench: RoomBench) -> None:
    pending = bench.stage("cathy", departures=[bench.rooms["bob"].departure()])
    again = bench.restart("cathy", bench.at_rest("cathy", pending))
    assert again is not None
    bench.settle("cathy", again)
    assert "bob" not in bench.rooms
    bench.check_agreement()


# --- devices of one's own ----------------------------------------------------------------------------


def test_a_further_device_joins_under_the_same_pseudonym_whatever_the_role(bench: RoomBench) -> None:
    policy = next_policy(bench.state.policy, may_add=Role.NEVER).with_role(
        bench.pseudonym("bob"), Role.NOBODY
    )
    bench.commit("alice", policy=replace(policy, serial=1))
    bench.device_of("bob-laptop", "bob")
    done = bench.commit("bob", add=["bob-laptop"])
    assert all(followed.problems == () for followed in done.followed.values())
    assert bench.pseudonym("bob-laptop") == bench.pseudonym("bob")
    bench.check_agreement()
    assert list(bench.names("cathy").values()) == ["alice", "bob", "cathy", "dave", "bob"]
    bench.commit("bob-laptop", remove=["bob"])
    bench.check_agreement()


def test_a_user_has_so_many_devices_in_a_room(bench: RoomBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mode, "MAX_CLIENTS", 3)
    for number in range(4):
        bench.device_of(f"bob-{number}", "bob")
    bench.commit("bob", add=["bob-0"])
    with bench.refused_by_hub(NotAllowed, "a user has at most 3 clients"):
        bench.hub_takes(bench.stage("bob-0", add=["bob-1", "bob-2"]).request)
    bench.commit("bob", add=["bob-3"])
    bench.commit("bob", remove=["bob-0"])
    bench.commit("bob", add=["bob-1"])
    bench.check_agreement()


def test_a_further_device_is_nobodys_elses_to_add(bench: RoomBench) -> None:
    bench.commit("alice", policy=next_policy(bench.state.policy, may_add=Role.ADMIN))
    bench.device_of("bob-laptop", "bob")
    with bench.refused_by_hub(NotAllowed, "adding needs the role ADMIN"):
        bench.hub_takes(bench.stage("cathy", add=["bob-laptop"]).request)
    bench.commit("alice", add=["bob-laptop"])
    bench.check_agreement()


@pytest.mark.parametrize("identities", [Identities.ADMINS_ONLY, Identities.NOBODY])
def test_a_further_device_is_as_hidden_as_the_first(identities: Identities) -> None:
    bench = RoomBench(world=WORLD, identities=identities)
    bench.commit("alice", add=["bob"])
    bench.device_of("bob-laptop", "bob")
    bench.commit("bob", add=["bob-laptop"])
    bench.check_agreement()
    entry = bench.rooms["alice"].whois(bench.leaf_of("bob-laptop"), bench.world.trust, bench.now)
    assert entry.standing is Standing.HIDDEN


def test_progress_is_told(bench: RoomBench) -> None:
    told: list[tuple[int, int]] = []
    bench.rooms["bob"].who(bench.world.trust, bench.now, lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
