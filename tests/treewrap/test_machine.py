"""One room as a state machine: members, a light tree, a hub, races, restarts, links, and deferred leaves."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import treewrap.links.deferred
import treewrap.outcome
import treewrap.stage
from tests.treewrap.treewrap_world import GROUP, LEAVES, SUITES
from treewrap import (
    AddLink,
    Blank,
    Change,
    DeferredLeaf,
    EpochSecret,
    Kem,
    LeafSecret,
    LightTree,
    Link,
    LinkKey,
    NodeRef,
    PathQuery,
    PublicTree,
    Rebuild,
    Reject,
    Repair,
    RoomSecret,
    Set,
    SetRoomSecret,
    StagedCommit,
    StagedError,
    StaleEpoch,
    Suite,
    WrapTree,
    answer_paths,
    open_link,
)
from treewrap.suite import GroupContext
from treewrap.suite import seal as real_seal

KEY = bytes(32)


def verify(leaf: int, content: bytes, signature: bytes) -> bool:
    return hmac.compare_digest(hmac.digest(b"%d" % leaf, content, "sha256"), signature)


class Room(RuleBasedStateMachine):
    """Whatever happens, all members read exactly the model's secrets, and no key seals twice."""

    @initialize(suite=SUITES)
    def create(self, suite: Suite) -> None:
        self.suite = suite
        self.context = GroupContext(suite, GROUP)
        self.hub = PublicTree.create(suite, GROUP)
        self.members = [WrapTree.create(suite, GROUP), WrapTree.create(suite, GROUP)]
        self.light: LightTree | None = None
        self.model: dict[int, LeafSecret] = {}
        self.rooms: dict[str, RoomSecret] = {}
        self.links: dict[bytes, LinkKey] = {}
        self.joining: dict[int, tuple[EpochSecret, LeafSecret]] = {}
        self.epoch = 0
        self.sealed: dict[bytes, tuple[bytes, bytes]] = {}
        self.patch = pytest.MonkeyPatch()
        for module in (treewrap.stage, treewrap.outcome, treewrap.links.deferred):
            self.patch.setattr(module, "seal", self.record)
        self.commit([Set(0, LeafSecret.generate())], 0)

    def record(self, key: bytes, plaintext: bytes, aad: bytes) -> bytes:
        plaintext = bytes(plaintext)
        assert self.sealed.setdefault(key, (plaintext, aad)) == (plaintext, aad)  # G8
        return real_seal(key, plaintext, aad)

    def paths(self, query: PathQuery | bytes) -> bytes:
        return answer_paths(self.hub, query)

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.patch.undo()

    def stage(self, changes: Iterable[Change], by: int) -> tuple[StagedCommit, EpochSecret]:
        secret = EpochSecret.generate()
        answers: list[Change] = [
            Set(queued.leaf, self.joining[queued.leaf][1])
            for queued in self.hub.deferred
            if queued.leaf
            not in {change.leaf for change in changes if isinstance(change, Set | Blank | Reject)}
        ]
        staged = self.members[by].stage(
            [*changes, *answers], epoch=self.epoch, epoch_secret=secret, verify=verify, now=50
        )
        return staged, secret

    def commit(self, changes: list[Change], by: int) -> None:
        staged, secret = self.stage(changes, by)
        removal = any(isinstance(c, Blank) or (isinstance(c, Set) and c.leaf in self.model) for c in changes)
        self.hub.stage(staged.update.to_bytes(), epoch=self.epoch).commit()
        staged.commit()
        for number, member in enumerate(self.members):
            if number != by:
                member.follow(staged.member_update.to_bytes(), secret, verify=verify).commit()
        if self.light is not None:
            self.light.follow(staged.member_update, secret).commit()
        self.secret = secret
        self.epoch += 1
        answered = {
            leaf: self.joining.pop(leaf)[1] for leaf, _ in staged.update.changes if leaf in self.joining
        }
        self.model |= answered
        for change in changes:
            if isinstance(change, Set):
                self.model[change.leaf] = change.secret
            elif isinstance(change, Blank | Reject):
                self.model.pop(change.leaf, None)
            elif isinstance(change, AddLink):
                pass
        if removal:
            self.links = {}
            self.rooms = {name: self.members[by].room_secret(name) for name in self.rooms}
        self.rooms |= {c.name: c.secret for c in changes if isinstance(c, SetRoomSecret)}

    @rule(leaves=st.dictionaries(LEAVES, st.booleans(), max_size=4), by=st.integers(0, 1))
    def change_leaves(self, leaves: dict[int, bool], by: int) -> None:
        self.commit(
            [Set(leaf, LeafSecret.generate()) if on else Blank(leaf) for leaf, on in leaves.items()], by
        )

    @rule(by=st.integers(0, 1), data=st.data())
    @precondition(lambda self: self.model)
    def evict(self, by: int, data: st.DataObject) -> None:
        gone = data.draw(st.sets(st.sampled_from(sorted(self.model)), min_size=1))
        self.commit([Blank(leaf) for leaf in gone], by)

    @rule(name=st.sampled_from(["a", "b"]), by=st.integers(0, 1))
    def set_room_secret(self, name: str, by: int) -> None:
        self.commit([SetRoomSecret(name, RoomSecret.generate())], by)

    @rule(by=st.integers(0, 1), whole=st.booleans(), data=st.data())
    def repair(self, by: int, whole: bool, data: st.DataObject) -> None:
        nodes = (
            data.draw(st.sets(st.sampled_from(sorted(self.hub.forest.nodes())), max_size=3))
            if not whole
            else ()
        )
        self.commit([Rebuild() if whole else Repair(tuple(NodeRef(*ref) for ref in nodes))], by)

    @rule(leaf=LEAVES)
    def race(self, leaf: int) -> None:
        """G6: two commits for one epoch; the second leaves no trace."""
        loser, _ = self.stage([Set(leaf, LeafSecret.generate())], 1)
        at_hub = self.hub.stage(loser.update, epoch=self.epoch)
        self.commit([Set(leaf + 1, LeafSecret.generate())], 0)
        before = self.hub.to_bytes()
        with pytest.raises(StaleEpoch):
            self.hub.stage(loser.update, epoch=self.epoch)
        for staged in (at_hub, loser):
            with pytest.raises(StagedError):
                staged.commit()
        assert self.hub.to_bytes() == before

    @rule(by=st.integers(0, 1))
    def restart(self, by: int) -> None:
        self.members[by] = WrapTree.open_state(self.members[by].seal_state(KEY), KEY)
        self.hub = PublicTree.from_bytes(self.hub.to_bytes())

    @rule()
    def join(self) -> None:
        self.members[1] = WrapTree.open(self.hub.to_bytes(), self.secret, self.hub.tree_hash)

    @rule()
    def go_light(self) -> None:
        root = self.paths(PathQuery(self.hub.tree_hash))
        self.light = LightTree.open(GROUP, root, self.secret, self.hub.tree_hash)

    @rule(number=st.integers(0, 3))
    def add_link(self, number: int) -> None:
        link_id = bytes([number]) * 16
        if link_id not in self.links:
            key = LinkKey.generate(Kem.X25519)
            link = Link(link_id, key.kem, key.public_key, 3, 100, 9)
            signature = hmac.digest(b"3", link.content(GROUP), "sha256")
            self.commit([AddLink(replace(link, signature=signature))], 0)
            self.links[link_id] = key

    @rule()
    def join_by_link(self) -> None:
        for link_id, key in self.links.items():
            self.members[1] = open_link(self.hub, link_id, key, now=99, verify=verify)

    @rule(leaf=LEAVES, answer=st.sampled_from(["set", "reject", "blank"]))
    def defer(self, leaf: int, answer: str) -> None:
        if leaf in self.model:
            return
        secret, mine = EpochSecret.generate(), LeafSecret.generate()
        deferred = DeferredLeaf.make(self.context, leaf, mine, epoch=self.epoch, epoch_secret=secret)
        self.hub.stage_deferred(deferred.to_bytes()).commit()
        self.epoch += 1
        self.joining[leaf] = secret, self.members[0].open_deferred(self.hub.deferred[0], secret)
        if answer != "set":
            self.joining.pop(leaf)
        self.commit([] if answer == "set" else [Reject(leaf) if answer == "reject" else Blank(leaf)], 0)

    @invariant()
    def all_read_the_same(self) -> None:
        if not hasattr(self, "hub"):
            return
        assert self.hub.occupied == sorted(self.model)
        for member in self.members:
            assert member.tree_hash == self.hub.tree_hash
            assert {leaf: member.secret(leaf) for leaf in member.leaves()} == self.model
            assert {name: member.room_secret(name) for name in member.room_secrets()} == self.rooms
        if self.light is not None:
            assert (
                self.light.resolve([*sorted(self.model)[:3], 4000], self.paths).items() <= self.model.items()
            )


TestRoom = Room.TestCase
TestRoom.settings = settings(max_examples=60, stateful_step_count=30, suppress_health_check=list(HealthCheck))
