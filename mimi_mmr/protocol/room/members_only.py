"""The members-only state, which only members can read: a room's name, its topic, its join links.

It is sealed under a room secret in the Tree Wrap root and travels with a commit. The hub stores the sealed bytes of
each epoch, like the policy. Every sealing draws a new room secret, so an earlier state does not open under the
current secret, and members notice a hub that serves one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

from mimi_mmr.crypto.aead import InvalidTag, OneTimeKey, open_once, seal_once
from mimi_mmr.crypto.sealing import pad, unpad
from mimi_mmr.crypto.secret import Secret
from mimi_mmr.crypto.signing import expand_with_label
from mimi_mmr.errors import ParseError, SealedBoxRejected, StateRejected
from mimi_mmr.presentation import U8, U64, Nested, Opaque, Struct, Text, Vector
from mimi_mmr.protocol.room.join_links import LiveLink
from mimi_mmr.protocol.room.link_orders import MAX_LINKS
from mimi_mmr.protocol.room.requests import MAX_SEALED_STATE
from mimi_mmr.uris import ROOM, MimiUri

VERSION = 1
PADDING = 256
STATE_SECRET = "state"  # noqa: S105  # the name of a room secret in the Tree Wrap root, not a password


class StateSecret(Secret):
    """The room secret that seals one members-only state, once."""


@dataclass(frozen=True, slots=True)
class MembersOnlyState(Struct):
    """The state in plaintext. Any member may change it; no right depends on it."""

    LIMIT: ClassVar[int] = MAX_SEALED_STATE
    version: Annotated[int, U8] = VERSION
    name: Annotated[str, Text(256)] = ""
    topic: Annotated[str, Text(1024)] = ""
    links: Annotated[tuple[LiveLink, ...], Vector(Nested(LiveLink), count=MAX_LINKS)] = field(
        default=(), repr=False
    )

    def with_link(self, live: LiveLink, now: float) -> MembersOnlyState:
        """Return the state with one more join link and without expired links."""
        links = (one for one in self.links if one.expiry > now)
        return replace(self, links=(*links, live))


@dataclass(frozen=True, slots=True)
class SealedState(Struct):
    """The state as the hub stores it: the epoch it was sealed for, and the ciphertext with its tag."""

    LIMIT: ClassVar[int] = MAX_SEALED_STATE
    epoch: Annotated[int, U64]
    ciphertext: Annotated[bytes, Opaque(MAX_SEALED_STATE)]


@dataclass(frozen=True, slots=True)
class SealedStateAAD(Struct):
    """The associated data of the ciphertext."""

    room: Annotated[MimiUri, ROOM]
    epoch: Annotated[int, U64]


def seal_state(state: MembersOnlyState, secret: StateSecret, room: MimiUri, epoch: int) -> bytes:
    """Seal a state for the epoch that begins with the commit; AES-256-GCM, padded to a multiple of 256 bytes."""
    # The secret seals once: it is drawn for this state, and two members who commit at once draw two secrets.
    aad = SealedStateAAD(room, epoch).to_bytes()
    ciphertext = seal_once(_sealing_key(secret), pad(state.to_bytes(), PADDING), aad)
    return SealedState(epoch, ciphertext).to_bytes()


def open_state(sealed: bytes, secret: StateSecret, room: MimiUri) -> MembersOnlyState:
    """Open what `seal_state` made; raise `StateRejected`."""
    try:
        box = SealedState.from_bytes(sealed)
        aad = SealedStateAAD(room, box.epoch).to_bytes()
        padded = open_once(_sealing_key(secret), box.ciphertext, aad)
        state = MembersOnlyState.from_bytes(unpad(padded))
    except InvalidTag:
        raise StateRejected("the members-only state does not open under the room's secret") from None
    except (ParseError, SealedBoxRejected) as error:
        raise StateRejected(f"the members-only state is malformed: {error}") from None
    if state.version != VERSION:
        raise StateRejected(f"expected a members-only state of version {VERSION}, got {state.version}")
    return state


def _sealing_key(secret: StateSecret) -> OneTimeKey:
    return OneTimeKey(expand_with_label(secret, "members-only state", b""))
