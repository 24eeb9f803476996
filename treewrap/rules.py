"""What a change does to the root's own: removals renew room secrets and end links."""

from __future__ import annotations

from collections.abc import Mapping

from treewrap.changes import ROOM_SECRETS_LIMIT, ChangeSet, sort_rooms
from treewrap.errors import ChangeError
from treewrap.geometry import Plan
from treewrap.links.records import AddLink, ExpireLink, apply_link_changes
from treewrap.root import EXTRA_LIMIT, RootExtra
from treewrap.secret import LeafSecret, Rng, RoomSecret


def is_removal(leaves: Mapping[int, LeafSecret | None], plan: Plan, bits: int) -> bool:
    """Tell whether anyone may have left: a leaf is blanked, or an occupied one set anew."""
    parents, mask = plan.touched[0], (1 << bits) - 1
    return any(
        secret is None or parents[leaf >> bits][0] >> (leaf & mask) & 1 for leaf, secret in leaves.items()
    )


def renew_rooms(changes: ChangeSet, extra: RootExtra, rng: Rng) -> ChangeSet:
    """Add a fresh value for every room secret that a removal would otherwise end."""
    if not extra.rooms:
        return changes
    missing = [name for name in extra.rooms if name not in changes.rooms]
    rooms = changes.rooms | {name: RoomSecret.generate(rng) for name in missing}
    return changes._replace(rooms=sort_rooms(rooms))


def expire_links(changes: ChangeSet, extra: RootExtra, now: int | None) -> ChangeSet:
    """Add the end of every link whose time is over."""
    named = {change.link_id for change in changes.links if not isinstance(change, AddLink)}
    over = [
        ExpireLink(live.link.id)
        for live in extra.links
        if now is not None and live.link.expires <= now and live.link.id not in named
    ]
    return changes._replace(links=(*over, *changes.links)) if over else changes


def next_extra(extra: RootExtra, changes: ChangeSet, *, removal: bool) -> RootExtra:
    """Give the root's room secrets and links after a change. Raises ChangeError, LinkError.

    Whoever was removed knows the old room secrets: those that the same commit does not set anew are gone.
    """
    if not (extra.rooms or extra.links or changes.rooms or changes.links):
        return extra
    kept = {} if removal else extra.rooms
    rooms = sort_rooms(kept | changes.rooms)
    after = RootExtra(rooms, apply_link_changes(extra.links, changes.links, removal=removal))
    if len(rooms) > ROOM_SECRETS_LIMIT or len(after.to_bytes()) > EXTRA_LIMIT:
        raise ChangeError(
            f"room secrets: at most {ROOM_SECRETS_LIMIT}, and {EXTRA_LIMIT} bytes with all links"
        )
    return after
