"""Which nodes a change touches, against a tree worked out the long way."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from treewrap.geometry import NodeRef, height_for, plan, slots, splice

BITS = st.integers(1, 6)
LEAVES = st.one_of(st.integers(0, 9), st.integers(0, 300), st.integers(0, 1 << 20))


def shape(bits: int, occupied: set[int]) -> tuple[int, dict[NodeRef, int]]:
    """Give height and bitmaps of the tree over some leaves."""
    height = height_for(bits, max(occupied, default=0))
    bitmaps: dict[NodeRef, int] = {NodeRef(height, 0): 0}
    below = occupied
    for level in range(1, height + 1):
        for child in below:
            ref = NodeRef(level, child >> bits)
            bitmaps[ref] = bitmaps.get(ref, 0) | 1 << (child & ((1 << bits) - 1))
        below = {child >> bits for child in below}
    return height, bitmaps


@settings(max_examples=500)
@given(BITS, st.sets(LEAVES, max_size=8), st.dictionaries(LEAVES, st.booleans(), max_size=6), st.booleans())
def test_a_plan_touches_ancestors_root_and_the_path_that_grew(
    bits: int, occupied: set[int], changes: dict[int, bool], fresh: bool
) -> None:
    if fresh:
        occupied = set()
    changes |= {leaf: False for leaf in sorted(occupied)[:2] if leaf not in changes}
    height, before = (0, {}) if fresh else shape(bits, occupied)
    found = plan(bits, height, lambda level, index: before.get(NodeRef(level, index), 0), changes)

    after_leaves = {leaf for leaf in occupied if changes.get(leaf, True)}
    after_leaves |= {leaf for leaf, now in changes.items() if now}
    new_height, after = shape(bits, after_leaves)
    touched = {NodeRef(new_height, 0)} | {NodeRef(level, 0) for level in range(height, new_height) if level}
    for leaf in changes:
        touched |= {NodeRef(level, leaf >> bits * level) for level in range(1, new_height + 1)}
    assert found.height == new_height
    assert [(ref, now) for ref, (_, now) in found.sealed()] == [
        (ref, after[ref]) for ref in sorted(touched & after.keys())
    ]
    assert list(found.vanished) == sorted(before.keys() - after.keys())


@settings(max_examples=300)
@given(BITS, st.sets(LEAVES, max_size=8), LEAVES, st.booleans())
def test_the_plan_of_one_leaf_is_the_one_that_many_leaves_would_get(
    bits: int, occupied: set[int], leaf: int, now: bool
) -> None:
    """One leaf takes a path of its own through `plan`; the old root named as well takes the general one."""
    height, bitmaps = shape(bits, occupied)

    def bitmap(level: int, index: int) -> int:
        return bitmaps.get(NodeRef(level, index), 0)

    short = plan(bits, height, bitmap, {leaf: now})
    assert short == plan(bits, height, bitmap, {leaf: now}, (NodeRef(height, 0),))


@given(BITS, st.integers(0, 1 << 24))
def test_the_height_is_the_least_that_covers_a_leaf(bits: int, leaf: int) -> None:
    height = height_for(bits, leaf)
    assert leaf < 1 << bits * height
    assert height == 1 or leaf >= 1 << bits * (height - 1)


@given(st.dictionaries(st.integers(0, 63), st.binary(min_size=32, max_size=32)), st.data())
def test_splicing_is_editing_a_table(table: dict[int, bytes], data: st.DataObject) -> None:
    edits = data.draw(
        st.dictionaries(st.integers(0, 63), st.just(b"") | st.binary(min_size=32, max_size=32), max_size=8)
    )
    bitmap = sum(1 << slot for slot in table)
    packed = b"".join(table[slot] for slot in sorted(table))
    after = {slot: value for slot, value in {**table, **edits}.items() if value}
    assert slots(bitmap) == sorted(table)
    together = [(slot, value, value) for slot, value in edits.items()]
    expected = b"".join(after[slot] for slot in sorted(after))
    values, beside = bytearray(packed), bytearray(packed)
    splice(values, beside, bitmap, together)
    assert values == beside == expected
    apart = [(slot, value, b"") for slot, value in edits.items()]
    values, beside = bytearray(packed), bytearray()
    splice(values, beside, bitmap, apart)
    assert (values, beside) == (expected, b"")
