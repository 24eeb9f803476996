"""A member as another member sees it."""

from __future__ import annotations

import enum
from typing import NamedTuple

from mimi_mmr.protocol.credentials import ResolvedMember
from mimi_mmr.protocol.room.policy import Role
from mimi_mmr.uris import MimiUri


class Standing(enum.Enum):
    """What a member knows of the user behind a pseudonym."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"
    HIDDEN = "hidden"


class Whois(NamedTuple):
    """A member as another member sees it. `why` says what failed for one that is unverified."""

    leaf: int
    user: MimiUri
    client: MimiUri
    role: Role
    standing: Standing
    member: ResolvedMember | None = None
    why: str = ""
