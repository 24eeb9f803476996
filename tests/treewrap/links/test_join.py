"""Joining by a link's sealed root, also while the room moves on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.treewrap.links.links_world import CI, NOW, commit, make_link, sign, verify
from tests.treewrap.treewrap_world import GROUP, SUITES, Attacker, Step, World, run
from treewrap import (
    AddLink,
    Blank,
    Change,
    ChangeError,
    EpochSecret,
    ExpireLink,
    Kem,
    LeafSecret,
    LightTree,
    LinkError,
    LinkKey,
    LinkSnapshot,
    MemberUpdate,
    ParseError,
    RevokeLink,
    Set,
    StaleEpoch,
    StaleTree,
    Suite,
    UseLink,
    WrongEpochSecret,
    open_link,
    open_link_light,
)
from treewrap.links.records import link_changes_to_bytes
from treewrap.suite import GroupContext, UpdateKeys, seal
from treewrap.wire import WrappedLeaf


@pytest.fixture
def world() -> World:
    return run(Suite(4), [Step(dict.fromkeys(range(20), True))])


@pytest.mark.parametrize("kem", Kem)
def test_a_link_opens_the_tree_and_its_holder_joins(world: World, kem: Kem) -> None:
    key = LinkKey.generate(kem)
    commit(world, AddLink(make_link(key)))
    key = LinkKey.from_bytes(key.reveal())
    joiner = open_link(world.hub.to_bytes(), b"\1" * 16, key, now=NOW)
    light = open_link_light(GROUP, LinkSnapshot.of(world.hub, b"\1" * 16).to_bytes(), key, now=NOW)
    assert joiner.leaves() == list(range(20))
    assert light.resolve([7], world.paths) == {7: world.model[7]}

    secret = EpochSecret.generate()
    changes = [Set(30, LeafSecret.generate()), UseLink(b"\1" * 16)]
    staged = joiner.stage(changes, epoch=world.epoch, epoch_secret=secret, now=NOW)
    world.hub.stage(staged.update, epoch=world.epoch).commit()
    world.committer.follow(staged.member_update, secret).commit()
    staged.commit()
    assert joiner.tree_hash == world.committer.tree_hash
    assert [live.used for live in world.committer.links()] == [1]


def test_many_links_live_and_each_opens(world: World) -> None:
    keys = [LinkKey.generate(Kem.X25519 if number % 2 else Kem.MLKEM768_X25519) for number in range(8)]
    commit(world, *(AddLink(make_link(key, number)) for number, key in enumerate(keys)))
    commit(world, Set(40, LeafSecret.generate()))  # every update seals the root key again
    for number, key in enumerate(keys):
        assert open_link(world.hub, bytes([number]) * 16, key, now=NOW).leaves() == world.hub.occupied
    with pytest.raises(LinkError, match="does not open"):
        open_link(world.hub, bytes([1]) * 16, keys[3], now=NOW)


def test_a_revoked_link_opens_nothing_that_comes_later(world: World) -> None:
    key = LinkKey.generate()
    commit(world, AddLink(make_link(key)))
    revoke = RevokeLink(b"\1" * 16, 5)
    commit(world, replace(revoke, signature=sign(5, revoke.content(GROUP))))
    assert world.hub.seals == ()
    with pytest.raises(LinkError, match="not live"):
        open_link(world.hub, b"\1" * 16, key, now=NOW)


@pytest.mark.parametrize("change", [Blank(3), Set(3, LeafSecret(bytes(32)))])
def test_a_removal_ends_every_link(world: World, change: Change) -> None:
    commit(world, AddLink(make_link(LinkKey.generate())))
    commit(world, change)
    assert world.hub.seals == () == world.committer.links()


def test_an_expired_link_is_dropped_by_the_next_commit_that_knows_the_time(world: World) -> None:
    key = LinkKey.generate()
    commit(world, AddLink(make_link(key)))
    with pytest.raises(LinkError, match="expired"):
        open_link(world.hub, b"\1" * 16, key, now=NOW + 86400)
    commit(world, Set(50, LeafSecret.generate()), now=NOW + 86399)
    assert len(world.hub.seals) == 1
    commit(world, Set(51, LeafSecret.generate()), now=NOW + 86400)
    assert world.hub.seals == ()
    with pytest.raises(LinkError):
        LinkSnapshot.of(world.hub, b"\1" * 16)


def test_nothing_is_sealed_to_a_link_by_a_committer_that_does_not_know_the_time(world: World) -> None:
    """A link would outlive its expiry, as long as nobody who commits looks at a clock."""
    key, secret = LinkKey.generate(Kem.X25519), EpochSecret.generate()
    add = AddLink(make_link(key))
    with pytest.raises(ChangeError, match="now: needed while join links live, and 1 will"):
        world.committer.stage([add], epoch=world.epoch, epoch_secret=secret, verify=verify)
    commit(world, add)
    light = LightTree.of(world.committer)
    for changes in ([], [Set(30, LeafSecret.generate())]):
        with pytest.raises(ChangeError, match="now: needed"):
            world.committer.stage(changes, epoch=world.epoch, epoch_secret=secret)
        with pytest.raises(ChangeError, match="now: needed"):
            light.stage(changes, world.paths(light.query_for(changes)), epoch=9, epoch_secret=secret)
    commit(world, Blank(3), now=None)  # no link lives afterwards
    assert world.hub.seals == ()
    commit(world, now=None)


def test_a_link_is_used_up(world: World) -> None:
    commit(world, AddLink(make_link(LinkKey.generate(), uses=2)))
    commit(world, UseLink(b"\1" * 16))
    assert len(world.hub.seals) == 1
    commit(world, UseLink(b"\1" * 16))
    assert world.hub.seals == ()
    with pytest.raises(LinkError, match="not live"):
        commit(world, UseLink(b"\1" * 16))


def test_links_that_nobody_may_add(world: World) -> None:
    key = LinkKey.generate(Kem.X25519)
    good = make_link(key)
    for link, what in [
        (replace(good, creator=1), "no valid signature by leaf 1"),
        (replace(good, public_key=good.public_key[::-1]), "no valid signature"),
        (make_link(key, days=8), "expires at"),
        (make_link(key, days=0), "expires at"),
    ]:
        with pytest.raises(LinkError, match=what):
            commit(world, AddLink(link))
    with pytest.raises(LinkError, match="no valid signature"):
        world.committer.stage([AddLink(good)], epoch=9, epoch_secret=EpochSecret.generate())
    with pytest.raises(LinkError, match="creator leaves"):
        commit(world, AddLink(good), Blank(0))
    with pytest.raises(LinkError, match="one of that id"):
        commit(world, AddLink(good), AddLink(good))
    with pytest.raises(LinkError, match="at most 32"):
        commit(world, *(AddLink(make_link(key, number)) for number in range(33)))
    for kem, public_key in [
        (Kem.X25519, bytes(31)),
        (Kem.X25519, bytes(32)),
        (Kem.MLKEM768_X25519, bytes(1216)),
    ]:
        bad = replace(good, kem=kem, public_key=public_key)
        with pytest.raises(LinkError, match="public key"):
            commit(world, AddLink(replace(bad, signature=sign(0, bad.content(GROUP)))))
    with pytest.raises(LinkError, match="expected 32 or 96"):
        LinkKey.from_bytes(bytes(33))


def test_a_committer_that_adds_an_unsigned_link_is_found_out(world: World) -> None:
    """No committer can have the root key sealed to a key that no leaf has signed."""
    secret = EpochSecret.generate()
    link = make_link(LinkKey.generate())
    trusting = world.committer.stage(
        [AddLink(replace(link, creator=2))], epoch=1, epoch_secret=secret, verify=lambda *_: True, now=NOW
    )
    with pytest.raises(LinkError, match="no valid signature by leaf 2") as caught:
        world.follower.follow(trusting.member_update, secret, verify=verify, now=NOW)
    assert caught.value.staged is not None
    caught.value.staged.commit()
    assert world.follower.links() == ()


def test_a_link_that_could_not_be_sealed_to_never_gets_into_the_root(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stop every later commit."""
    secret = EpochSecret.generate()
    bad = replace(make_link(LinkKey.generate(Kem.X25519)), public_key=bytes(32))
    bad = replace(bad, signature=sign(0, bad.content(GROUP)))
    with monkeypatch.context() as hostile:
        hostile.setattr("treewrap.stage.check_link_change", lambda *_, **__: None)
        hostile.setattr("treewrap.stage.seal_root", lambda *_: ())
        staged = world.committer.stage([AddLink(bad)], epoch=1, epoch_secret=secret, verify=verify, now=NOW)
    with pytest.raises(LinkError, match="public key") as caught:
        world.follower.follow(staged.member_update, secret, verify=verify, now=NOW)
    assert caught.value.staged is not None
    caught.value.staged.commit()
    world.follower.stage([], epoch=2, epoch_secret=EpochSecret.generate())


