"""Members over a real MLS library: commits that win, commits that lose, messages, restarts, removals."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import EngineError, LifetimeRefused, RemovedFromRoom
from mimi_mmr.mls.engine import Applied, MlsEngine, MlsGroup
from mimi_mmr.mls.mls_rs import MlsRsEngine
from mimi_mmr.mls.storage import GroupStorage
from mimi_mmr.mls.wire import ContentType, PrivateMessage, parse_application, parse_message
from tests.mimi_mmr.mls.mls_world import ENGINE, GROUP, World, follow, forged_key_package, person, read

SECRET = (b"TreeWrap", b"room", 32)


def secrets(world: World) -> set[bytes]:
    return {group.export_secret(*SECRET) for group in world.groups.values()}


@pytest.fixture
def world() -> World:
    world = World()
    world.commit(add=3)
    return world


def test_a_joiner_knows_where_it_is(world: World) -> None:
    for leaf, group in world.groups.items():
        assert (group.group_id, group.epoch, group.own_leaf) == (GROUP, 1, leaf)
        assert group.leaf(leaf).identity == world.people[leaf].identity
        assert group.leaf(99) is None
    assert len(secrets(world)) == 1


def test_the_next_epochs_secret_before_the_hub_accepts(world: World) -> None:
    now = world.groups[0].export_secret(*SECRET)
    staged = world.groups[0].stage_commit()
    coming = staged.export_secret(*SECRET)
    assert coming != now
    assert (world.groups[0].epoch, staged.epoch) == (1, 2)
    assert world.groups[0].export_secret(*SECRET) == now
    staged.accept()
    world.follow_at_members(0, staged)
    assert secrets(world) == {coming}


def test_a_lost_race(world: World) -> None:
    loser = world.groups[1].stage_commit()
    winner = world.groups[0].stage_commit()
    world.settle(0, winner)
    assert len(secrets(world)) == 1
    loser.reject()
    with pytest.raises(EngineError, match="rejected"):
        loser.accept()
    world.commit(sender=1)
    assert len(secrets(world)) == 1


def test_rejected_before_the_winner_is_seen(world: World) -> None:
    loser = world.groups[1].stage_commit()
    loser.reject()
    winner = world.groups[0].stage_commit()
    world.settle(0, winner)
    assert len(secrets(world)) == 1


def test_rejected_and_tried_again(world: World) -> None:
    for _ in range(3):
        world.groups[1].stage_commit(remove=[2]).reject()
    world.commit(sender=1, remove=(2,))
    assert len(secrets(world)) == 1


def test_an_own_commit_that_comes_back_is_accepted(world: World) -> None:
    staged = world.groups[1].stage_commit()
    assert follow(world.groups[1], staged.commit) == Applied(1, (), (), 2, removed_self=False)
    staged.accept()
    with pytest.raises(EngineError, match="accepted already"):
        staged.reject()
    world.follow_at_members(1, staged)
    assert len(secrets(world)) == 1


def test_one_commit_waits_at_a_time(world: World) -> None:
    world.groups[0].stage_commit()
    with pytest.raises(EngineError, match="waiting"):
        world.groups[0].stage_commit()


def test_messages_while_a_commit_waits(world: World) -> None:
    alice, bob = world.groups[0], world.groups[1]
    staged = alice.stage_commit()
    sent = [alice.encrypt(b"%d" % number) for number in range(3)]
    assert read(alice, bob.encrypt(b"from bob")) == (1, b"from bob")
    staged.reject()
    sent += [alice.encrypt(b"%d" % number) for number in range(3, 6)]
    assert [read(bob, message) for message in sent] == [(0, b"%d" % number) for number in range(6)]


def test_messages_that_a_commit_overtook(world: World) -> None:
    late = world.groups[2].encrypt(b"late")
    world.commit(sender=0, remove=(3,))
    world.commit(sender=1)
    assert read(world.groups[0], late) == (2, b"late")


def test_a_late_message_is_never_taken_for_that_of_a_successor(world: World) -> None:
    late = world.groups[2].encrypt(b"late")
    world.commit(remove=(2,))
    assert world.commit(add=1).added == (2,)
    with pytest.raises(EngineError, match="changed hands"):
        read(world.groups[0], late)


def test_messages_of_an_epoch_long_past(world: World) -> None:
    late = world.groups[1].encrypt(b"late")
    for _ in range(4):
        world.commit()
    with pytest.raises(EngineError):
        read(world.groups[0], late)


def test_every_sender_is_named(world: World) -> None:
    for leaf, group in world.groups.items():
        for _ in range(2):
            message = group.encrypt(b"I am %d" % leaf)
            for other, receiver in world.groups.items():
                if other != leaf:
                    assert read(receiver, message) == (leaf, b"I am %d" % leaf)


def test_messages_are_read_once_and_never_by_their_sender(world: World) -> None:
    message = world.groups[0].encrypt(b"hello")
    read(world.groups[1], message)
    for group in (world.groups[0], world.groups[1]):
        with pytest.raises(EngineError):
            read(group, message)


def test_removed_is_removed(world: World) -> None:
    group = world.groups[3]
    staged = world.groups[0].stage_commit(remove=[3])
    staged.accept()
    assert follow(group, staged.commit) == Applied(0, (), (3,), 2, removed_self=True)
    for use in (
        lambda: group.encrypt(b"still here"),
        lambda: read(group, world.groups[0].encrypt(b"gone")),
        lambda: group.export_secret(*SECRET),
        lambda: follow(group, staged.commit),
        group.stage_commit,
    ):
        with pytest.raises(RemovedFromRoom):
            use()


def test_added_leaves_come_in_order(world: World) -> None:
    world.commit(remove=(1, 3))
    staged = world.commit(add=3)
    assert staged.added == (1, 3, 4)


def as_a_commit(message: bytes) -> PrivateMessage:
    """This message, as if its header said that it holds a commit."""
    return replace(parse_application(message), content_type=ContentType.COMMIT)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda group: group.stage_commit([person().client.key_package()], [1]), "not both"),
        (lambda group: group.stage_commit(remove=[0]), "mls-rs"),
        (lambda group: group.stage_commit(remove=[77]), "no member at leaf 77"),
        (lambda group: group.stage_commit([b"no key package"]), "mls-rs"),
        (lambda group: group.decrypt(as_a_commit(group.encrypt(b""))), "expected an application message"),
    ],
)
def test_what_the_engine_refuses_leaves_the_group_in_use(world: World, wrong, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        wrong(world.groups[0])
    world.commit()
    assert len(secrets(world)) == 1


def test_an_identity_twice_is_refused(world: World) -> None:
    twin = person(identity=world.people[1].identity)
    with pytest.raises(EngineError):
        world.groups[0].stage_commit([twin.client.key_package()])
    world.commit()


def test_commits_of_other_epochs_and_groups(world: World) -> None:
    old = world.commit()
    with pytest.raises(EngineError, match="epoch 2"):
        follow(world.groups[1], old.commit)
    other = person().client.create_group(b"another").stage_commit()
    with pytest.raises(EngineError, match="this group's"):
        follow(world.groups[1], other.commit)


def test_a_commit_with_a_forged_tag(world: World) -> None:
    staged = world.groups[0].stage_commit()
    forged = staged.commit[:-1] + bytes([staged.commit[-1] ^ 1])
    with pytest.raises(EngineError):
        follow(world.groups[1], forged)
    staged.accept()
    world.follow_at_members(0, staged)
    assert len(secrets(world)) == 1


def test_joining_with_a_tree_of_another_epoch(world: World) -> None:
    one = person()
    staged = world.groups[0].stage_commit([one.client.key_package()])
    with pytest.raises(EngineError):
        one.client.join(staged.welcome, world.groups[0].ratchet_tree())
    with pytest.raises(EngineError):
        person().client.join(staged.welcome, staged.ratchet_tree)


def test_an_identity_has_a_size() -> None:
    for identity in (b"", bytes(1 << 16)):
        with pytest.raises(EngineError, match="identity"):
            ENGINE.client(identity, SigningKey.generate())


# --- restarts -------------------------------------------------------------------------------------------------


class Restartable:
    """Alice, whose process may end at any time; Bob, who stays."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.key = SigningKey.generate()
        self.alice = self.client().create_group(GROUP)
        bob = person()
        staged = self.alice.stage_commit([bob.client.key_package()])
        staged.accept()
        self.bob: MlsGroup = bob.client.join(staged.welcome, staged.ratchet_tree)

    def client(self):
        return MlsRsEngine().client(b"alice", self.key, self.rows)

    def restart(self) -> None:
        self.alice = self.client().load(GROUP)

    def agree(self) -> bool:
        return self.alice.export_secret(*SECRET) == self.bob.export_secret(*SECRET)


