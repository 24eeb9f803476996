"""A member's tree comes back from its sealed state and goes on as if nothing had happened."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.treewrap.treewrap_world import GROUP, HISTORIES, SUITES, Step, World
from treewrap import LightTree, ParseError, StateError, Suite, WrapTree

CI = settings(max_examples=40, suppress_health_check=list(HealthCheck))
KEY = bytes(range(32))


@CI
@given(SUITES, HISTORIES)
def test_a_member_that_restarts_before_every_epoch_keeps_up(suite: Suite, history: list[Step]) -> None:
    world = World(suite)
    for step in history:
        for member in ("committer", "follower"):
            sealed = getattr(world, member).seal_state(KEY)
            setattr(world, member, WrapTree.open_state(sealed, KEY))
        world.run(step)
    assert world.follower.public().to_bytes() == world.committer.public().to_bytes()
    assert world.follower.tree_hash == world.hub.tree_hash


def test_a_state_opens_under_its_key_alone_and_only_whole() -> None:
    world = World(Suite(4))
    world.run(Step({0: True, 9: True}, room=True))
    sealed = world.committer.seal_state(KEY)
    assert WrapTree.open_state(sealed, KEY).room_secret("topic") == world.committer.room_secret("topic")
    for secret in (*world.model.values(), world.committer.room_secret("topic")):
        assert secret.reveal() not in sealed
    with pytest.raises(StateError):
        WrapTree.open_state(sealed, KEY[::-1])
    for size in range(len(sealed)):
        with pytest.raises(StateError):
            WrapTree.open_state(sealed[:size], KEY)
    for wrong in (b"", bytes(16)):
        with pytest.raises(ValueError, match="expected 32 bytes"):
            world.committer.seal_state(wrong)
        with pytest.raises(ValueError, match="expected 32 bytes"):
            WrapTree.open_state(sealed, wrong)
    assert sealed != world.committer.seal_state(KEY)


def test_a_plain_state_is_for_a_caller_that_encrypts_it_with_other_things() -> None:
    world = World(Suite(4))
    world.run(Step({0: True, 9: True}, room=True))
    plain = world.committer.plain_state()
    world.committer = WrapTree.from_plain_state(plain)
    assert world.committer.plain_state() == plain
    world.run(Step({0: False, 17: True}))
    assert world.committer.tree_hash == world.follower.tree_hash
    with pytest.raises(ParseError):
        WrapTree.from_plain_state(plain + b"\0")
    with pytest.raises(ParseError):
        WrapTree.from_plain_state(plain[:-1])


def test_a_light_tree_has_a_state_of_its_own() -> None:
    world = World(Suite(4))
    world.run(Step({0: True, 9: True}))
    sealed = LightTree.of(world.committer).seal_state(KEY)
    light = LightTree.open_state(sealed, KEY)
    assert light.resolve([9], world.paths) == {9: world.model[9]}
    with pytest.raises(StateError):
        WrapTree.open_state(sealed, KEY)
    with pytest.raises(StateError):
        LightTree.open_state(world.committer.seal_state(KEY), KEY)


def test_an_empty_tree_has_a_state() -> None:
    tree = WrapTree.open_state(WrapTree.create(Suite(8), GROUP).seal_state(KEY), KEY)
    assert (tree.epoch, tree.leaves(), tree.suite) == (-1, [], Suite(8))
