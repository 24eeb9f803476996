"""The hub's tree is the members' tree, byte for byte, whatever happened."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimi_mmr.errors import InvalidCommit, ParseError
from mimi_mmr.mls.ratchet import draft, state, treemath
from mimi_mmr.mls.ratchet.tree import RatchetTree
from mimi_mmr.mls.wire import parse_message, verify_key_package
from tests.mimi_mmr.mls.mls_world import GROUP, World

KINDS = st.sampled_from(["add", "add", "remove", "heal"])
STEP = st.tuples(KINDS, st.integers(0, 7), st.integers(0, 99))


def play(world: World, kind: str, who: int, number: int) -> None:
    sender = sorted(world.groups)[who % len(world.groups)]
    others = sorted(set(world.people) - {sender})
    if kind == "add":
        world.commit(sender, add=1 + number % 5)
    elif kind == "remove" and others:
        first = number % len(others)
        world.commit(sender, remove=tuple(others[first : first + 1 + number % 3]))
    else:
        world.commit(sender)


def check(world: World) -> None:
    expected = next(iter(world.groups.values())).ratchet_tree()
    assert world.hub.to_bytes() == expected
    again = RatchetTree.from_rows(world.rows)
    assert again.to_bytes() == expected
    assert again.tree_hash() == world.hub.tree_hash()
    assert (again.size, list(again.leaves)) == (world.hub.size, sorted(world.people))


def follow(steps, newcomers: int = 0) -> None:
    world = World()
    if newcomers:
        world.commit(add=newcomers)
        world.commit(sender=1)
    for step in steps:
        play(world, *step)
        check(world)
    whole = RatchetTree.from_bytes(world.hub.to_bytes())
    whole.verify(GROUP)
    for leaf, group in world.groups.items():
        assert group.ratchet_tree() == world.hub.to_bytes()
        assert group.own_leaf == leaf
        assert group.leaves() == dict(whole.leaves)
    assert {leaf: one.identity for leaf, one in world.people.items()} == {
        leaf: node.identity for leaf, node in world.hub.leaves.items()
    }


@settings(max_examples=60)
@given(st.lists(STEP, min_size=1, max_size=12))
def test_every_history_gives_the_members_tree(steps) -> None:
    follow(steps)


@settings(max_examples=6)
@given(st.lists(STEP, max_size=8))
def test_histories_of_a_larger_group(steps) -> None:
    follow(steps, newcomers=40)


@pytest.mark.nightly
@settings(max_examples=3000)
@given(st.lists(STEP, min_size=1, max_size=30), st.sampled_from([0, 0, 0, 17, 64]))
def test_many_long_histories(steps, newcomers: int) -> None:
    follow(steps, newcomers)


def test_the_tree_shrinks_and_grows_again() -> None:
    world = World()
    world.commit(add=8)
    assert world.hub.size == 16
    world.commit(remove=(5, 6, 7, 8))
    assert world.hub.size == 8
    world.commit(remove=(4, 3, 2))
    assert world.hub.size == 2
    world.commit(remove=(1,))
    assert world.hub.size == 1
    world.commit()
    world.commit(add=3)
    assert world.hub.size == 4
    check(world)


def test_a_change_touches_its_path_only() -> None:
    world = World()
    world.commit(add=127)
    world.commit(sender=0)
    before = world.hub.rows
    change = world.hub.apply(world.staged(sender=1))
    assert world.hub.rows == before
    path = set(treemath.direct_path(1, world.hub.size))
    assert set(change.rows) == {2} | path
    assert change.updated == 1
    assert change.new_leaf is not None
    assert change.new_leaf.signature_key == world.people[1].key.public


def test_a_commit_costs_its_path_not_the_tree(monkeypatch) -> None:
    world = World(active=1)
    world.commit(add=255)
    world.commit()
    world.hub.tree_hash()
    commit = world.staged()
    hashed = []
    for module in (state, draft):
        for name in ("leaf_hash", "parent_node_hash"):
            original = getattr(module, name)
            monkeypatch.setattr(module, name, lambda *args, f=original: hashed.append(f) or f(*args))
    monkeypatch.setattr(state, "leaf_from_row", None)
    monkeypatch.setattr(state, "index_rows", None)
    change = world.hub.apply(commit, GROUP)
    change.tree_hash()
    change.commit()
    world.hub.tree_hash()
    assert len(hashed) <= 2 * 9


def test_a_change_is_good_for_one_tree_only() -> None:
    world = World()
    world.commit(add=2)
    first, second = (world.hub.apply(world.staged()) for _ in range(2))
    first.commit()
    with pytest.raises(ValueError, match="has changed"):
        second.commit()


def test_what_an_add_reports() -> None:
    world = World()
    staged = world.groups[0].stage_commit([World().people[0].client.key_package()])
    commit = parse_message(staged.commit)
    change = world.hub.apply(commit, GROUP)
    ((leaf, key_package),) = change.added
    verify_key_package(key_package)
    assert (leaf, change.removed, change.updated, change.new_leaf) == (1, (), None, None)
    assert change.rows == {2: b"\x01" + key_package.leaf_node.encoded}


def test_leaves_are_a_mapping() -> None:
    world = World()
    world.commit(add=3)
    world.commit(remove=(2,))
    leaves = world.hub.leaves
    assert list(leaves) == [0, 1, 3]
    assert len(leaves) == 3
    assert 2 not in leaves
    assert world.hub.leaf(2) is None
    assert world.hub.node_bytes(4) is None
    with pytest.raises(KeyError):
        leaves[2]


def test_every_truncation_of_a_tree_is_refused() -> None:
    world = World()
    world.commit(add=2)
    world.commit()
    data = world.hub.to_bytes()
    for end in range(len(data)):
        with pytest.raises(ParseError):
            RatchetTree.from_bytes(data[:end])
    with pytest.raises(ParseError):
        RatchetTree.from_bytes(data + b"\x00")


@given(st.data())
def test_garbled_trees_are_refused_or_read(data) -> None:
    world = TREES[0]
    garbled = bytearray(world)
    for _ in range(data.draw(st.integers(1, 3))):
        garbled[data.draw(st.integers(0, len(garbled) - 1))] = data.draw(st.integers(0, 255))
    try:
        tree = RatchetTree.from_bytes(bytes(garbled))
    except (ParseError, InvalidCommit):
        return
    assert tree.to_bytes() == garbled


def _tree() -> bytes:
    world = World()
    world.commit(add=4)
    world.commit(sender=1)
    world.commit(add=1)
    return world.hub.to_bytes()


TREES = [_tree()]


def test_tree_arithmetic() -> None:
    assert [treemath.level(node) for node in range(8)] == [0, 1, 0, 2, 0, 1, 0, 3]
    assert [treemath.parent(node) for node in (0, 2, 4, 6, 1, 5, 3)] == [1, 1, 5, 5, 3, 3, 7]
    assert list(treemath.direct_path(5, 8)) == [9, 11, 7]
    assert [treemath.slots(node) for node in (-1, 0, 2, 4, 6, 8, 14, 16)] == [0, 1, 2, 4, 4, 8, 8, 16]
    for node in range(1, 63, 2):
        left, right = treemath.children(node)
        assert treemath.parent(left) == treemath.parent(right) == node
        assert treemath.sibling(left) == right
        assert treemath.sibling(right) == left