def test_a_hub_that_mixes_two_moments_is_found_out(world: World) -> None:
    key = LinkKey.generate()
    commit(world, AddLink(make_link(key)))
    old = LinkSnapshot.of(world.hub, b"\1" * 16)
    commit(world, Set(60, LeafSecret.generate()))
    new = LinkSnapshot.of(world.hub, b"\1" * 16)
    mixtures = (
        replace(new, seal=old.seal),
        replace(new, paths=old.paths),
        replace(new, tree_hash=old.tree_hash),
    )
    for mixed in mixtures:
        with pytest.raises(LinkError, match="does not open"):
            open_link_light(GROUP, mixed, key, now=NOW)
    for size in range(0, len(new.to_bytes()), 7):
        with pytest.raises(ParseError):
            LinkSnapshot.from_bytes(new.to_bytes()[:size])


def test_a_hub_that_makes_a_room_of_its_own_is_found_out(world: World) -> None:
    """Even if it learns the link's public key, it can't sign for the link's creator."""
    key = LinkKey.generate(Kem.X25519)
    forged = run(Suite(4), [Step({0: True})])
    secret = EpochSecret.generate()
    link = replace(make_link(key), signature=b"forged")
    staged = forged.committer.stage(
        [AddLink(link)], epoch=1, epoch_secret=secret, verify=lambda *_: True, now=NOW
    )
    forged.hub.stage(staged.update, epoch=1).commit()
    with pytest.raises(LinkError, match="no valid signature by leaf 0"):
        open_link(forged.hub, b"\1" * 16, key, now=NOW, verify=verify)
    with pytest.raises(LinkError, match="no valid signature by leaf 0"):
        open_link_light(GROUP, LinkSnapshot.of(forged.hub, b"\1" * 16), key, now=NOW, verify=verify)
    commit(world, AddLink(make_link(key)))
    assert open_link(world.hub, b"\1" * 16, key, now=NOW, verify=verify).links() == world.committer.links()


