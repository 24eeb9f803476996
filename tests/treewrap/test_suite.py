"""Keys and hashes, against the formulas of docs/specs/treewrap.md written down a second time."""

from __future__ import annotations

import hashlib
import hmac
import struct

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st

from treewrap import DEFAULT_ARITY, EpochSecret, LeafSecret, Set, Suite, WrapTree
from treewrap.suite import GroupContext, Hmac, UpdateKeys, pack_place

SECRET, SALT = bytes(range(32)), bytes(range(16))
GROUPS = [b"g", b"g" * 42, b"g" * 43, b"g" * 63, b"g" * 64, b"g" * 255]


def vector(content: bytes) -> bytes:
    size = len(content)
    return (bytes([size]) if size < 64 else struct.pack(">H", size | 0x4000)) + content


def expand(label: bytes, context: bytes) -> bytes:
    info = struct.pack(">H", 32) + vector(b"TreeWrap 1.0 " + label) + vector(context)
    return HKDFExpand(SHA256(), 32, info).derive(SECRET)


@pytest.mark.parametrize("group_id", GROUPS, ids=len)
def test_every_key_is_an_expansion_of_the_epoch_secret(group_id: bytes) -> None:
    keys = UpdateKeys(GroupContext(Suite(16), group_id), EpochSecret(SECRET), SALT)
    context = vector(group_id) + SALT
    assert keys.node(pack_place(3, 70_000)) == expand(b"node", context + struct.pack(">BI", 3, 70_000))
    for label in (b"leaf", b"room", b"links", b"deferred"):
        assert keys.wrap(label, 9) == expand(label, context + struct.pack(">I", 9))
    tag = hmac.digest(expand(b"confirm", context), b"content", "sha256")
    assert keys.confirm(b"content") == tag


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=200))
def test_the_salt_depends_on_all_that_the_update_depends_on(fresh: bytes, changes: bytes) -> None:
    context = GroupContext(Suite(16), b"g")
    drawn = UpdateKeys.draw(context, EpochSecret(SECRET), fresh, bytes(32), changes)
    assert drawn.salt == hmac.digest(SECRET, b"salt" + fresh + bytes(32) + changes, "sha256")[:16]


@given(st.binary(max_size=64), st.lists(st.binary(max_size=200), max_size=3))
def test_hmac_is_the_standard_librarys(key: bytes, messages: list[bytes]) -> None:
    own = Hmac(key)
    for message in messages:
        assert own.digest(message) == hmac.digest(key, message, "sha256")
    with pytest.raises(ValueError, match="at most 64 bytes, got 65"):
        Hmac(key.ljust(65, b"1"))


@pytest.mark.parametrize(
    "suite", [Suite(arity) for arity in (2, 4, 8, 16, 32, 64)], ids=lambda suite: f"k={suite.arity}"
)
def test_a_suite_has_a_number_and_a_logarithm(suite: Suite) -> None:
    assert 1 << suite.bits == suite.arity
    assert Suite.from_id(suite.id) == suite
    assert suite.bitmap_size * 8 >= suite.arity


def test_a_tree_is_of_the_default_arity_unless_told_otherwise() -> None:
    assert Suite().arity == DEFAULT_ARITY == 32


def test_a_source_that_repeats_itself_repeats_no_salt() -> None:
    tree = WrapTree.create(Suite(16), b"g")
    changes = [
        [Set(0, LeafSecret(bytes(32)))],
        [Set(0, LeafSecret(b"1" * 32))],
        [Set(1, LeafSecret(bytes(32)))],
        [],
    ]
    salts = {
        tree.stage(change, epoch=epoch, epoch_secret=EpochSecret(SECRET), rng=bytes).update.header.salt
        for change in changes
        for epoch in (0, 1)
    }
    assert len(salts) == 8


def test_a_tree_of_two_levels_has_the_hash_that_the_page_says() -> None:
    tree = WrapTree.create(Suite(2), b"g")
    changes = [Set(leaf, LeafSecret(bytes(32))) for leaf in (0, 2)]
    staged = tree.stage(changes, epoch=7, epoch_secret=EpochSecret(SECRET))
    left, right, root = staged.update.nodes

    def own(level: int, index: int, bitmap: int, ciphertext: bytes) -> bytes:
        head = struct.pack(">BIQB", level, index, 7, bitmap)
        return hashlib.sha256(b"TreeWrap 1.0 node" + head + ciphertext).digest()

    below = own(1, 0, 1, left.ciphertext) + own(1, 1, 1, right.ciphertext)
    root_hash = hashlib.sha256(b"TreeWrap 1.0 children" + own(2, 0, 3, root.ciphertext) + below).digest()
    header = struct.pack(">HBQ16sH", 1, 2, 7, staged.update.header.salt, 2)
    assert staged.tree_hash == hashlib.sha256(b"TreeWrap 1.0 tree\x01g" + header + root_hash).digest()
