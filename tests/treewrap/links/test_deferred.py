"""A deferred leaf is answered by the next commit, however the room moves on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.treewrap.links.links_world import CI, commit, make_link
from tests.treewrap.treewrap_world import GROUP, SUITES, Step, World, run
from treewrap import (
    AddLink,
    Blank,
    Change,
    DeferredError,
    DeferredLeaf,
    EpochSecret,
    LeafSecret,
    LinkKey,
    Reject,
    Set,
    Suite,
    UpdateRefused,
    WrapError,
    WrapTree,
)
from treewrap.suite import GroupContext


@pytest.fixture
def world() -> World:
    return run(Suite(4), [Step(dict.fromkeys(range(20), True))])


def test_a_deferred_leaf_is_set_by_the_next_commit(world: World) -> None:
    joining, mine = EpochSecret.generate(), LeafSecret.generate()
    context = GroupContext(world.suite, GROUP)
    deferred = DeferredLeaf.make(context, 30, mine, epoch=1, epoch_secret=joining)
    queued = world.hub.stage_deferred(deferred.to_bytes())
    assert queued.rows == {}
    queued.commit()
    assert world.hub.deferred == (deferred,)
    world.epoch_secrets.append(joining)

    with pytest.raises(DeferredError, match="leaf 30"):
        commit(world, Set(31, LeafSecret.generate()))
    opened = world.committer.open_deferred(world.hub.deferred[0], joining)
    assert opened == mine
    commit(world, Set(30, opened))
    assert world.hub.deferred == ()
    assert WrapTree.open(world.hub, world.tree_secret(), world.hub.tree_hash).secret(30) == mine


@pytest.mark.parametrize("answer", [Reject(30), Blank(30)])
def test_a_deferred_leaf_is_turned_down_or_its_owner_removed(world: World, answer: Change) -> None:
    context = GroupContext(world.suite, GROUP)
    joining = EpochSecret.generate()
    deferred = DeferredLeaf.make(
        context, 30, LeafSecret.generate(), epoch=1, epoch_secret=EpochSecret.generate()
    )
    with pytest.raises(WrapError, match="leaf 30"):
        world.committer.open_deferred(deferred, joining)
    world.hub.stage_deferred(deferred).commit()
    world.epoch_secrets.append(joining)
    commit(world, answer)
    assert 30 not in world.hub.occupied
    assert world.hub.deferred == ()


def test_a_joiner_whose_secret_was_wrapped_wrongly_sets_it_again(world: World) -> None:
    commit(world, Set(30, LeafSecret.generate()))
    joiner = WrapTree.open(world.hub, world.tree_secret(), world.hub.tree_hash)
    mine, secret = LeafSecret.generate(), EpochSecret.generate()
    staged = joiner.stage([Set(30, mine)], epoch=world.epoch, epoch_secret=secret)
    world.hub.stage(staged.update, epoch=world.epoch).commit()
    world.follower.follow(staged.member_update, secret).commit()
    assert world.follower.secret(30) == mine


def test_leaves_that_can_not_be_deferred(world: World) -> None:
    context, secret = GroupContext(world.suite, GROUP), EpochSecret.generate()
    for leaf, epoch, what in [(3, 1, "occupied"), (30, 0, "of epoch 0")]:
        deferred = DeferredLeaf.make(context, leaf, LeafSecret.generate(), epoch=epoch, epoch_secret=secret)
        with pytest.raises(DeferredError, match=what):
            world.hub.stage_deferred(deferred)
    deferred = DeferredLeaf.make(context, 30, LeafSecret.generate(), epoch=1, epoch_secret=secret)
    world.hub.stage_deferred(deferred).commit()
    with pytest.raises(DeferredError, match="queue already"):
        world.hub.stage_deferred(deferred)
    with pytest.raises(UpdateRefused, match="leaf 31: rejected"):
        commit(world, Reject(30), Reject(31))


def test_seals_and_queue_are_stored_and_come_back(world: World) -> None:
    commit(world, AddLink(make_link(LinkKey.generate())))
    context = GroupContext(world.suite, GROUP)
    deferred = DeferredLeaf.make(
        context, 30, LeafSecret.generate(), epoch=5, epoch_secret=EpochSecret.generate()
    )
    staged = world.hub.stage_deferred(deferred)
    staged.commit()
    again = type(world.hub).from_bytes(world.hub.to_bytes())
    assert (again.seals, again.deferred) == (world.hub.seals, world.hub.deferred)
    assert again.header == staged.header


@CI
@given(SUITES, st.lists(st.sampled_from(["post", "stage", "send", "move"]), max_size=14))
def test_a_deferred_leaf_is_answered_however_the_commits_race(suite: Suite, events: list[str]) -> None:
    world = run(suite, [Step({0: True, 5: True})])
    context = GroupContext(suite, GROUP)
    secrets: dict[int, LeafSecret] = {}
    joining: dict[int, EpochSecret] = {}
    staged = None
    for event in [*events, "post", "stage", "send"]:
        if event == "post":
            leaf = 20 + world.epoch
            epoch_secret = EpochSecret.generate()
            secrets[leaf], joining[leaf] = LeafSecret.generate(), epoch_secret
            deferred = DeferredLeaf.make(
                context, leaf, secrets[leaf], epoch=world.epoch, epoch_secret=epoch_secret
            )
            world.hub.stage_deferred(deferred).commit()
            world.epoch_secrets.append(epoch_secret)
        elif event in ("stage", "move"):
            answers = [
                Set(queued.leaf, world.committer.open_deferred(queued, joining[queued.leaf]))
                for queued in world.hub.deferred
            ]
            secret = EpochSecret.generate()
            staged = world.committer.stage(answers, epoch=world.epoch, epoch_secret=secret), secret
        if event in ("send", "move") and staged is not None:
            (commit_, secret), staged = staged, None
            if (
                world.hub.deferred
                and {queued.leaf for queued in world.hub.deferred} - dict(commit_.update.changes).keys()
            ):
                with pytest.raises(DeferredError):
                    world.hub.stage(commit_.update, epoch=commit_.epoch)
                continue
            world.hub.stage(commit_.update, epoch=commit_.epoch).commit()
            world.follower.follow(commit_.member_update, secret).commit()
            commit_.commit()
            world.epoch_secrets.append(secret)
    assert world.hub.deferred == ()
    for leaf, mine in secrets.items():
        assert world.follower.secret(leaf) == mine
