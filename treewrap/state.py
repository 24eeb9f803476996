"""A member's tree at rest: its buffers as they are in memory, sealed under the caller's key."""

from __future__ import annotations

import struct
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from treewrap.codec import VECTOR_MAX, Reader, vector
from treewrap.errors import StateError
from treewrap.labels import STATE
from treewrap.nodes import EPOCH_SIZE, PAGE_NODES, Forest, Level
from treewrap.root import EXTRA_LIMIT, RootExtra, RootHeader
from treewrap.secret import Rng, RootKey
from treewrap.suite import GROUP_ID_LIMIT, HASH_SIZE, KEY_SIZE, GroupContext

_NONCE_SIZE = 12
_PAGE = struct.Struct(">I")


class State(NamedTuple):
    """All that a member's tree holds. A light tree's has no nodes."""

    context: GroupContext
    header: RootHeader
    root_key: RootKey | None
    extra: RootExtra
    forest: Forest
    tree_hash: bytes


def seal_state(state: State, kind: bytes, key: bytes, rng: Rng) -> bytes:
    """Encode a tree, of `kind` "full" or "light", and seal it with AES-256-GCM.

    The result begins with a random nonce of 12 bytes. Use one key for at most 2^32 states. Raises ValueError unless
    the key has 32 bytes.
    """
    _check_key(key)
    nonce = rng(_NONCE_SIZE)
    return nonce + AESGCM(key).encrypt(nonce, encode_state(state), STATE + kind)


def open_state(sealed: bytes, kind: bytes, key: bytes) -> State:
    """Open what `seal_state` returned. Raises StateError for another key or damaged bytes, ParseError."""
    _check_key(key)
    try:
        content = AESGCM(key).decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], STATE + kind)
    except (InvalidTag, ValueError):
        raise StateError("state: does not open under this key, or is damaged") from None
    return decode_state(content)


def _check_key(key: bytes) -> None:
    if len(key) != KEY_SIZE:
        raise ValueError(f"key: expected {KEY_SIZE} bytes, got {len(key)}")


def encode_state(state: State) -> bytes:
    """Encode a tree in the clear, with all its secrets."""
    root_key = state.root_key.reveal() if state.root_key else bytes(KEY_SIZE)
    parts = [state.context.group, state.header.to_bytes(), root_key, state.tree_hash]
    parts.append(vector(state.extra.to_bytes()))
    for level in state.forest.levels:
        parts.append(_PAGE.pack(len(level.pages)))
        for number, page in level.pages.items():
            parts += [_PAGE.pack(number), bytes(page.bitmaps), bytes(page.epochs)]
            parts += [vector(bytes(page.packed)), vector(bytes(page.hashes))]
    return b"".join(parts)


def decode_state(content: bytes) -> State:
    """Read what `encode_state` returned. It must be authentic: not everything is checked. Raises ParseError."""
    reader = Reader(content)
    group_id = reader.vector("group id", GROUP_ID_LIMIT)
    header = RootHeader.read(reader)
    root_key = RootKey(reader.take(KEY_SIZE, "root key"))
    tree_hash = reader.take(HASH_SIZE, "tree hash")
    extra = RootExtra.from_bytes(reader.vector("root", EXTRA_LIMIT))
    size = header.suite.bitmap_size
    forest = Forest(size, sealed=False)
    forest.grow(header.height)
    for level in forest.levels:
        for _ in range(reader.u32("pages")):
            _read_page(reader, level, size)
    reader.end("state")
    context = GroupContext(header.suite, group_id)
    return State(context, header, root_key if header.height else None, extra, forest, tree_hash)


def _read_page(reader: Reader, level: Level, bitmap_size: int) -> None:
    page = level.add_page(reader.u32("page"))
    page.bitmaps = bytearray(reader.take(PAGE_NODES * bitmap_size, "bitmaps"))
    page.epochs = bytearray(reader.take(PAGE_NODES * EPOCH_SIZE, "epochs"))
    page.packed = bytearray(reader.vector("slots", VECTOR_MAX))
    page.hashes = bytearray(reader.vector("hashes", VECTOR_MAX))
