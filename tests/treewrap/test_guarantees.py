"""The guarantees of treewrap/README.md, over random histories and all arities."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.treewrap.treewrap_world import HISTORIES, SUITES, Attacker, Step, World, run
from treewrap import NodeError, ParseError, Suite, WrapTree
from treewrap.suite import seal as real_seal

CI = settings(max_examples=100, suppress_health_check=list(HealthCheck))
FEW = settings(max_examples=40, suppress_health_check=list(HealthCheck))
CLOSURE = settings(max_examples=100, suppress_health_check=list(HealthCheck))
NIGHTLY = settings(max_examples=10_000, suppress_health_check=list(HealthCheck))


def assert_reads_all(tree: WrapTree, world: World) -> None:
    assert tree.leaves() == sorted(world.model) == world.hub.occupied
    assert {leaf: tree.secret(leaf) for leaf in tree.leaves()} == world.model
    for leaf in {0, 1, 71, 5000} - world.model.keys():
        with pytest.raises(KeyError):
            tree.secret(leaf)


@CI
@given(SUITES, HISTORIES)
def test_g1_committer_follower_and_joiner_read_exactly_the_current_secrets(
    suite: Suite, history: list[Step]
) -> None:
    world = World(suite)
    for step in history:
        world.run(step)
        joiner = WrapTree.open(world.hub.to_bytes(), world.tree_secret(), world.committer.tree_hash)
        for tree in (world.committer, world.follower, joiner):
            assert_reads_all(tree, world)
            assert tree.room_secrets() == world.committer.room_secrets()


@CI
@given(SUITES, HISTORIES)
def test_g7_members_who_apply_the_same_changes_hold_the_same_bytes_as_the_hub(
    suite: Suite, history: list[Step]
) -> None:
    world = run(suite, history)
    joiner = WrapTree.open(world.hub, world.tree_secret(), world.hub.tree_hash)
    public = world.hub.to_bytes()
    for tree in (world.committer, world.follower, joiner):
        assert tree.public().to_bytes() == public
        assert tree.tree_hash == world.hub.tree_hash


def assert_learns_exactly_what_was_there(suite: Suite, history: list[Step], data: st.DataObject) -> None:
    world = run(suite, history)
    joined = data.draw(st.sampled_from([e for e, touched in enumerate(world.touched) if touched]))
    left = data.draw(st.integers(joined, world.epoch - 1))
    known = Attacker(suite).learn(world, range(joined, left + 1))
    ever = set().union(*world.present)
    assert known & ever == set().union(*world.present[joined : left + 1])


@CLOSURE
@given(SUITES, HISTORIES, st.data())
def test_g4_a_member_of_some_epochs_learns_exactly_what_was_there_in_them(
    suite: Suite, history: list[Step], data: st.DataObject
) -> None:
    assert_learns_exactly_what_was_there(suite, history, data)


@pytest.mark.nightly
@NIGHTLY
@given(SUITES, HISTORIES, st.data())
def test_g4_ten_thousand_times(suite: Suite, history: list[Step], data: st.DataObject) -> None:
    assert_learns_exactly_what_was_there(suite, history, data)


@FEW
@given(SUITES, HISTORIES, st.data())
def test_g2_a_joiner_opens_nothing_that_was_gone_before(
    suite: Suite, history: list[Step], data: st.DataObject
) -> None:
    world = run(suite, history)
    joined = data.draw(st.sampled_from([e for e, touched in enumerate(world.touched) if touched]))
    known = Attacker(suite).learn(world, range(joined, world.epoch))
    before = set().union(*world.present[:joined]) - set().union(*world.present[joined:])
    assert not known & before


@FEW
@given(SUITES, HISTORIES, st.data())
def test_g3_a_removed_member_opens_nothing_that_came_later(
    suite: Suite, history: list[Step], data: st.DataObject
) -> None:
    world = run(suite, history)
    left = data.draw(st.integers(0, world.epoch - 1))
    known = Attacker(suite).learn(world, range(left + 1))
    later = set().union(*world.present) - set().union(*world.present[: left + 1])
    assert not known & later


@CI
@given(SUITES, HISTORIES)
def test_g5_whoever_holds_no_epoch_secret_opens_nothing(suite: Suite, history: list[Step]) -> None:
    world = run(suite, history)
    assert Attacker(suite).learn(world, range(0)) == set()


@CI
@given(SUITES, HISTORIES, st.data())
def test_g5_whoever_opens_a_spoiled_node_names_it(
    suite: Suite, history: list[Step], data: st.DataObject
) -> None:
    """Swapped, rolled back, never accepted, truncated, or damaged: whatever stands in its place."""
    world = run(suite, history)
    places = [node.ref for node in world.hub.forest.top_down()]
    rows = dict(zip(places, list(world.hub.chunks())[1:], strict=True))
    spoiled = data.draw(st.sampled_from(places))
    good = rows[spoiled]
    others = [row for published in world.published for _, row in published.rows if row != good]
    flipped = bytearray(good)
    flipped[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    rows[spoiled] = data.draw(st.sampled_from([*others, bytes(flipped), good[:-1], good + b"\0"]))
    served = world.hub.header + b"".join(rows.values())
    with pytest.raises((NodeError, ParseError)) as caught:
        WrapTree.open(served, world.tree_secret(), world.hub.tree_hash)
    if spoiled != places[0] and len(rows[spoiled]) == len(good):
        assert f"(level {spoiled.level}, index {spoiled.index})" in str(caught.value)


@CI
@given(SUITES, HISTORIES)
def test_g8_no_key_ever_seals_two_plaintexts(suite: Suite, history: list[Step]) -> None:
    sealed: dict[bytes, tuple[bytes, bytes]] = {}

    def recording(key: bytes, plaintext: bytes, aad: bytes) -> bytes:
        assert sealed.setdefault(key, (plaintext, aad)) == (plaintext, aad)
        return real_seal(key, plaintext, aad)

    with pytest.MonkeyPatch.context() as patch:
        for module in ("outcome", "stage", "member"):
            patch.setattr(f"treewrap.{module}.seal", recording)
        run(suite, history).committer.public()
    assert sealed
