"""Two traces of one person that share a value are linked; what everybody shares ties nobody."""

from __future__ import annotations

import random
import secrets

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from mimi_mmr.lab.ledger import WINDOW, Trace, links

SHARED = bytes(range(100, 100 + WINDOW))


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def test_a_shared_value_of_sixteen_bytes_links() -> None:
    traces = [
        Trace("Alice", "room 1", noise(40, 1) + SHARED + noise(40, 2)),
        Trace("Alice", "room 2", noise(11, 3) + SHARED + noise(70, 4)),
        Trace("Bob", "room 1", noise(100, 5)),
    ]
    (link,) = links(traces)
    assert (link.person, link.places, link.shared) == ("Alice", ("room 1", "room 2"), SHARED)
    assert str(link) == "Alice's traces in room 1 and room 2 share a value"


def test_a_shared_value_of_fifteen_bytes_does_not() -> None:
    traces = [
        Trace("Alice", "room 1", b"\x01" + SHARED[:15] + b"\x02"),
        Trace("Alice", "room 2", b"\x03" + SHARED[:15] + b"\x04"),
    ]
    assert links(traces) == []


@settings(max_examples=80)
@given(st.binary(min_size=WINDOW, max_size=64), st.binary(max_size=80), st.binary(max_size=80), st.integers())
@example(bytes(range(16)), b"", b"", 0)
def test_a_shared_value_links_wherever_it_stands(
    value: bytes, before: bytes, after: bytes, seed: int
) -> None:
    others = noise(64, seed)
    assume(all(value[at : at + WINDOW // 2] not in others for at in range(len(value) - WINDOW // 2 + 1)))
    traces = [
        Trace("Alice", "account", before + value + after),
        Trace("Alice", "room", value),
        Trace("Bob", "room", others),
    ]
    assert [link.places for link in links(traces)] == [("account", "room")]


def test_what_two_persons_share_ties_nobody() -> None:
    constant = noise(200, 6)
    traces = [
        Trace(person, place, noise(20, seed) + constant + noise(20, seed + 100))
        for seed, (person, place) in enumerate(
            [("Alice", "room 1"), ("Alice", "room 2"), ("Bob", "room 1"), ("Cathy", "room 3")]
        )
    ]
    assert links(traces) == []


@settings(max_examples=50)
@given(st.integers(), st.integers(1, 7))
def test_a_constant_with_a_chance_neighbour_ties_nobody(seed: int, extra: int) -> None:
    constant = noise(60, seed)
    chance = bytes(extra)  # e.g. the zeros of two lengths that happen to be equal
    traces = [
        Trace("Alice", "room 1", chance + constant + chance + b"\x01" * 9),
        Trace("Alice", "room 2", chance + constant + chance + b"\x02" * 9),
        Trace("Bob", "room 1", b"\x07" * 7 + constant + b"\x08" * 9),
    ]
    assert links(traces) == []


def test_a_value_beside_a_constant_is_still_found() -> None:
    constant = noise(60, 7)
    traces = [
        Trace("Alice", "room 1", constant + SHARED + b"\x01" * 20),
        Trace("Alice", "room 2", constant + SHARED + b"\x02" * 20),
        Trace("Bob", "room 1", constant + noise(40, 8)),
    ]
    assert [link.places for link in links(traces)] == [("room 1", "room 2")]


def test_one_place_alone_links_nothing() -> None:
    traces = [Trace("Alice", "room 1", SHARED + noise(9, seed) + SHARED) for seed in range(3)]
    assert links(traces) == []


def test_each_pair_of_places_is_named_once() -> None:
    traces = [Trace("Alice", f"room {number}", SHARED * 2 + noise(50, number)) for number in range(3)]
    assert [link.places for link in links(traces)] == [("room 0", "room 1"), ("room 0", "room 2")]


def test_fresh_random_values_link_nothing() -> None:
    traces = [
        Trace(person, f"room {room}", secrets.token_bytes(2000))
        for person in ("Alice", "Bob")
        for room in range(4)
    ]
    assert links(traces) == []