def test_a_restart_keeps_the_group() -> None:
    pair = Restartable()
    sent = [pair.alice.encrypt(b"one")]
    pair.restart()
    assert (pair.alice.epoch, pair.alice.own_leaf, pair.agree()) == (1, 0, True)
    sent.append(pair.alice.encrypt(b"two"))
    assert [read(pair.bob, message) for message in sent] == [(0, b"one"), (0, b"two")]


def test_a_restart_before_the_hub_answered_yes() -> None:
    pair = Restartable()
    staged = pair.alice.stage_commit()
    pair.restart()
    assert pair.alice.epoch == 1
    follow(pair.bob, staged.commit)
    follow(pair.alice, staged.commit)
    assert pair.agree()
    assert read(pair.alice, pair.bob.encrypt(b"hello")) == (1, b"hello")


def test_a_restart_before_the_hub_answered_no() -> None:
    pair = Restartable()
    pair.alice.stage_commit()
    pair.restart()
    winner = pair.bob.stage_commit()
    winner.accept()
    follow(pair.alice, winner.commit)
    assert pair.agree()
    again = pair.alice.stage_commit()
    again.accept()
    follow(pair.bob, again.commit)
    assert pair.agree()


def test_what_is_staged_is_not_stored_as_the_group() -> None:
    pair = Restartable()
    pair.alice.stage_commit()
    sealed = pair.alice.encrypt(b"in the old epoch")
    assert parse_message(sealed).epoch == 1
    pair.restart()
    assert pair.alice.epoch == 1
    assert read(pair.bob, sealed) == (0, b"in the old epoch")


