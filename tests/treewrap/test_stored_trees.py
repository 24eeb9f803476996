"""Trees that were stored before the salt's input was canonical still open, are followed, and go on.

The data cannot be made again by this code: its salts are of vector format 1. Nobody who follows an update or opens
a tree computes a salt, so nothing else about those trees is different.
"""

from __future__ import annotations

import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from treewrap import (
    Blank,
    EpochSecret,
    LeafSecret,
    LightTree,
    LinkKey,
    PublicTree,
    RoomSecret,
    Set,
    SetRoomSecret,
    Suite,
    WrapTree,
    answer_paths,
    open_link,
)

STORED = json.loads((Path(__file__).parent / "data" / "trees_of_format_1.json").read_text())
NOW = 1000


def verify(leaf: int, content: bytes, signature: bytes) -> bool:
    return hmac.compare_digest(hmac.digest(b"leaf %d" % leaf, content, "sha256"), signature)


class Store:
    """What one hub and one member had stored."""

    def __init__(self, story: dict[str, Any]) -> None:
        self.story = story
        self.next = story["next"]
        self.key = bytes.fromhex(story["state_key"])
        self.tree_hash = bytes.fromhex(story["tree_hash"])
        self.epoch_secret = EpochSecret(bytes.fromhex(story["epoch_secret"]))
        self.next_secret = EpochSecret(bytes.fromhex(self.next["epoch_secret"]))
        self.secrets = {
            int(leaf): LeafSecret(bytes.fromhex(secret)) for leaf, secret in story["secrets"].items()
        }

    def hub(self) -> PublicTree:
        rows = {(level, index): bytes.fromhex(row) for level, index, row in self.story["rows"]}
        header, group = bytes.fromhex(self.story["header_row"]), bytes.fromhex(self.story["group_id"])
        return PublicTree.from_rows(Suite(self.story["arity"]), group, header, rows)

    def member(self) -> WrapTree:
        return WrapTree.open_state(bytes.fromhex(self.story["full_state"]), self.key)

    def light(self) -> LightTree:
        return LightTree.open_state(bytes.fromhex(self.story["light_state"]), self.key)


@pytest.fixture(params=STORED, ids=lambda story: f"k={story['arity']}")
def store(request: pytest.FixtureRequest) -> Store:
    return Store(request.param)


def test_a_stored_tree_opens(store: Store) -> None:
    hub = store.hub()
    assert hub.tree_hash == store.tree_hash
    trees = (
        store.member(),
        WrapTree.from_plain_state(bytes.fromhex(store.story["plain_state"])),
        WrapTree.open(hub.to_bytes(), store.epoch_secret, store.tree_hash),
        open_link(
            hub,
            bytes.fromhex(store.story["link_id"]),
            LinkKey.from_bytes(bytes.fromhex(store.story["link_key"])),
            now=NOW,
            verify=verify,
        ),
    )
    for tree in trees:
        assert tree.tree_hash == store.tree_hash
        assert {leaf: tree.secret(leaf) for leaf in tree.leaves()} == store.secrets
        assert tree.room_secret("topic") == RoomSecret(bytes.fromhex(store.story["topic"]))
        assert tree.public().tree_hash == store.tree_hash
    resolved = store.light().resolve(store.secrets, lambda query: answer_paths(hub, query))
    assert resolved == store.secrets
    [deferred] = hub.deferred
    joining = EpochSecret(bytes.fromhex(store.story["deferred_epoch_secret"]))
    mine = LeafSecret(bytes.fromhex(store.story["deferred_secret"]))
    assert store.member().open_deferred(deferred, joining) == mine


def test_an_update_made_before_is_followed(store: Store) -> None:
    """It sets a leaf, repairs a node and counts a link's use: changes that format 1 encoded otherwise."""
    hub, member, light = store.hub(), store.member(), store.light()
    member_update = bytes.fromhex(store.next["member_update"])
    hub.stage(bytes.fromhex(store.next["tree_update"]), epoch=store.next["epoch"]).commit()
    member.follow(member_update, store.next_secret, verify=verify, now=NOW).commit()
    light.follow(member_update, store.next_secret).commit()
    assert hub.to_bytes().hex() == store.next["public_tree"]
    assert {tree.tree_hash.hex() for tree in (hub, member, light)} == {store.next["tree_hash"]}
    assert [live.used for live in member.links()] == [1]


def test_a_stored_tree_goes_on(store: Store) -> None:
    hub, member, light = store.hub(), store.member(), store.light()
    mine, epoch = LeafSecret(bytes.fromhex(store.story["deferred_secret"])), hub.epoch
    steps = [
        [Set(3, mine), SetRoomSecret("topic", RoomSecret.generate())],
        [Blank(0), Set(100, LeafSecret.generate())],
        [],
    ]
    for changes in steps:
        secret, epoch = EpochSecret.generate(), epoch + 2
        staged = member.stage(changes, epoch=epoch, epoch_secret=secret, now=NOW)
        hub.stage(staged.update.to_bytes(), epoch=epoch).commit()
        light.follow(staged.member_update.to_bytes(), secret).commit()
        staged.commit()
        joiner = WrapTree.open(hub.to_bytes(), secret, member.tree_hash)
        assert joiner.leaves() == member.leaves() == hub.occupied
        assert light.tree_hash == hub.tree_hash == member.tree_hash
    assert member.secret(3) == mine
    assert 0 not in member.leaves()