@CI
@given(SUITES, st.lists(st.sampled_from(["fetch", "move", "join"]), max_size=12), st.booleans())
def test_a_link_joiner_gets_in_however_the_room_moves_on(
    suite: Suite, events: list[str], light: bool
) -> None:
    world = run(suite, [Step({0: True, 9: True})])
    key = LinkKey.generate(Kem.X25519)
    commit(world, AddLink(make_link(key, uses=100)))
    joiner = None
    joined = 0
    for event in [*events, "fetch", "join"]:
        if event == "fetch":
            joiner = open_link(world.hub.to_bytes(), b"\1" * 16, key, now=NOW)
        elif event == "move":
            commit(world, Set(100 + world.epoch, LeafSecret.generate()))
        elif joiner is not None:
            secret, mine = EpochSecret.generate(), LeafSecret.generate()
            changes = [Set(1000 + joined, mine), UseLink(b"\1" * 16)]
            staged = joiner.stage(changes, epoch=world.epoch, epoch_secret=secret, now=NOW)
            if joiner.tree_hash != world.hub.tree_hash:
                with pytest.raises((StaleTree, StaleEpoch)):
                    world.hub.stage(staged.update, epoch=world.epoch)
                staged.drop()
                continue
            world.hub.stage(staged.update, epoch=world.epoch).commit()
            for member in (world.committer, world.follower):
                member.follow(staged.member_update, secret).commit()
            staged.commit()
            world.epoch_secrets.append(secret)
            world.model[1000 + joined] = mine
            joined += 1
    assert joined
    for tree in (world.committer, world.follower, joiner):
        assert tree is not None
        assert tree.tree_hash == world.hub.tree_hash
        assert {leaf: tree.secret(leaf) for leaf in tree.leaves()} == world.model