def test_a_group_is_stored_when_it_is_told_to() -> None:
    pair = Restartable()
    bob = person()
    staged = pair.alice.stage_commit([bob.client.key_package()])
    staged.accept()
    joined = bob.client.join(staged.welcome, staged.ratchet_tree)
    with pytest.raises(EngineError):
        bob.client.load(GROUP)
    joined.store()
    loaded = bob.client.load(GROUP)
    assert (loaded.epoch, loaded.own_leaf) == (2, 2)
    with pytest.raises(EngineError):
        bob.client.join(staged.welcome, staged.ratchet_tree)  # its KeyPackage is used up


def test_a_message_is_read_once_if_the_group_was_stored_since() -> None:
    pair = Restartable()
    sent = [pair.bob.encrypt(b"one"), pair.bob.encrypt(b"two")]
    assert read(pair.alice, sent[0]) == (1, b"one")
    pair.restart()
    assert [read(pair.alice, message) for message in sent] == [(1, b"one"), (1, b"two")]
    pair.alice.store()
    pair.restart()
    for message in sent:
        with pytest.raises(EngineError):
            read(pair.alice, message)


def test_storing_while_a_commit_waits_stores_the_epoch_before_it() -> None:
    pair = Restartable()
    staged = pair.alice.stage_commit()
    assert read(pair.alice, pair.bob.encrypt(b"hello")) == (1, b"hello")
    pair.alice.store()
    pair.restart()
    assert pair.alice.epoch == 1
    follow(pair.alice, staged.commit)
    assert pair.alice.epoch == 2


