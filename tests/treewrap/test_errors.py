"""Each thing that can go wrong has its own error, and leaves the tree as it was."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from tests.treewrap.treewrap_world import GROUP, Step, World, run
from treewrap import (
    Blank,
    ChangeError,
    ChangeKind,
    ConfirmationError,
    EpochSecret,
    LeafChange,
    LeafSecret,
    LightTree,
    NodeError,
    NodeRef,
    ParseError,
    PathQuery,
    PublicTree,
    Rebuild,
    Reject,
    Repair,
    RoomSecret,
    Set,
    SetRoomSecret,
    StagedError,
    StaleEpoch,
    StaleTree,
    Suite,
    TreeHashMismatch,
    UpdateRefused,
    WrapError,
    WrapTree,
    WrongEpochSecret,
    answer_paths,
)
from treewrap.rows import load_rows
from treewrap.suite import UpdateKeys
from treewrap.wire import MemberUpdate, SealedNode, TreeUpdate, WrappedLeaf

FOUR = Suite(4)
FIRST = Step(dict.fromkeys(range(20), True))
SECOND = Step({3: True})


@pytest.fixture
def world() -> World:
    return run(FOUR, [FIRST, SECOND])


def rows_of(world: World) -> dict[tuple[int, int], bytes]:
    """All the rows the hub has stored, gathered from what it was told to write."""
    rows: dict[tuple[int, int], bytes] = {}
    for published in world.published:
        rows.update(published.rows)
    return rows


def served(world: World, changed: dict[tuple[int, int], bytes]) -> bytes:
    rows = rows_of(world) | changed
    order = sorted(rows, key=lambda place: (-place[0], place[1]))
    return world.hub.header + b"".join(rows[place] for place in order)


def test_the_rows_a_store_was_told_to_write_are_the_tree(world: World) -> None:
    tree = PublicTree.from_rows(FOUR, GROUP, world.hub.header, rows_of(world))
    assert tree.to_bytes() == world.hub.to_bytes()
    assert tree.tree_hash == world.hub.tree_hash


def test_a_store_that_lost_or_misplaced_a_row_is_told(world: World) -> None:
    rows = rows_of(world)
    fewer = {place: row for place, row in rows.items() if place != (1, 2)}
    moved = fewer | {(1, 9): rows[1, 2]}
    for wrong in (fewer, moved, rows | {(1, 9): rows[1, 2]}, {}):
        with pytest.raises(ParseError):
            PublicTree.from_rows(FOUR, GROUP, world.hub.header, wrong)
    with pytest.raises(ParseError, match="of group"):
        PublicTree.from_rows(FOUR, b"another", world.hub.header, rows)
    with pytest.raises(ParseError, match="of group"):
        PublicTree.from_rows(Suite(8), GROUP, world.hub.header, rows)


def test_a_wrong_epoch_secret(world: World) -> None:
    with pytest.raises(WrongEpochSecret, match="root of epoch 1"):
        WrapTree.open(world.hub, world.epoch_secrets[0], world.hub.tree_hash)


def test_a_stale_tree_where_the_epoch_is_known(world: World) -> None:
    with pytest.raises(StaleEpoch, match="tree is of epoch 1, offered was epoch 2"):
        WrapTree.open(world.hub, world.tree_secret(), world.hub.tree_hash, epoch=2)
    assert WrapTree.open(world.hub, world.tree_secret(), world.hub.tree_hash, epoch=1).epoch == 1


def test_a_rolled_back_node_is_named(world: World) -> None:
    old = dict(world.published[0].rows)
    for place in [(1, 0), (2, 0)]:
        with pytest.raises(NodeError, match=f"level {place[0]}, index 0") as caught:
            WrapTree.open(served(world, {place: old[place]}), world.tree_secret(), world.hub.tree_hash)
        assert (caught.value.level, caught.value.index) == place


def test_a_rolled_back_root_is_named(world: World) -> None:
    old = dict(world.published[0].rows)
    with pytest.raises(ParseError, match="epoch 0 does not fit the header's, 1"):
        WrapTree.open(served(world, {(3, 0): old[3, 0]}), world.tree_secret(), world.hub.tree_hash)
    forged = (1).to_bytes(8, "big") + old[3, 0][8:]
    with pytest.raises(NodeError, match="level 3, index 0"):
        WrapTree.open(served(world, {(3, 0): forged}), world.tree_secret(), world.hub.tree_hash)


def test_a_node_from_the_future_is_named(world: World) -> None:
    row = rows_of(world)[1, 2]
    future = {(1, 2): (2).to_bytes(8, "big") + row[8:]}
    with pytest.raises(ParseError, match=r"level 1, index 2.*epoch 2 does not fit"):
        WrapTree.open(served(world, future), world.tree_secret(), world.hub.tree_hash)


def test_a_node_that_no_slot_can_have_is_named(world: World) -> None:
    row = rows_of(world)[1, 2]
    for bitmap in (0, 16):
        with pytest.raises(ParseError, match=r"level 1, index 2"):
            PublicTree.from_bytes(served(world, {(1, 2): row[:8] + bytes([bitmap]) + row[9:]}))


def test_swapped_nodes_are_named(world: World) -> None:
    rows = rows_of(world)
    swapped = {(1, 1): rows[1, 2], (1, 2): rows[1, 1]}
    with pytest.raises(NodeError, match="level 1, index 1"):
        WrapTree.open(served(world, swapped), world.tree_secret(), world.hub.tree_hash)


def test_a_truncated_tree(world: World) -> None:
    with pytest.raises(ParseError, match=r"level 1, index 4.*more"):
        WrapTree.open(world.hub.to_bytes()[:-1], world.tree_secret(), world.hub.tree_hash)
    with pytest.raises(ParseError, match="trailing"):
        WrapTree.open(world.hub.to_bytes() + b"\0", world.tree_secret(), world.hub.tree_hash)


def test_a_whole_tree_rolled_back_opens_only_with_its_own_hash(world: World) -> None:
    old = run(FOUR, [FIRST]).hub
    with pytest.raises(TreeHashMismatch):
        WrapTree.open(old, world.epoch_secrets[0], world.hub.tree_hash)


def test_a_stream_is_opened_as_it_comes_in(world: World) -> None:
    stream = io.BytesIO(world.hub.to_bytes())
    opened = WrapTree.open(stream, world.tree_secret(), world.hub.tree_hash)
    assert opened.public().to_bytes() == b"".join(world.hub.chunks())


def test_two_commits_race_and_one_wins(world: World) -> None:
    """G6: the other one is refused and leaves no trace."""
    mine = world.stage([Set(30, LeafSecret.generate())], EpochSecret.generate())
    theirs = world.stage([Blank(0)], EpochSecret.generate())
    first = world.hub.stage(mine.update, epoch=world.epoch)
    second = world.hub.stage(theirs.update, epoch=world.epoch)
    first.commit()
    after = world.hub.to_bytes()
    with pytest.raises(StagedError, match="another one"):
        second.commit()
    with pytest.raises(StaleEpoch):
        world.hub.stage(theirs.update, epoch=world.epoch)
    later = replace(theirs.update, header=replace(theirs.update.header, epoch=9))
    with pytest.raises(StaleTree):
        world.hub.stage(later, epoch=9)
    assert world.hub.to_bytes() == after
    theirs.drop()
    mine.commit()
    assert world.committer.tree_hash == world.hub.tree_hash


def test_a_staged_change_is_used_once(world: World) -> None:
    staged = world.stage([Blank(0)], EpochSecret.generate())
    other = world.stage([Blank(1)], EpochSecret.generate())
    before = world.committer.public().to_bytes()
    other.drop()
    with pytest.raises(StagedError, match="already"):
        other.commit()
    assert world.committer.public().to_bytes() == before
    staged.commit()
    with pytest.raises(StagedError, match="already"):
        staged.commit()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ([Blank(1), Set(1, LeafSecret(bytes(32)))], "leaf 1: changed twice"),
        ([Blank(1), Reject(1)], "leaf 1: changed twice"),
        ([Blank(-1)], "leaf: expected 0 to"),
        ([Set(1 << 24, LeafSecret(bytes(32)))], "leaf: expected 0 to"),
        ([SetRoomSecret("a", RoomSecret(bytes(32)))] * 2, "'a': set twice"),
        ([SetRoomSecret("", RoomSecret(bytes(32)))], "1 to 64 bytes, got 0"),
        ([SetRoomSecret(str(n), RoomSecret(bytes(32))) for n in range(65)], "at most 64"),
        ([Repair((NodeRef(1, 9),))], "no node at level 1, index 9"),
        ([Repair((NodeRef(4, 0),))], "no node at level 4, index 0"),
    ],
)
def test_changes_that_make_no_sense(world: World, changes: list[Blank], what: str) -> None:
    with pytest.raises(ChangeError, match=what):
        world.stage(list(changes), EpochSecret.generate())


def test_an_epoch_that_is_not_newer(world: World) -> None:
    with pytest.raises(StaleEpoch):
        world.committer.stage([], epoch=1, epoch_secret=EpochSecret.generate())
    with pytest.raises(StaleEpoch):
        staged = world.stage([], EpochSecret.generate())
        staged.commit()
        world.committer.follow(staged.member_update, EpochSecret.generate())


@pytest.mark.parametrize("epoch", [-1, 1 << 64])
def test_an_epoch_that_is_none(world: World, epoch: int) -> None:
    for tree in (world.committer, WrapTree.create(FOUR, GROUP)):
        with pytest.raises(ChangeError, match="epoch: expected 0 to"):
            tree.stage([], epoch=epoch, epoch_secret=EpochSecret.generate())


@pytest.mark.parametrize("epoch", [3, 9, (1 << 64) - 1])
def test_an_update_of_another_epoch_than_the_commits_is_refused(world: World, epoch: int) -> None:
    """An update of the last epoch there is would otherwise be the last that the tree ever takes."""
    secret = EpochSecret.generate()
    staged = world.committer.stage([Blank(0)], epoch=epoch, epoch_secret=secret)
    with pytest.raises(UpdateRefused, match=f"epoch: expected 2, got {epoch}"):
        world.hub.stage(staged.update, epoch=2)
    for tree in (world.follower, LightTree.of(world.follower)):
        with pytest.raises(UpdateRefused, match=f"epoch: expected 2, got {epoch}"):
            tree.follow(staged.member_update, secret, epoch=2)
        assert tree.follow(staged.member_update, secret, epoch=epoch).tree_hash == staged.tree_hash


def test_a_staged_change_of_the_hubs_knows_the_leaves_that_it_leads_to(world: World) -> None:
    for changes, leaves in [
        ([Blank(0), Set(90, LeafSecret.generate())], [*range(1, 20), 90]),
        ([Rebuild(), Blank(1)], [0, *range(2, 20)]),
        ([], list(range(20))),
    ]:
        staged = world.stage(list(changes), EpochSecret.generate())
        at_hub = world.hub.stage(staged.update, epoch=world.epoch)
        assert at_hub.occupied == leaves
        at_hub.drop()
        with pytest.raises(StagedError, match="already"):
            _ = at_hub.occupied


def test_a_rebuilt_tree_is_read_and_checked_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = EpochSecret.generate()
    staged = world.stage([Rebuild(), Blank(7)], secret)
    read = []
    monkeypatch.setattr("treewrap.verify.load_rows", lambda *given: read.append(given) or load_rows(*given))
    monkeypatch.setattr("treewrap.public.load_rows", lambda *_: pytest.fail("read again"))
    at_hub = world.hub.stage(staged.update.to_bytes(), epoch=world.epoch)
    rows = {place: row for place, row in at_hub.rows.items() if row is not None}
    assert at_hub.occupied == [leaf for leaf in range(20) if leaf != 7]
    at_hub.commit()
    assert len(read) == 1
    monkeypatch.undo()
    stored = PublicTree.from_rows(FOUR, GROUP, world.hub.header, rows)
    assert stored.to_bytes() == world.hub.to_bytes()
    staged.commit()
    world.follower.follow(staged.member_update, secret).commit()
    world.epoch_secrets.append(secret)
    world.run(Step({40: True}))
    assert world.hub.tree_hash == world.follower.tree_hash


def test_a_room_secrets_name_may_have_64_bytes(world: World) -> None:
    secret, topic = EpochSecret.generate(), RoomSecret.generate()
    staged = world.stage([SetRoomSecret("n" * 64, topic)], secret)
    world.follower.follow(staged.member_update.to_bytes(), secret).commit()
    assert world.follower.room_secret("n" * 64) == topic
    with pytest.raises(ChangeError, match="1 to 64 bytes, got 65"):
        world.stage([SetRoomSecret("n" * 65, topic)], secret)


def tampered(update: TreeUpdate) -> dict[str, TreeUpdate]:
    first, *rest = update.nodes
    return {
        "nodes: expected level 1, index 0, got level 2": replace(update, nodes=tuple(rest)),
        "nodes: expected no more": replace(update, nodes=(*update.nodes, SealedNode(9, 9, b""))),
        "size of level 1, index 0": replace(
            update, nodes=(SealedNode(*first.ref, first.ciphertext + b"1"), *rest)
        ),
        "vanished nodes: expected no more": replace(update, vanished=(NodeRef(1, 1),)),
        "height: expected 3, got 4": replace(update, header=replace(update.header, height=4)),
        "size of level 3": replace(update, header=replace(update.header, extra_length=3)),
        "suite": replace(update, header=replace(update.header, suite=Suite(2))),
        "repair: no node at level 1, index 7": replace(update, repaired=(NodeRef(1, 7),)),
        "leaf 9: rejected": replace(update, changes=(*update.changes, LeafChange(9, ChangeKind.REJECT))),
        "nodes: expected level 1, index 1": replace(
            update, changes=(*update.changes, LeafChange(4, ChangeKind.SET))
        ),
    }


def test_the_hub_refuses_an_update_that_is_not_what_its_changes_say(world: World) -> None:
    update = world.stage([Set(3, LeafSecret.generate())], EpochSecret.generate()).update
    before = world.hub.to_bytes()
    for what, wrong in tampered(update).items():
        with pytest.raises(UpdateRefused, match=what):
            world.hub.stage(wrong, epoch=world.epoch)
    damaged = SealedNode(*update.nodes[0].ref, bytes(len(update.nodes[0].ciphertext)))
    with pytest.raises(TreeHashMismatch):
        world.hub.stage(replace(update, nodes=(damaged, *update.nodes[1:])), epoch=world.epoch)
    assert world.hub.to_bytes() == before


def follow_error(world: World, update: MemberUpdate, secret: EpochSecret) -> Exception:
    before = world.follower.public().to_bytes()
    with pytest.raises(Exception) as caught:
        world.follower.follow(update, secret)
    assert world.follower.public().to_bytes() == before
    return caught.value


def test_a_follower_says_what_differs(world: World) -> None:
    secret = EpochSecret.generate()
    update = world.stage([Set(3, LeafSecret.generate()), Blank(5)], secret).member_update
    error = follow_error(world, update, EpochSecret.generate())
    assert isinstance(error, WrongEpochSecret)
    error = follow_error(world, replace(update, tree_hash=bytes(32)), secret)
    assert isinstance(error, ConfirmationError)
    assert error.differs == "tree hash"
    fewer = replace(update, leaves=update.leaves[:1])
    error = follow_error(world, fewer, secret)
    assert isinstance(error, ConfirmationError)
    assert error.differs == "changes"
    error = follow_error(world, replace(update, repaired=(NodeRef(7, 7),)), secret)
    assert isinstance(error, ConfirmationError)
    error = follow_error(world, replace(update, header=replace(update.header, suite=Suite(2))), secret)
    assert isinstance(error, UpdateRefused)


def confirmed(update: MemberUpdate, world: World, secret: EpochSecret) -> MemberUpdate:
    """Sign off whatever a hostile member put together."""
    context = world.committer._context
    tag = UpdateKeys(context, secret, update.header.salt).confirm(update.confirmed())
    return replace(update, tag=tag)


def test_a_wrong_wrap_blanks_its_leaf_for_everyone_and_the_tree_is_rebuilt(world: World) -> None:
    secret = EpochSecret.generate()
    staged = world.stage([Set(3, LeafSecret.generate()), Set(4, LeafSecret.generate())], secret)
    leaf, kind, _ = staged.member_update.leaves[0]
    wrong = (WrappedLeaf(leaf, kind, bytes(48)), *staged.member_update.leaves[1:])
    hostile = confirmed(replace(staged.member_update, leaves=wrong), world, secret)
    world.hub.stage(staged.update, epoch=world.epoch).commit()
    error = follow_error(world, hostile, secret)
    assert isinstance(error, WrapError)
    assert "leaf 3" in str(error)
    assert error.staged is not None
    error.staged.commit()
    assert 3 not in world.follower.leaves()
    secret = EpochSecret.generate()
    repaired = world.follower.stage([Rebuild()], epoch=3, epoch_secret=secret)
    at_hub = world.hub.stage(repaired.update.to_bytes(), epoch=3)
    assert {place for place, row in at_hub.rows.items() if row is not None} == set(rows_of(world))
    at_hub.commit()
    repaired.commit()
    assert world.hub.tree_hash == world.follower.tree_hash
    assert WrapTree.open(world.hub, secret, world.hub.tree_hash).leaves() == world.follower.leaves()


def test_a_committer_that_names_another_tree_is_found_out(world: World) -> None:
    secret = EpochSecret.generate()
    staged = world.stage([Set(3, LeafSecret.generate())], secret)
    hostile = confirmed(replace(staged.member_update, tree_hash=bytes(32)), world, secret)
    error = follow_error(world, hostile, secret)
    assert isinstance(error, TreeHashMismatch)
    assert error.staged is not None
    assert error.staged.tree_hash == error.computed == staged.tree_hash


def test_a_rebuilt_tree_is_checked_whole(world: World) -> None:
    update = world.stage([Rebuild()], EpochSecret.generate()).update
    with pytest.raises(ParseError):
        world.hub.stage(replace(update, rebuilt=update.rebuilt[:-1]), epoch=world.epoch)
    flipped = update.rebuilt[:-1] + bytes([update.rebuilt[-1] ^ 1])
    with pytest.raises(TreeHashMismatch):
        world.hub.stage(replace(update, rebuilt=flipped), epoch=world.epoch)


def test_a_rebuilt_tree_can_not_gain_a_leaf_unseen(world: World) -> None:
    staged = world.stage([Rebuild(), Set(90, LeafSecret.generate())], EpochSecret.generate())
    with pytest.raises(UpdateRefused, match="leaf 90: no change sets it"):
        world.hub.stage(replace(staged.update, changes=()), epoch=world.epoch)


def test_a_damaged_row_is_found_and_repaired(world: World) -> None:
    damaged = rows_of(world)
    damaged[1, 2] = damaged[1, 2][:-1] + bytes([damaged[1, 2][-1] ^ 1])
    hub = PublicTree.from_rows(FOUR, GROUP, world.hub.header, damaged)
    with pytest.raises(NodeError, match="level 1, index 2") as caught:
        WrapTree.open(hub, world.tree_secret(), world.committer.tree_hash)
    secret = EpochSecret.generate()
    repair = Repair((NodeRef(caught.value.level, caught.value.index),))
    staged = world.stage([repair], secret)
    repaired = hub.stage(staged.update, epoch=world.epoch)
    assert set(repaired.rows) == {(1, 2), (2, 0), (3, 0)}
    repaired.commit()
    world.follower.follow(staged.member_update, secret).commit()
    assert hub.tree_hash == world.follower.tree_hash == staged.tree_hash
    assert WrapTree.open(hub, secret, staged.tree_hash).leaves() == list(range(20))


def test_a_removal_renews_the_room_secrets(world: World) -> None:
    world.run(Step({}, room=True))
    topic = world.committer.room_secret("topic")
    world.run(Step({40: True}))
    assert world.committer.room_secret("topic") == topic
    world.run(Step({40: False}))
    assert world.committer.room_secret("topic") != topic
    assert world.follower.room_secret("topic") == world.committer.room_secret("topic")
    with pytest.raises(KeyError):
        world.follower.room_secret("other")


def test_a_room_secret_that_a_removal_does_not_renew_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A committer that keeps what the removed member knows ends it instead, for everyone."""
    world.run(Step({}, room=True))
    monkeypatch.setattr("treewrap.stage.renew_rooms", lambda changes, *_: changes)
    world.run(Step({3: False}))
    assert world.committer.room_secrets() == world.follower.room_secrets() == []


def test_the_root_alone_gets_a_new_key(world: World) -> None:
    staged = world.stage([], EpochSecret.generate())
    assert [node.ref for node in staged.update.nodes] == [NodeRef(3, 0)]
    assert staged.update.changes == ()


def test_a_group_id_is_needed() -> None:
    for group_id in (b"", bytes(256)):
        with pytest.raises(ValueError, match="group id"):
            WrapTree.create(FOUR, group_id)
    with pytest.raises(ValueError, match="arity"):
        Suite(3)


def test_nothing_was_ever_sealed() -> None:
    tree, hub = WrapTree.create(FOUR, GROUP), PublicTree.create(FOUR, GROUP)
    assert tree.tree_hash == hub.tree_hash
    assert (tree.epoch, tree.height, tree.leaves(), hub.occupied) == (-1, 0, [], [])
    assert PublicTree.from_bytes(hub.to_bytes()).to_bytes() == hub.to_bytes() == tree.public().to_bytes()
    with pytest.raises(StaleTree, match="nothing was ever sealed"):
        answer_paths(hub, PathQuery(hub.tree_hash))
    with pytest.raises(ParseError, match="nothing was ever sealed"):
        WrapTree.open(hub, EpochSecret.generate(), hub.tree_hash)
