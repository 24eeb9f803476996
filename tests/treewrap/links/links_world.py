"""A room whose members sign and check links."""

from __future__ import annotations

import hmac
from dataclasses import replace

from hypothesis import HealthCheck, settings

from tests.treewrap.treewrap_world import GROUP, World
from treewrap import Blank, Change, EpochSecret, Link, LinkKey, Set

CI = settings(max_examples=40, suppress_health_check=list(HealthCheck))
NOW = 1_000_000
WEEK = 7 * 24 * 3600


def sign(leaf: int, content: bytes) -> bytes:
    """Stand in for the signature key of an MLS leaf."""
    return hmac.digest(b"leaf %d" % leaf, content, "sha256")


def verify(leaf: int, content: bytes, signature: bytes) -> bool:
    return hmac.compare_digest(sign(leaf, content), signature)


def make_link(key: LinkKey, number: int = 1, *, creator: int = 0, days: int = 1, uses: int = 3) -> Link:
    unsigned = Link(bytes([number]) * 16, key.kem, key.public_key, creator, NOW + days * 86400, uses)
    return replace(unsigned, signature=sign(creator, unsigned.content(GROUP)))


def commit(world: World, *changes: Change, now: int | None = NOW) -> EpochSecret:
    """Run one epoch of the room's own."""
    secret = EpochSecret.generate()
    staged = world.committer.stage(changes, epoch=world.epoch, epoch_secret=secret, verify=verify, now=now)
    world.hub.stage(staged.update.to_bytes(), epoch=world.epoch).commit()
    world.follower.follow(staged.member_update.to_bytes(), secret, verify=verify, now=now).commit()
    staged.commit()
    world.epoch_secrets.append(secret)
    for change in changes:
        if isinstance(change, Set):
            world.model[change.leaf] = change.secret
        elif isinstance(change, Blank):
            world.model.pop(change.leaf, None)
    assert world.committer.tree_hash == world.follower.tree_hash == world.hub.tree_hash
    return secret
