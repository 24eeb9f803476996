"""Every struct of the package travels there and back, and nothing else reads as one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimi_mmr.errors import ParseError
from mimi_mmr.presentation import Reader, Struct, layout
from mimi_mmr.protocol.room.events import TAG_SIZE, ApplicationEvent, WelcomeEvent
from tests.mimi_mmr.protocol.wire import FEW, SOME, every_struct, values

EVERY = every_struct()
# What waits in a queue since before version 0.4.0 ends earlier, and reads as if it ended with this.
OLDER_ENDS: dict[type[Struct], bytes] = {ApplicationEvent: bytes(TAG_SIZE), WelcomeEvent: b"\0"}
each_struct = pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)


def test_the_walk_finds_the_structs_of_every_layer() -> None:
    found = {kind.__name__ for kind in EVERY}
    layers = {
        "LeafIdentity",
        "UpdateRequest",
        "RoomPolicy",
        "Content",
        "SetUpload",
        "QueuePage",
        "ProviderKeys",
    }
    assert layers | {"ConnectionRequest", "ParentNode", "UpdateRoomResponse", "PeerRequest"} <= found
    assert all(layout(kind) for kind in EVERY if kind.read_from.__func__ is Struct.read_from.__func__)


@each_struct
@given(data=st.data())
@FEW
def test_a_struct_round_trips_and_leaves_what_follows(kind: type[Struct], data: st.DataObject) -> None:
    value = data.draw(values(kind))
    encoded = value.to_bytes()
    assert kind.from_bytes(encoded) == value
    reader = Reader(encoded + b"rest")
    assert kind.read_from(reader) == value
    assert reader.rest() == b"rest"


@each_struct
@given(data=st.data())
@FEW
def test_every_truncation_and_every_trailing_byte_is_refused(kind: type[Struct], data: st.DataObject) -> None:
    encoded = data.draw(values(kind)).to_bytes()
    older = 0
    for end in range(len(encoded)):
        if kind in OLDER_ENDS and _is_older(kind, encoded[:end]):
            older += 1
            continue
        with pytest.raises(ParseError) as refused:
            kind.from_bytes(encoded[:end])
        assert 0 <= refused.value.offset <= end
    assert older == (kind in OLDER_ENDS)
    with pytest.raises(ParseError):
        kind.from_bytes(encoded + b"\0")


@each_struct
@given(noise=st.binary(max_size=300))
@SOME
def test_noise_is_a_parse_error_or_the_canonical_form(kind: type[Struct], noise: bytes) -> None:
    _reads_canonically_or_not_at_all(kind, noise)


@each_struct
@given(data=st.data(), seed=st.integers(0, 2**32))
@FEW
def test_a_changed_byte_is_a_parse_error_or_the_canonical_form(
    kind: type[Struct], data: st.DataObject, seed: int
) -> None:
    rng = random.Random(seed)
    encoded = data.draw(values(kind)).to_bytes()
    for _ in range(40):
        changed = bytearray(encoded)
        for _ in range(rng.randint(1, 3)):
            # the beginning is where lengths and codes are
            changed[min(rng.randrange(len(changed)), rng.randrange(len(changed)))] = rng.randrange(256)
        _reads_canonically_or_not_at_all(kind, bytes(changed))


def _reads_canonically_or_not_at_all(kind: type[Struct], data: bytes) -> None:
    try:
        value = kind.from_bytes(data)
    except ParseError:
        return
    assert value.to_bytes() in (data, data + OLDER_ENDS.get(kind, b""))


def _is_older(kind: type[Struct], data: bytes) -> bool:
    try:
        return kind.from_bytes(data).to_bytes() == data + OLDER_ENDS[kind]
    except ParseError:
        return False


@each_struct
def test_a_struct_above_its_limit_is_refused_unread(
    kind: type[Struct], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, "LIMIT", 10)
    with pytest.raises(ParseError, match="at most 10 allowed"):
        kind.from_bytes(bytes(11))
