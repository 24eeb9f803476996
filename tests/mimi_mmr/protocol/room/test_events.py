"""An event of a room is parsed once, into what it is, and says which epoch it belongs to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mimi_mmr.crypto.secret import WelcomeKey
from mimi_mmr.errors import InvalidCommit, MmrError, WelcomeRejected
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.room.events import (
    ApplicationEvent,
    CommitEvent,
    EventKind,
    FanoutMessage,
    TaggedMessage,
    WelcomeEvent,
    event_epoch,
)
from mimi_mmr.protocol.room.link_orders import JoinRequest
from tests.mimi_mmr.bench import RoomBench, World

WORLD = World()


@pytest.fixture(scope="module")
def events() -> dict[EventKind, bytes]:
    """One of each kind, in epoch 1 of a room or at its end."""
    bench = RoomBench(world=WORLD)
    bench.commit("alice", add=["bob"])
    sent = bench.rooms["bob"].encrypt(Content.text("hello"))
    message = ApplicationEvent(sent.app_message, sent.content.echo_tag)
    request = bench.ask(bench.make_link("alice"), "cathy")
    committed = bench.commit("bob", add=["dave"])
    return {
        EventKind.COMMIT: committed.event(EventKind.COMMIT),
        EventKind.WELCOME: committed.event(EventKind.WELCOME),
        EventKind.APPLICATION: message.to_bytes(),
        EventKind.JOIN_REQUEST: request.to_bytes(),
    }


def fanout(kind: EventKind, event: bytes) -> FanoutMessage:
    return FanoutMessage(RoomBench(world=WORLD).uri, 1, 0, kind, event)


@pytest.mark.parametrize(
    ("kind", "expected", "epoch"),
    [
        (EventKind.COMMIT, CommitEvent, 2),
        (EventKind.WELCOME, WelcomeEvent, 3),
        (EventKind.APPLICATION, TaggedMessage, 1),
        (EventKind.JOIN_REQUEST, JoinRequest, None),
    ],
)
def test_an_event_is_what_its_kind_says(
    events: dict[EventKind, bytes], kind: EventKind, expected: type, epoch: int | None
) -> None:
    event = fanout(kind, events[kind]).parsed()
    assert type(event) is expected
    assert event_epoch(event) == epoch
    if not isinstance(event, TaggedMessage):
        assert event.to_bytes() == events[kind]
    for cut in (events[kind][:-1], events[kind] + b"\0", b""):
        with pytest.raises(MmrError):
            fanout(kind, cut).parsed()
    for other in EventKind:
        if other is not kind:
            with pytest.raises(MmrError):
                fanout(other, events[kind]).parsed()


def test_events_that_wait_since_before_version_0_4_0_are_read(events: dict[EventKind, bytes]) -> None:
    """They end before the echo tag, and before the proofs: nobody's message, and a Welcome that nobody joins by."""
    message = fanout(EventKind.APPLICATION, events[EventKind.APPLICATION][:-32]).parsed()
    assert isinstance(message, TaggedMessage)
    assert message.echo_tag == bytes(32)
    whole = WelcomeEvent.from_bytes(events[EventKind.WELCOME])
    old = WelcomeEvent.from_bytes(replace(whole, proofs=()).to_bytes()[:-1])
    assert old == replace(whole, proofs=())
    with pytest.raises(WelcomeRejected, match="without a proof"):
        old.check_proof(whole.proofs[0].key_package_ref, WelcomeKey(bytes(32)))


def test_a_commit_in_place_of_a_message_is_refused_at_the_door(events: dict[EventKind, bytes]) -> None:
    commit = CommitEvent.from_bytes(events[EventKind.COMMIT]).commit
    with pytest.raises(InvalidCommit, match="expected an application message"):
        fanout(EventKind.APPLICATION, ApplicationEvent(commit, bytes(32)).to_bytes()).parsed()
