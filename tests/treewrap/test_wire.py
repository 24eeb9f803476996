"""Every structure on the wire: there and back, and never anything but a ParseError for other bytes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.treewrap.fuzz_treewrap import PARSERS, try_one
from tests.treewrap.treewrap_world import HISTORIES, SUITES, Step, run
from treewrap import (
    AddLink,
    ChangeKind,
    DeferredLeaf,
    ExpireLink,
    Kem,
    LeafChange,
    Link,
    LinkSeal,
    LiveLink,
    MemberUpdate,
    NodeRef,
    ParseError,
    PublicTree,
    RevokeLink,
    RoomSecret,
    Suite,
    TreeUpdate,
    UseLink,
)
from treewrap.codec import Reader, varint
from treewrap.links.records import (
    link_change_to_bytes,
    link_changes_from_bytes,
    link_changes_to_bytes,
    read_link_change,
)
from treewrap.root import RootExtra, RootHeader
from treewrap.wire import SealedNode, WrappedLeaf

QUICK = settings(max_examples=40, suppress_health_check=list(HealthCheck))


def sized(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


LEAF = st.integers(0, (1 << 24) - 1)
REF = st.builds(NodeRef, st.integers(1, 24), LEAF)
REFS = st.sets(REF, max_size=4).map(lambda refs: tuple(sorted(refs)))
HEADER = st.builds(
    RootHeader,
    SUITES,
    st.integers(1, 4),
    st.integers(0, 2**64 - 1),
    sized(16),
    st.integers(0, 65535),
)
LINK = st.builds(
    Link,
    sized(16),
    st.sampled_from(Kem),
    st.binary(max_size=1216),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=128),
)
LINK_CHANGE = st.one_of(
    st.builds(AddLink, LINK),
    st.builds(RevokeLink, sized(16), st.integers(0, 2**32 - 1), st.binary(max_size=128)),
    st.builds(ExpireLink, sized(16)),
    st.builds(UseLink, sized(16)),
)
LINK_CHANGES = st.lists(LINK_CHANGE, max_size=3).map(tuple)
SEAL = st.builds(LinkSeal, sized(16), st.binary(max_size=1264))
SEALS = st.lists(SEAL, max_size=3, unique_by=lambda seal: seal.link_id).map(
    lambda seals: tuple(sorted(seals, key=lambda seal: seal.link_id))
)
KINDS = st.dictionaries(LEAF, st.sampled_from(ChangeKind), max_size=4)
SEALED = st.dictionaries(REF, st.binary(max_size=200), max_size=3).map(
    lambda nodes: tuple(SealedNode(*ref, nodes[ref]) for ref in sorted(nodes))
)
TREE_UPDATE = st.builds(
    TreeUpdate,
    HEADER,
    sized(32),
    sized(32),
    KINDS.map(lambda kinds: tuple(LeafChange(leaf, kinds[leaf]) for leaf in sorted(kinds))),
    REFS,
    SEALED,
    REFS,
    SEALS,
)
WRAPPED = KINDS.map(
    lambda kinds: tuple(
        WrappedLeaf(leaf, kinds[leaf], bytes(48) if kinds[leaf] is ChangeKind.SET else b"")
        for leaf in sorted(kinds)
    )
)
MEMBER_UPDATE = st.builds(
    MemberUpdate,
    HEADER,
    WRAPPED,
    st.lists(st.binary(max_size=113), max_size=3).map(tuple),
    REFS,
    st.booleans(),
    st.binary(max_size=300),
    sized(32),
    sized(32),
)
EXTRA = st.builds(
    RootExtra,
    st.dictionaries(st.text(min_size=1, max_size=12), sized(32).map(RoomSecret), max_size=4).map(
        lambda rooms: dict(sorted(rooms.items(), key=lambda item: item[0].encode()))
    ),
    st.lists(
        st.builds(LiveLink, LINK, st.integers(0, 9)), max_size=3, unique_by=lambda live: live.link.id
    ).map(lambda links: tuple(sorted(links, key=lambda live: live.link.id))),
)
DEFERRED = st.builds(DeferredLeaf, LEAF, st.integers(0, 2**64 - 1), sized(16), sized(48))


def whole(read: Callable[[Reader], Any]) -> Callable[[bytes], Any]:
    def parse(content: bytes) -> Any:
        reader = Reader(content)
        found = read(reader)
        reader.end("it")
        return found

    return parse


STRUCTS = [
    pytest.param(TREE_UPDATE, TreeUpdate.to_bytes, TreeUpdate.from_bytes, id="TreeUpdate"),
    pytest.param(MEMBER_UPDATE, MemberUpdate.to_bytes, MemberUpdate.from_bytes, id="MemberUpdate"),
    pytest.param(DEFERRED, DeferredLeaf.to_bytes, DeferredLeaf.from_bytes, id="DeferredLeaf"),
    pytest.param(HEADER, RootHeader.to_bytes, whole(RootHeader.read), id="RootHeader"),
    pytest.param(EXTRA, RootExtra.to_bytes, RootExtra.from_bytes, id="RootExtra"),
    pytest.param(LINK_CHANGE, link_change_to_bytes, whole(read_link_change), id="LinkChange"),
    pytest.param(LINK_CHANGES, link_changes_to_bytes, link_changes_from_bytes, id="LinkChanges"),
    pytest.param(SEAL, LinkSeal.to_bytes, whole(LinkSeal.read), id="LinkSeal"),
]


@pytest.mark.parametrize(("strategy", "encode", "parse"), STRUCTS)
@QUICK
@given(data=st.data())
def test_it_comes_back_as_it_was_and_rejects_every_truncation(
    strategy: Any, encode: Callable[[Any], bytes], parse: Callable[[bytes], Any], data: st.DataObject
) -> None:
    thing = data.draw(strategy)
    content = encode(thing)
    assert parse(content) == thing
    for size in range(len(content)):
        with pytest.raises(ParseError):
            parse(content[:size])
    with pytest.raises(ParseError):
        parse(content + b"\0")


def seeds() -> dict[str, list[bytes]]:
    """Find good encodings to start from in the published vectors."""
    file = Path(__file__).parent.parent / "vectors" / "treewrap.json"
    found: dict[str, list[bytes]] = {name: [b""] for name in PARSERS}

    def collect(value: Any) -> None:
        for key, item in value.items() if isinstance(value, dict) else ():
            if key in found and isinstance(item, str):
                found[key].append(bytes.fromhex(item))
            collect(item)
        for item in value if isinstance(value, list) else ():
            collect(item)

    collect(json.loads(file.read_text()))
    return found


SEEDS = seeds()


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=150)
@given(data=st.data())
def test_arbitrary_bytes_raise_nothing_but_a_parse_error(name: str, data: st.DataObject) -> None:
    start = data.draw(st.sampled_from(SEEDS[name]))
    content = bytearray(start[: data.draw(st.integers(0, len(start)))] + data.draw(st.binary(max_size=60)))
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=3)) if content else ():
        content[at] = data.draw(st.integers(0, 255))
    try_one(name, bytes(content))


@pytest.mark.parametrize(("strategy", "encode", "parse"), STRUCTS)
@QUICK
@given(data=st.data())
def test_a_damaged_one_is_another_one_or_a_parse_error(
    strategy: Any, encode: Callable[[Any], bytes], parse: Callable[[bytes], Any], data: st.DataObject
) -> None:
    content = bytearray(encode(data.draw(strategy)))
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ParseError):
        assert encode(parse(bytes(content))) == content  # one encoding each: nothing is malleable


@QUICK
@given(SUITES, HISTORIES)
def test_a_whole_public_tree_comes_back_and_rejects_every_truncation(
    suite: Suite, history: list[Step]
) -> None:
    content = run(suite, history[:2]).hub.to_bytes()
    assert PublicTree.from_bytes(content).to_bytes() == content
    for size in range(0, len(content), 1 + len(content) // 200):
        with pytest.raises(ParseError):
            PublicTree.from_bytes(content[:size])
    with pytest.raises(ParseError):
        PublicTree.from_bytes(content + b"\0")


@pytest.mark.parametrize("number", [0, 63, 64, 16383, 16384, (1 << 30) - 1])
def test_a_length_has_one_encoding(number: int) -> None:
    encoded = varint(number)
    assert Reader(encoded)._varint("length") == number
    for longer in (b"\x40" + encoded, b"\x80\0" + encoded[1:].rjust(2, b"\0")) if number < 64 else ():
        with pytest.raises(ParseError):
            Reader(longer)._varint("length")
    with pytest.raises(ValueError, match="less than"):
        varint(1 << 30)


def test_a_parse_error_says_what_and_where() -> None:
    with pytest.raises(ParseError, match=r"suite: 9 is not known, at byte 2") as caught:
        TreeUpdate.from_bytes(b"\0\x09" + bytes(200))
    assert caught.value.offset == 2