@pytest.mark.parametrize("accepted", [True, False])
def test_a_commit_that_waits_is_there_after_a_restart(accepted: bool) -> None:
    pair = Restartable()
    carol = person()
    staged = pair.alice.stage_commit([carol.client.key_package()])
    pair.restart()
    again = pair.alice.staged_commit(staged.commit, staged.welcome)
    same = ("commit", "welcome", "ratchet_tree", "epoch", "added")
    assert [getattr(again, name) for name in same] == [getattr(staged, name) for name in same]
    assert again.export_secret(*SECRET) == staged.export_secret(*SECRET)
    assert pair.alice.epoch == 1
    with pytest.raises(EngineError, match="waiting"):
        pair.alice.stage_commit()
    if accepted:
        again.accept()
        follow(pair.bob, staged.commit)
        assert carol.client.join(staged.welcome, staged.ratchet_tree).own_leaf == 2
    else:
        again.reject()
        with pytest.raises(EngineError, match="no commit"):
            pair.alice.staged_commit(staged.commit)
    assert pair.agree()
    pair.restart()
    assert pair.agree()


def test_only_the_commit_that_waits_is_there_after_a_restart() -> None:
    pair = Restartable()
    first = pair.alice.stage_commit()
    first.reject()
    with pytest.raises(EngineError, match="no commit"):
        pair.alice.staged_commit(first.commit)
    pair.alice.stage_commit()
    pair.restart()
    for wrong in (first.commit, pair.bob.stage_commit().commit):
        with pytest.raises(EngineError):
            pair.alice.staged_commit(wrong)
    pair.alice.stage_commit().accept()


def test_after_a_restart_late_messages_have_their_sender() -> None:
    pair = Restartable()
    late = pair.bob.encrypt(b"late")
    pair.alice.stage_commit().accept()
    pair.restart()
    assert read(pair.alice, late) == (1, b"late")


def test_after_a_restart_no_late_message_is_taken_for_that_of_a_successor() -> None:
    pair = Restartable()
    late = pair.bob.encrypt(b"late")
    for change in ({"remove": [1]}, {"add": [person().client.key_package()]}):
        pair.alice.stage_commit(**change).accept()
    pair.restart()
    assert pair.alice.leaf(1) is not None
    with pytest.raises(EngineError, match="changed hands"):
        read(pair.alice, late)


def test_old_epochs_are_deleted() -> None:
    pair = Restartable()
    for _ in range(8):
        staged = pair.alice.stage_commit()
        staged.accept()
        follow(pair.bob, staged.commit)
    assert sorted(key[:1] for key in pair.rows) == [b"e", b"e", b"e", b"h", b"h", b"h", b"n", b"s"]


def test_being_removed_leaves_nothing_behind() -> None:
    pair = Restartable()
    staged = pair.bob.stage_commit(remove=[0])
    follow(pair.alice, staged.commit)
    assert pair.rows == {}
    with pytest.raises(EngineError):
        pair.restart()


def test_storage_has_two_slots() -> None:
    storage = GroupStorage()
    storage.put_state(b"g", b"now")
    with storage.staged():
        assert storage.state(b"g") is None
        storage.put_state(b"g", b"next")
    assert (storage.state(b"g"), storage.has_staged(b"g")) == (b"now", True)
    storage.drop_staged(b"g")
    assert not storage.has_staged(b"g")
    storage.forget(b"g")
    assert storage.state(b"g") is None


def test_the_engine_is_the_protocol() -> None:
    engine: MlsEngine = ENGINE
    assert engine.client(b"somebody", SigningKey.generate()).key_package()


def test_a_refusal_by_lifetime_is_told_from_others() -> None:
    group = person().client.create_group(GROUP)
    now = int(time.time())
    early = forged_key_package(person(), lifetime=(now + 1800, now + 86400))
    with pytest.raises(LifetimeRefused):
        group.stage_commit([early.encoded])
    with pytest.raises(EngineError) as refusal:
        group.stage_commit([b"no KeyPackage"])
    assert type(refusal.value) is EngineError