@CI
@given(SUITES, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_a_link_holder_learns_exactly_what_was_there_while_the_link_lived(
    suite: Suite, before: int, during: int, after: int
) -> None:
    """G4 for link holders: the attacker holds the link's private key and no epoch secret."""
    world = run(suite, [Step({number: True, 40: number % 2 == 0}) for number in range(before + 1)])
    key = LinkKey.generate(Kem.X25519)
    opened: set[bytes] = set()
    present: set[bytes] = set()
    gone = {secret for secrets in world.present for secret in secrets}
    context = GroupContext(suite, GROUP)

    def epoch(*changes: Change, live: bool) -> None:
        commit(world, *changes)
        now_there = {secret.reveal() for secret in world.model.values()}
        (present if live else gone).update(now_there)
        for sealed in world.hub.seals:
            opened.add(key.open(sealed, context, world.hub.epoch, world.hub.tree_hash).reveal())
        world.published[-1].rows += [
            ((node.level, node.index), node.row) for node in world.hub.forest.top_down()
        ]

    epoch(AddLink(make_link(key)), live=True)
    for number in range(during):
        epoch(Set(50 + number, LeafSecret.generate()), live=True)
    epoch(Blank(0), Set(60, LeafSecret.generate()), live=False)
    for number in range(after):
        epoch(Set(70 + number, LeafSecret.generate()), live=False)
    attacker = Attacker(suite, set(opened))
    attacker.close(world)
    assert attacker.known & (present | gone) == present


def test_a_member_that_counts_a_use_of_no_link_is_found_out(world: World) -> None:
    secret = EpochSecret.generate()
    staged = world.committer.stage([], epoch=1, epoch_secret=secret)
    context = GroupContext(world.suite, GROUP)
    keys = UpdateKeys(context, secret, staged.member_update.header.salt)
    hostile = link_changes_to_bytes((UseLink(bytes(16)), ExpireLink(bytes(16))))
    links = seal(keys.wrap(b"links", 0), hostile, context.wrap_aad(0, 1))
    wrong = replace(staged.member_update, links=links)
    with pytest.raises(LinkError, match="not live") as caught:
        world.follower.follow(replace(wrong, tag=keys.confirm(wrong.confirmed())), secret)
    assert caught.value.staged is not None
    assert caught.value.staged.tree_hash == staged.tree_hash


def test_links_that_do_not_open_are_left_out(world: World) -> None:
    secret = EpochSecret.generate()
    staged = world.committer.stage([], epoch=1, epoch_secret=secret)
    keys = UpdateKeys(GroupContext(world.suite, GROUP), secret, staged.member_update.header.salt)
    wrong = replace(staged.member_update, links=bytes(40))
    with pytest.raises(LinkError, match="does not open") as caught:
        world.follower.follow(replace(wrong, tag=keys.confirm(wrong.confirmed())), secret)
    assert caught.value.staged is not None
    assert caught.value.staged.tree_hash == staged.tree_hash
    with pytest.raises(WrongEpochSecret):
        world.follower.follow(wrong, EpochSecret.generate())


@pytest.mark.parametrize("kem", Kem)
def test_who_carries_an_update_does_not_see_the_link(world: World, kem: Kem) -> None:
    link = make_link(LinkKey.generate(kem))
    staged = world.committer.stage(
        [AddLink(link)], epoch=1, epoch_secret=EpochSecret.generate(), verify=verify, now=NOW
    )
    carried = staged.update.to_bytes() + staged.member_update.to_bytes()
    assert link.public_key not in carried
    assert link.signature not in carried


def test_wrapped_leaves_do_not_show_in_errors(world: World) -> None:
    secret = EpochSecret.generate()
    staged = world.committer.stage([Set(1, LeafSecret.generate())], epoch=1, epoch_secret=secret)
    update: MemberUpdate = staged.member_update
    wrapped: WrappedLeaf = update.leaves[0]
    with pytest.raises(Exception) as caught:
        world.follower.follow(replace(update, leaves=()), secret)
    assert wrapped.wrapped.hex() not in str(caught.value)
