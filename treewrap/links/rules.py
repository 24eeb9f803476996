"""Which changes of join links are allowed, and which links live afterwards."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

from treewrap.errors import LinkError
from treewrap.links.records import (
    LINKS_LIMIT,
    AddLink,
    ExpireLink,
    Link,
    LinkChange,
    LiveLink,
    RevokeLink,
    UseLink,
)
from treewrap.links.seals import check_public_key

LINK_LIFETIME = 7 * 24 * 3600
"""A link expires at most this many seconds after it is added."""
Verifier = Callable[[int, bytes, bytes], bool]
"""Takes leaf, content, signature. Returns True if the signature is by that MLS leaf's signature key."""


def check_link_change(
    change: LinkChange,
    *,
    group_id: bytes,
    leaving: Container[int],
    verify: Verifier | None,
    now: int | None,
) -> None:
    """Check all of a change that needs no other links: signature, expiry, key, and that its creator stays.

    Without `verify`, no link can be added or revoked. Without `now`, expiry is not checked. Raises LinkError.
    """
    match change:
        case AddLink(link):
            _check_signature(verify, link.creator, link.content(group_id), link.signature)
            _check_expiry(link, now)
            check_public_key(link)
            if link.creator in leaving:
                raise LinkError(f"link {link.id.hex()}: its creator leaves with this commit")
        case RevokeLink(_, revoker, signature):
            _check_signature(verify, revoker, change.content(group_id), signature)


def apply_link_changes(
    live: Iterable[LiveLink], changes: Iterable[LinkChange], *, removal: bool
) -> tuple[LiveLink, ...]:
    """Return the links that live after some changes, by id. A removal ends all earlier ones. Raises LinkError."""
    links = {} if removal else {link.link.id: link for link in live}
    for change in changes:
        if isinstance(change, AddLink):
            if change.link.id in links:
                raise LinkError(f"link {change.link.id.hex()}: there is one of that id")
            links[change.link.id] = LiveLink(change.link)
        else:
            found = links.pop(change.link_id, None)
            if found is None:
                raise LinkError(f"link {change.link_id.hex()}: not live")
            if isinstance(change, UseLink) and found.used + 1 < found.link.max_uses:
                links[change.link_id] = LiveLink(found.link, found.used + 1)
    if len(links) > LINKS_LIMIT:
        raise LinkError(f"links: expected at most {LINKS_LIMIT}, got {len(links)}")
    return tuple(links[link_id] for link_id in sorted(links))


def expired_links(
    live: Iterable[LiveLink], changes: Iterable[LinkChange], now: int | None
) -> tuple[ExpireLink, ...]:
    """Return the end of every link that has expired and that no change names already; none without `now`."""
    if now is None:
        return ()
    named = {change.link_id for change in changes if not isinstance(change, AddLink)}
    return tuple(
        ExpireLink(found.link.id)
        for found in live
        if found.link.expires <= now and found.link.id not in named
    )


def _check_expiry(link: Link, now: int | None) -> None:
    if now is not None and not now < link.expires <= now + LINK_LIFETIME:
        raise LinkError(f"link {link.id.hex()}: expires at {link.expires}, now is {now}")


def _check_signature(verify: Verifier | None, leaf: int, content: bytes, signature: bytes) -> None:
    if verify is None or not verify(leaf, content, signature):
        raise LinkError(f"link: no valid signature by leaf {leaf}")
