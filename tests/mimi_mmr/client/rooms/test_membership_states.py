"""How well a member follows its room: the table of states, and what a vault's marks say of it."""

from __future__ import annotations

from itertools import product
from typing import Any, cast

import pytest

from mimi_mmr.client.rooms.membership import TRANSITIONS, MembershipState, Occurrence, Place, restored_state
from mimi_mmr.member.member_list import MemberList
from tests.mimi_mmr.bench import RoomBench

BLOCKED = {MembershipState.BLOCKED, MembershipState.BLOCKED_AND_DESYNCHRONISED}
DESYNCHRONISED = {MembershipState.DESYNCHRONISED, MembershipState.BLOCKED_AND_DESYNCHRONISED}
REMOVED = MembershipState.REMOVED


def test_the_table_says_of_everything_what_follows_it() -> None:
    """But that a removed member follows a commit or is removed by one: it has no group to follow it with."""
    impossible = {(REMOVED, Occurrence.COMMIT_FOLLOWED), (REMOVED, Occurrence.REMOVED)}
    said = {(state, what) for state, following in TRANSITIONS.items() for what in following}
    assert said == set(product(MembershipState, Occurrence)) - impossible


@pytest.mark.parametrize("state", [state for state in MembershipState if state is not REMOVED])
def test_each_occurrence_changes_what_it_is_about_and_nothing_else(state: MembershipState) -> None:
    after = TRANSITIONS[state]
    assert after[Occurrence.COMMIT_FOLLOWED] is MembershipState.FOLLOWING
    assert after[Occurrence.PLACED] is MembershipState.FOLLOWING
    assert after[Occurrence.REMOVED] is REMOVED
    missed, unprocessable = after[Occurrence.COMMIT_MISSED], after[Occurrence.COMMIT_UNPROCESSABLE]
    assert missed in DESYNCHRONISED
    assert (missed in BLOCKED) == (state in BLOCKED)
    assert unprocessable in BLOCKED
    assert (unprocessable in DESYNCHRONISED) == (state in DESYNCHRONISED)
    undone = after[Occurrence.COMMIT_UNDONE]
    assert undone not in BLOCKED
    assert (undone in DESYNCHRONISED) == (state in DESYNCHRONISED)


def test_only_a_welcome_leads_out_of_being_removed() -> None:
    ways = {what: state for what, state in TRANSITIONS[REMOVED].items() if state is not REMOVED}
    assert ways == {Occurrence.PLACED: MembershipState.FOLLOWING}


@pytest.mark.parametrize(("desynchronised", "blocked"), list(product((False, True), repeat=2)))
def test_a_vaults_marks_are_one_state(desynchronised: bool, blocked: bool) -> None:
    state = restored_state(removed=False, desynchronised=desynchronised, blocked=blocked)
    assert (state in DESYNCHRONISED, state in BLOCKED) == (desynchronised, blocked)
    assert restored_state(removed=True, desynchronised=desynchronised, blocked=blocked) is REMOVED


def test_what_is_new_of_a_room_is_known_without_reading_who_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = RoomBench()
    bench.commit("alice", add=["bob"])
    bench.restart("bob")
    room, unused = bench.rooms["bob"], cast("Any", None)
    place = Place(room, bench.leaves["bob"], unused, unused, unused)
    with monkeypatch.context() as patch:
        patch.setattr(MemberList, "read", lambda *_: pytest.fail("all members are read"))
        before = place.version()
    room._local.reported[1] = "something"
    reported = place.version()
    assert reported != before
    bench.commit("alice")
    assert place.version() not in (before, reported)
