"""A link opens nothing after its expiry, nor more often than its uses, also when no commit comes."""

from __future__ import annotations

import pytest

from tests.treewrap.links.links_world import NOW, commit, make_link
from tests.treewrap.treewrap_world import Step, World, run
from treewrap import (
    AddLink,
    EpochSecret,
    Kem,
    LeafSecret,
    LinkCounter,
    LinkError,
    LinkKey,
    LinkLimit,
    LinkSnapshot,
    ParseError,
    PublicTree,
    Set,
    Suite,
    UseLink,
    open_link,
    open_link_light,
)

DAY = 86400
ID = b"\1" * 16


@pytest.fixture
def world() -> World:
    return run(Suite(4), [Step(dict.fromkeys(range(5), True))])


def test_a_link_opens_the_tree_no_more_often_than_its_uses(world: World) -> None:
    """Nobody who opened it has committed."""
    key = LinkKey.generate(Kem.X25519)
    commit(world, AddLink(make_link(key, uses=2)))
    counter = LinkCounter([LinkLimit.of(live) for live in world.committer.links()])
    for _ in range(2):
        counter.admit(ID, NOW)
        assert open_link(world.hub, ID, key, now=NOW).leaves() == list(range(5))
    with pytest.raises(LinkError, match="not live, or used up"):
        counter.admit(ID, NOW)
    assert counter.over(NOW) == (ID,)


def test_a_link_opens_nothing_after_its_expiry_though_no_commit_came(world: World) -> None:
    key = LinkKey.generate(Kem.X25519)
    commit(world, AddLink(make_link(key)))
    counter = LinkCounter([LinkLimit.of(live) for live in world.committer.links()])
    counter.admit(ID, NOW + DAY - 1)
    for open_it in (
        lambda: counter.admit(ID, NOW + DAY),
        lambda: open_link(world.hub, ID, key, now=NOW + DAY),
        lambda: open_link_light(
            world.hub.group_id, LinkSnapshot.of(world.hub, ID).to_bytes(), key, now=NOW + DAY
        ),
    ):
        with pytest.raises(LinkError):
            open_it()


def test_the_seals_of_links_that_are_over_leave_the_hub(world: World) -> None:
    """So a copy of its store opens nothing either; the tree is the same for members."""
    keys = {number: LinkKey.generate(Kem.X25519) for number in (1, 2)}
    links = [make_link(key, number, days=number) for number, key in keys.items()]
    commit(world, *(AddLink(link) for link in links))
    counter = LinkCounter([LinkLimit.of(live) for live in world.committer.links()])
    before = world.hub.tree_hash
    staged = world.hub.stage_without_seals(counter.over(NOW + DAY))
    assert (staged.rows, staged.tree_hash) == ({}, before)
    header = staged.header
    staged.commit()
    assert world.hub.header == header
    assert [seal.link_id for seal in world.hub.seals] == [links[1].id]
    stored = PublicTree.from_bytes(world.hub.to_bytes())
    assert stored.tree_hash == before
    with pytest.raises(LinkError, match="not live"):
        open_link(stored, ID, keys[1], now=NOW)
    assert open_link(stored, links[1].id, keys[2], now=NOW).leaves() == list(range(5))
    commit(world, Set(2, LeafSecret.generate()))  # and the room goes on


def test_the_committer_tells_the_hub_the_limits(world: World) -> None:
    link = make_link(LinkKey.generate(Kem.X25519), uses=3)
    commit(world, AddLink(link))
    secret = EpochSecret.generate()
    staged = world.committer.stage([UseLink(ID)], epoch=world.epoch, epoch_secret=secret, now=NOW)
    assert staged.link_limits == (LinkLimit(ID, link.expires, 2),)


def test_nobody_extends_a_link_or_gives_it_uses_again() -> None:
    counter = LinkCounter([LinkLimit(ID, 100, 2)])
    counter.admit(ID, 50)
    counter.renew([LinkLimit(ID, 1000, 9), LinkLimit(b"\2" * 16, 70, 1)])
    assert LinkCounter.from_bytes(counter.to_bytes()).to_bytes() == counter.to_bytes()
    counter.admit(ID, 99)
    with pytest.raises(LinkError):
        counter.admit(ID, 99)
    assert counter.over(70) == (ID, b"\2" * 16)
    counter.renew([])
    with pytest.raises(LinkError):
        counter.admit(b"\2" * 16, 1)


def test_limits_are_bounded_and_read_strictly() -> None:
    many = [LinkLimit(bytes([number]) * 16, 1, 1) for number in range(33)]
    for wrong in (many, many[:1] * 2):
        with pytest.raises(LinkError, match="at most 32 of different ids"):
            LinkCounter(wrong)
    whole = LinkCounter(many[:2]).to_bytes()
    for bad in (whole[:-1], whole + b"\0", b"", bytes(3)):
        with pytest.raises(ParseError):
            LinkCounter.from_bytes(bad)
