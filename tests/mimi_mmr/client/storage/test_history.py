"""The numbers of a room's messages and of notices: what is marked, what is listed, and what an old vault holds."""

from __future__ import annotations

import pytest

from mimi_mmr.client.storage.history import History, Notices
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.member.whois import Standing, Whois
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.room.policy import Role
from mimi_mmr.uris import Kind, random_uri

ROOM = random_uri("a.example", Kind.ROOM, bytes(16))
WHO = Whois(
    0,
    random_uri("a.example", Kind.USER_PSEUDONYM, bytes(16)),
    random_uri("a.example", Kind.CLIENT_PSEUDONYM, bytes(16)),
    Role.MEMBER,
    Standing.HIDDEN,
)
FAR = 1 << 63


def texts(history: History, after: int = 0) -> list[tuple[int, str]]:
    return [(message.number, message.text) for message in history.since(after)]


def filled(vault: Vault, *said: str) -> History:
    history = History(vault, ROOM)
    for text in said:
        history.append(WHO, Content.text(text), 1)
    return history


def test_a_mark_beyond_the_last_message_makes_no_numbers_that_a_list_has_to_walk_through() -> None:
    vault = Vault.in_memory()
    filled(vault, "one", "two").mark_read(FAR)
    history = History(vault, ROOM)
    assert history.append(WHO, Content.text("three"), 1).number == 3
    history.mark_read(3)
    assert texts(History(vault, ROOM)) == [(1, "one"), (2, "two"), (3, "three")]
    assert history.get(10**30) is None


@pytest.mark.parametrize("read", [FAR, FAR + 1])
def test_numbers_that_version_0_left_after_all_was_read_are_repaired_when_a_room_is_opened(read: int) -> None:
    vault = Vault.in_memory()
    filled(vault, "one", "two")
    rows = vault.table(f"messages {ROOM}")
    for place, text in enumerate(("three", "four"), FAR + 1):  # as that version numbered them
        filled(other := Vault.in_memory(), text)
        rows[place.to_bytes(8, "big")] = other.table(f"messages {ROOM}")[(1).to_bytes(8, "big")]
    rows[b""] = read.to_bytes(8, "big")

    for _ in range(2):
        history = History(vault, ROOM)
        assert texts(history) == [(1, "one"), (2, "two"), (3, "three"), (4, "four")]
        unread = [message.text for message in history]
        assert unread == (["three", "four"] if read == FAR else ["four"])
    assert history.append(WHO, Content.text("five"), 1).number == 5


def test_a_notice_stays_until_it_was_seen() -> None:
    notices = Notices(vault := Vault.in_memory())
    for text in ("one", "two", "three"):
        notices.add(text, 1)
    (_, (seen, _), _) = notices.numbered()
    assert len(notices) == 3
    notices.discard(seen)
    assert [notice.text for notice in Notices(vault)] == ["three"]
