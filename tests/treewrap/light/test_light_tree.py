"""A light tree gives the same answers and makes the same bytes as the full tree, on every history."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.treewrap.treewrap_world import GROUP, HISTORIES, SUITES, Step, World, run
from treewrap import (
    Blank,
    ChangeError,
    ConfirmationError,
    EpochSecret,
    LeafSecret,
    LightTree,
    NodeError,
    NodeRef,
    ParseError,
    PathQuery,
    Paths,
    Rebuild,
    Repair,
    Set,
    StagedError,
    StaleEpoch,
    StaleTree,
    Suite,
    TreeHashMismatch,
    UpdateRefused,
    WrapTree,
    WrongEpochSecret,
)

CI = settings(max_examples=50, suppress_health_check=list(HealthCheck))


def light_of(world: World) -> LightTree:
    root = world.paths(PathQuery(world.hub.tree_hash))
    return LightTree.open(GROUP, root, world.tree_secret(), world.hub.tree_hash)


@CI
@given(SUITES, HISTORIES, st.lists(st.integers(0, 5100), max_size=5))
def test_it_reads_what_the_full_tree_reads(suite: Suite, history: list[Step], more: list[int]) -> None:
    world = run(suite, history)
    light = light_of(world)
    some = sorted(world.model)[::2] + more
    assert light.resolve(some, world.paths) == {
        leaf: world.model[leaf] for leaf in sorted(set(some)) if leaf in world.model
    }
    assert (light.tree_hash, light.epoch, light.height) == (
        world.hub.tree_hash,
        world.hub.epoch,
        world.hub.height,
    )
    whole = light.read(world.paths(light.query(subtrees=[NodeRef(light.height, 0)])))
    assert whole.leaves() == world.hub.occupied


@CI
@given(SUITES, HISTORIES, HISTORIES, st.integers(0, 2**32))
def test_it_commits_the_same_bytes_as_the_full_tree(
    suite: Suite, history: list[Step], later: list[Step], seed: int
) -> None:
    world = run(suite, history)
    light = light_of(world)
    for step in later:
        changes = world.changes(step)
        secret = EpochSecret.generate(world.rng)
        paths = world.paths(light.query_for(changes).to_bytes())
        full = world.committer.stage(
            changes, epoch=world.epoch, epoch_secret=secret, rng=random.Random(seed).randbytes
        )
        staged = light.stage(
            changes, paths, epoch=world.epoch, epoch_secret=secret, rng=random.Random(seed).randbytes
        )
        assert staged.update.to_bytes() == full.update.to_bytes()
        assert staged.member_update.to_bytes() == full.member_update.to_bytes()
        world.hub.stage(staged.update, epoch=world.epoch).commit()
        staged.commit()
        full.commit()
        world.epoch_secrets.append(secret)
        assert light.tree_hash == world.hub.tree_hash == world.committer.tree_hash


@CI
@given(SUITES, HISTORIES, HISTORIES)
def test_it_follows_without_fetching(suite: Suite, history: list[Step], later: list[Step]) -> None:
    world = run(suite, history)
    light = light_of(world)
    fetched = light.fetched
    for step in later:
        secret = EpochSecret.generate(world.rng)
        staged = world.stage(world.changes(step), secret)
        light.follow(staged.member_update.to_bytes(), secret).commit()
        world.hub.stage(staged.update, epoch=world.epoch).commit()
        staged.commit()
        world.epoch_secrets.append(secret)
    assert light.fetched == fetched
    assert light.tree_hash == world.hub.tree_hash
    occupied = world.committer.leaves()
    assert light.resolve(occupied, world.paths) == {leaf: world.committer.secret(leaf) for leaf in occupied}


@pytest.fixture
def world() -> World:
    return run(Suite(4), [Step(dict.fromkeys(range(70), True)), Step({3: True})])


async def test_a_coroutine_fetches_as_well(world: World) -> None:
    async def fetch(query: bytes) -> bytes:
        return world.paths(query)

    light = light_of(world)
    assert await light.resolve_async([3, 500], fetch) == {3: world.model[3]}


def test_paths_shared_by_leaves_are_fetched_once(world: World) -> None:
    light = light_of(world)
    one = len(world.paths(light.query([0])))
    before = light.fetched
    light.resolve([0, 1, 2, 3], world.paths)
    assert light.fetched - before == one


def test_a_full_tree_becomes_light(world: World) -> None:
    light = LightTree.of(world.committer)
    assert light.resolve([69], world.paths) == {69: world.model[69]}
    assert light.suite == world.suite
    assert light.group_id == GROUP
    with pytest.raises(ChangeError):
        LightTree.of(WrapTree.create(Suite(4), GROUP))


def test_paths_of_another_tree(world: World) -> None:
    light = light_of(world)
    old = world.paths(light.query([3]))
    world.run(Step({3: True}))
    with pytest.raises(StaleTree):
        world.paths(light.query([3]))
    fresh = light_of(world)
    with pytest.raises(TreeHashMismatch):
        fresh.read(old)


def test_a_wrong_epoch_secret(world: World) -> None:
    root = world.paths(PathQuery(world.hub.tree_hash))
    with pytest.raises(WrongEpochSecret):
        LightTree.open(GROUP, root, EpochSecret.generate(), world.hub.tree_hash)


def test_a_node_that_is_not_this_trees_is_named(world: World) -> None:
    light = light_of(world)
    good = Paths.from_bytes(world.paths(light.query([3, 60])))
    for at, node in enumerate(good.nodes[1:], 1):
        place = f"level {node.ref.level}, index {node.ref.index}"
        flipped = node._replace(row=node.row[:-1] + bytes([node.row[-1] ^ 1]))
        shorter = node._replace(row=node.row[:-1])
        other_hashes = node._replace(hashes=node.hashes[::-1])
        for wrong in (flipped, shorter, other_hashes) if node.hashes else (flipped, shorter):
            nodes = (*good.nodes[:at], wrong, *good.nodes[at + 1 :])
            with pytest.raises(NodeError, match=place):
                light.read(replace(good, nodes=nodes).to_bytes())
    with pytest.raises(NodeError, match="level 3, index 0"):
        light.resolve([3], lambda _: replace(good, nodes=good.nodes[:1]).to_bytes())
    with pytest.raises(NodeError, match="not under any"):
        light.read(replace(good, nodes=(good.nodes[0], good.nodes[-1])).to_bytes())


def test_what_a_light_tree_refuses(world: World) -> None:
    light = light_of(world)
    with pytest.raises(ChangeError, match="rebuild"):
        light.query_for([Rebuild()])
    secret = EpochSecret.generate()
    staged = world.stage([Blank(3)], secret)
    with pytest.raises(ConfirmationError):
        light.follow(staged.member_update, EpochSecret.generate())
    with pytest.raises(UpdateRefused):
        header = replace(staged.member_update.header, suite=Suite(2))
        light.follow(replace(staged.member_update, header=header), secret)
    first, second = light.follow(staged.member_update, secret), light.follow(staged.member_update, secret)
    first.commit()
    with pytest.raises(StagedError):
        second.commit()
    with pytest.raises(StaleEpoch):
        light.follow(staged.member_update, secret)


def test_a_light_tree_repairs_a_node(world: World) -> None:
    light = light_of(world)
    repair = [Repair((NodeRef(1, 9),)), Set(3, LeafSecret.generate())]
    paths = world.paths(light.query_for(repair))
    staged = light.stage(repair, paths, epoch=9, epoch_secret=EpochSecret.generate())
    at_hub = world.hub.stage(staged.update, epoch=9)
    assert (1, 9) in at_hub.rows
    assert at_hub.tree_hash == staged.tree_hash


@CI
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_parse_error(content: bytes) -> None:
    for parse in (PathQuery.from_bytes, Paths.from_bytes):
        with pytest.raises(ParseError):
            parse(content + b"\xff" * 3)


def test_queries_and_paths_come_back_and_reject_every_truncation(world: World) -> None:
    query = PathQuery(world.hub.tree_hash, (1, 5, 60), (NodeRef(1, 2), NodeRef(2, 1)))
    assert PathQuery.from_bytes(query.to_bytes()) == query
    paths = world.paths(query)
    assert Paths.from_bytes(paths).to_bytes() == paths
    for parse, content in [(PathQuery.from_bytes, query.to_bytes()), (Paths.from_bytes, paths)]:
        for size in range(len(content)):
            with pytest.raises(ParseError):
                parse(content[:size])
    with pytest.raises(ParseError):
        PathQuery.from_bytes(replace(query, leaves=(5, 1)).to_bytes())
