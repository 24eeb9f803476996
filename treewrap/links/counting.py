"""A hub's account of join links: when each ends, how often it may still be used, and the seals to withhold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from treewrap.codec import Reader, vector
from treewrap.errors import LinkError
from treewrap.links.records import LINK_ID_SIZE, LINKS_LIMIT, LiveLink


@dataclass(frozen=True, slots=True)
class LinkLimit:
    """What a committer tells the hub of a live link: its id, its expiry in seconds since 1970, the uses left."""

    id: bytes
    expires: int
    uses: int

    @classmethod
    def of(cls, live: LiveLink) -> Self:
        """Make it from a link as members know it."""
        return cls(live.link.id, live.link.expires, max(0, live.link.max_uses - live.used))

    def to_bytes(self) -> bytes:
        """Encode it: 28 bytes."""
        return self.id + self.expires.to_bytes(8, "big") + self.uses.to_bytes(4, "big")

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read one. Raises ParseError."""
        link_id = reader.take(LINK_ID_SIZE, "link id")
        return cls(link_id, reader.u64("link's expiry"), reader.u32("link's uses"))


class LinkCounter:
    """Counts the uses of a room's links for its hub. Store `to_bytes()` in one transaction with what it changes.

    It holds nothing secret. Serve a tree, or a `LinkSnapshot`, with a link's seal only after `admit`; blank the
    seals of `over` with `PublicTree.stage_without_seals`.
    """

    __slots__ = ("_limits",)

    def __init__(self, limits: Iterable[LinkLimit] = ()) -> None:
        """Start with these links. Raises LinkError for more than 32, or one id twice."""
        given = list(limits)
        self._limits = {limit.id: limit for limit in given}
        if len(given) > LINKS_LIMIT or len(given) != len(self._limits):
            raise LinkError(f"links: expected at most {LINKS_LIMIT} of different ids, got {len(given)}")

    def renew(self, limits: Iterable[LinkLimit]) -> None:
        """Take the live links after an accepted update.

        Nobody extends a link: of a known one the earlier expiry and the smaller number of uses stay.

        Raises LinkError.
        """
        after = LinkCounter(limits)._limits
        for link_id, new in after.items():
            if known := self._limits.get(link_id):
                earlier = min(known.expires, new.expires), min(known.uses, new.uses)
                after[link_id] = LinkLimit(link_id, *earlier)
        self._limits = after

    def admit(self, link_id: bytes, now: int) -> None:
        """Count a use of a link; `now` is in seconds since 1970.

        Raises LinkError, with the same words for a link that is unknown, expired or used up.
        """
        limit = self._limits.get(link_id)
        if limit is None or self._is_over(limit, now):
            raise LinkError(f"link {link_id.hex()}: not live, or used up")
        self._limits[link_id] = replace(limit, uses=limit.uses - 1)

    def over(self, now: int) -> tuple[bytes, ...]:
        """List the links that have expired or are used up, by id."""
        return tuple(sorted(limit.id for limit in self._limits.values() if self._is_over(limit, now)))

    def to_bytes(self) -> bytes:
        """Encode it, by link id."""
        return vector(b"".join(self._limits[link_id].to_bytes() for link_id in sorted(self._limits)))

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Read what `to_bytes` returned. Raises ParseError, LinkError."""
        reader = Reader(content)
        items = reader.items("link limits", LINKS_LIMIT * (LINK_ID_SIZE + 12))
        limits = []
        while items.more():
            limits.append(LinkLimit.read(items))
        reader.end("link limits")
        return cls(limits)

    @staticmethod
    def _is_over(limit: LinkLimit, now: int) -> bool:
        return limit.uses < 1 or limit.expires <= now
