"""Strategies for every wire struct, derived from the codecs that it declares."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import mimi_mmr
from mimi_mmr.crypto.sealing import Kem, SealingPublicKey
from mimi_mmr.mls.ratchet.node import LeafIndices, ParentNode
from mimi_mmr.mls.wire.limits import CodePoints
from mimi_mmr.presentation import (
    Boolean,
    Code,
    Codec,
    Fixed,
    Maybe,
    Nested,
    Opaque,
    Struct,
    Text,
    Uint,
    Vector,
    layout,
)
from mimi_mmr.protocol.queues import QueueAddress
from mimi_mmr.protocol.room.policy import VERSION, Identities, Role, RoleAssignment, RoomPolicy
from mimi_mmr.protocol.room.requests import UpdateCode, UpdateRoomResponse
from mimi_mmr.uris import Kind, MimiUri, UriCodec

FEW = settings(max_examples=12, suppress_health_check=list(HealthCheck))
SOME = settings(max_examples=25, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=200, suppress_health_check=list(HealthCheck))

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True).filter(
    lambda label: label[2:4] != "--"
)
TOP_LABELS = LABELS.filter(lambda label: label[0].isalpha())
DOMAINS = st.tuples(st.lists(LABELS, min_size=1, max_size=3), TOP_LABELS).map(
    lambda parts: ".".join([*parts[0], parts[1]])
)
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9._~-]{0,20}[a-z0-9])?", fullmatch=True)
KEYS = st.sampled_from([(Kem.X25519, 32)] * 3 + [(Kem.X_WING, 1216)])


def every_struct() -> list[type[Struct]]:
    """All wire structs of the package, whatever module they are in."""
    for module in pkgutil.walk_packages(mimi_mmr.__path__, "mimi_mmr."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    # A slotted dataclass is a second class of its name; the one that its module has is the one in use.
    found = {
        kind for kind in _below(Struct) if getattr(sys.modules[kind.__module__], kind.__name__, None) is kind
    }
    found = {kind for kind in found if kind.__module__.startswith("mimi_mmr.")}
    return sorted(found, key=lambda kind: (kind.__module__, kind.__name__))


def _below(kind: type[Struct]) -> Iterator[type[Struct]]:
    for sub in kind.__subclasses__():
        yield sub
        yield from _below(sub)


def uris(kind: Kind | None = None) -> st.SearchStrategy[MimiUri]:
    kinds = st.sampled_from(Kind) if kind is None else st.just(kind)
    return kinds.flatmap(
        lambda found: st.builds(
            MimiUri,
            DOMAINS,
            st.just(found),
            NAMES,
            st.just("") | NAMES if found is Kind.DEVICE else st.just(""),
        )
    )


@cache
def values(kind: type[Struct]) -> st.SearchStrategy[Any]:
    """Structs of this kind, of any content that it allows."""
    if kind is SealingPublicKey:
        return KEYS.flatmap(lambda key: st.builds(SealingPublicKey, st.just(key[0]), _bytes(key[1], key[1])))
    if kind is UpdateRoomResponse:
        return st.builds(
            _response, st.sampled_from(UpdateCode), st.text(max_size=20), st.integers(0, 2**64 - 1)
        )
    made_of = {name: _values(codec) for name, codec in layout(kind)}
    if kind is QueueAddress:
        made_of["domain"] = DOMAINS
    if kind is ParentNode:
        made_of["parent_hash"] = st.sampled_from([b"", bytes(32), bytes(range(32))])
    if kind is RoleAssignment:
        made_of["role"] = st.sampled_from([role for role in Role if role is not Role.NEVER])
    if kind is RoomPolicy:
        made_of["version"] = st.just(VERSION)
        made_of["identities"] = st.sampled_from(Identities)
        entries = st.lists(values(RoleAssignment), max_size=3, unique_by=lambda entry: entry.user_pseudonym)
        made_of["roles"] = entries.map(tuple)
    return st.builds(kind, **made_of)


def _response(code: UpdateCode, text: str, number: int) -> UpdateRoomResponse:
    answered = code in (UpdateCode.SUCCESS, UpdateCode.WRONG_EPOCH)
    return UpdateRoomResponse(code, text, text[:5], number if answered else 0)


def _bytes(least: int, most: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=least, max_size=min(most, least + 70))


def _values(codec: Codec) -> st.SearchStrategy[Any]:
    match codec:
        case Uint(width):
            return st.one_of(st.integers(0, 256**width - 1), st.just(256**width - 1))
        case Fixed(size):
            return _bytes(size, size)
        case Opaque(limit, least):
            return _bytes(least, limit)
        case Text(limit):
            return st.text(max_size=20).filter(lambda text: len(text.encode()) <= limit)
        case Vector(item, _, count):
            return st.lists(_values(item), max_size=min(count, 2)).map(tuple)
        case Maybe(item):
            return st.none() | _values(item)
        case Code(kind, _):
            return st.sampled_from(kind)
        case Boolean():
            return st.booleans()
        case Nested(kind):
            return values(kind)
        case UriCodec(kind):
            return uris(kind)
        case CodePoints():
            return st.lists(st.integers(0, 65535), max_size=4).map(tuple)
        case LeafIndices():
            return st.lists(st.integers(0, 2**32 - 1), max_size=4, unique=True).map(sorted).map(tuple)
    raise TypeError(f"no strategy for {codec}: add one, so that the struct that uses it is tested")
