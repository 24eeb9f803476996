"""The making and checking of departures: a member's signed request to be removed by the others."""

from __future__ import annotations

from mimi_mmr.errors import InvalidCommit, RoomError
from mimi_mmr.member.local import LocalRoom
from mimi_mmr.protocol.room.departures import Departure, departed, sign_departure


def own_departure(local: LocalRoom) -> Departure:
    """Sign this member's own departure."""
    return sign_departure(local.uri, local.leaf.identity.credential.client_pseudonym, local.leaf.key)


def departing_leaf(local: LocalRoom, departure: Departure) -> int:
    """Return the leaf that a departure removes; raise `RoomError` if it is no other member's, or badly signed."""
    leaf = local.members.by_client.get(departure.content.client_pseudonym)
    try:
        departed(local.uri, [departure], local.members.leavers([] if leaf is None else [leaf]))
    except InvalidCommit as error:
        raise RoomError(f"the departure does not hold: {error}") from None
    if leaf is None or leaf == local.group.own_leaf:
        raise RoomError("nobody removes itself: another member answers one's own departure")
    return leaf
