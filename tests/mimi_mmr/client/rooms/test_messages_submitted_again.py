"""A member submits another member's message again: its sender does not take its own state for an older copy."""

from __future__ import annotations

from typing import Any

from mimi_mmr.client import Client, Membership
from mimi_mmr.errors import OlderCopy
from mimi_mmr.protocol.endpoints import SUBMIT_MESSAGE
from mimi_mmr.protocol.room.events import ApplicationEvent, EventKind, FanoutMessage
from mimi_mmr.protocol.room.requests import SubmitTBS, digest, sign_submit
from tests.mimi_mmr.client.rooms.test_members_and_hubs_that_turn_bad import pair
from tests.mimi_mmr.conftest import LiveWorld, until_epoch


async def resubmit(who: Client, joined: Membership, event: ApplicationEvent, tag: bytes) -> None:
    """Any member may submit any bytes, under its own signature, with a tag of its own choice."""
    room = joined.room
    content = SubmitTBS(room.uri, room.epoch, room.own_leaf, digest(event.message), tag)
    request = sign_submit(content, event.message, room.signing_key)
    await who.path.ask(SUBMIT_MESSAGE, room.uri.domain, request, room=room.uri.name)


async def reads(client: Client, joined: Membership, count: int) -> None:
    taken = 0
    while taken < count:
        taken += await client.rooms.sync(joined, wait=5)


async def test_whoever_submits_anothers_message_again_stops_nobody(live: LiveWorld) -> None:
    alice, bob, room, at_bob = await pair(live)
    await until_epoch(bob, at_bob, room.room.epoch)
    seen: list[FanoutMessage] = []
    dispatch = bob.rooms.reading._dispatch

    def spy(rooms: Any, message: bytes, held: Any) -> None:
        seen.append(FanoutMessage.from_bytes(message))
        dispatch(rooms, message, held)

    bob.rooms.reading._dispatch = spy  # type: ignore[method-assign]
    await alice.rooms.send(room, "hello")
    await reads(bob, at_bob, 1)
    await reads(alice, room, 1)
    event = next(ApplicationEvent.from_bytes(one.event) for one in seen if one.kind is EventKind.APPLICATION)
    # Again and again in this epoch: the vault still knows that it has sent it.
    for tag in (event.echo_tag, bytes(32)):
        await resubmit(bob, at_bob, event, tag)
    await reads(alice, room, 2)
    assert not room.older_copy
    assert not room.problems
    # As a message that names Alice's leaf, and that her vault knows nothing of: only her leaf can make its tag.
    for row in list(room.sent._rows):
        del room.sent._rows[row]
    await resubmit(bob, at_bob, event, bytes(32))
    await reads(alice, room, 1)
    assert not room.older_copy
    assert "names this client's leaf as its sender, and is not by it" in room.problems[-1]
    await alice.rooms.send(room, "still here")
    # The control: such a message with the tag of Alice's leaf is what a newer copy of her vault has sent.
    for row in list(room.sent._rows):
        del room.sent._rows[row]
    await resubmit(bob, at_bob, event, event.echo_tag)
    while not room.older_copy:
        await alice.rooms.sync(room, wait=5)
    try:
        await alice.rooms.send(room, "no")
    except OlderCopy:
        await alice.rooms.heal(room)
    assert not room.older_copy
