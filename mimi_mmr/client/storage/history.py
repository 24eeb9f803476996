"""The messages of a room, numbered from 1 and kept until they are discarded; and the notices for the user."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from mimi_mmr.client.storage.records import SavedPerson
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.member.whois import Standing, Whois
from mimi_mmr.presentation import BOOL, U32, U64, Code, Maybe, Nested, Struct, Text
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.protocol.credentials import ResolvedMember
from mimi_mmr.protocol.room.policy import Role
from mimi_mmr.uris import CLIENT_PSEUDONYM, USER_PSEUDONYM, MimiUri

MAX_NOTICES = 500
_STANDINGS = list(Standing)
_MARK = b""
_NO_NUMBER = 1 << 63  # version 0.1.0 could note this as the number of the last message read


@dataclass(frozen=True, slots=True)
class Message:
    """A message in a room: its content, and its sender as this client knew them when the message arrived.

    `number` is its place in the room's history, `received` the hub's time (seconds since 1970), `own` whether this
    client sent it.
    """

    sender: Whois
    content: Content
    number: int = 0
    received: int = 0
    own: bool = False

    @property
    def text(self) -> str:
        """The text; "" for another kind of content."""
        return self.content.body.decode(errors="replace") if self.content.kind is ContentKind.TEXT else ""


@dataclass(frozen=True, slots=True)
class SavedMessage(Struct):
    """A message as the vault keeps it."""

    received: Annotated[int, U64]
    own: Annotated[bool, BOOL]
    leaf: Annotated[int, U32]
    user: Annotated[MimiUri, USER_PSEUDONYM]
    client: Annotated[MimiUri, CLIENT_PSEUDONYM]
    role: Annotated[Role, Code(Role)]
    standing: Annotated[str, Text(32)]
    person: Annotated[SavedPerson | None, Maybe(Nested(SavedPerson))]
    why: Annotated[str, Text(4096)]
    content: Content

    @classmethod
    def of(cls, message: Message) -> SavedMessage:
        """Make the stored form of a message."""
        who = message.sender
        person = SavedPerson.of(who.member.device) if who.member else None
        return cls(
            message.received,
            message.own,
            who.leaf,
            who.user,
            who.client,
            who.role,
            who.standing.value,
            person,
            who.why[:1024],
            message.content,
        )

    def message(self, number: int) -> Message:
        """Return the stored message; `number` is its place in the history."""
        member = ResolvedMember(self.user, self.person.device()) if self.person else None
        sender = Whois(
            self.leaf, self.user, self.client, self.role, Standing(self.standing), member, self.why
        )
        return Message(sender, self.content, number, self.received, self.own)


class History:
    """A room's messages. Length, iteration and `popleft` cover the unread messages of others only."""

    def __init__(self, vault: Vault, room: MimiUri) -> None:
        """Read the room's messages from the vault."""
        self._vault = vault
        self._rows = vault.table(f"messages {room}")
        self._renumber()
        self._read = int.from_bytes(self._rows.get(_MARK, b""), "big")
        # The numbers of discarded messages are not used again.
        self._last = max([self._read, *self._numbers()])
        self._unread = deque(message for message in self.since(self._read) if not message.own)

    def _renumber(self) -> None:
        """Repair the numbers that version 0.1.0 may have left.

        It could note `_NO_NUMBER` as read, and number later messages from there. They get the numbers that follow.
        """
        read = int.from_bytes(self._rows.get(_MARK, b""), "big")
        if read < _NO_NUMBER:
            return
        numbers = self._numbers()
        last = max((number for number in numbers if number < _NO_NUMBER), default=0)
        far = [number for number in numbers if number >= _NO_NUMBER]
        with self._vault.transaction():
            for place, number in enumerate(far, last + 1):
                self._rows[_key(place)] = self._rows.pop(_key(number))
            read = last + sum(number <= read for number in far)
            self._rows[_MARK] = _key(read)

    def _numbers(self) -> list[int]:
        """Return the numbers of the stored messages, in ascending order."""
        return sorted(int.from_bytes(key, "big") for key in self._rows if key != _MARK)

    def __len__(self) -> int:
        return len(self._unread)

    def __iter__(self) -> Iterator[Message]:
        return iter(self._unread)

    def __getitem__(self, place: int) -> Message:
        return self._unread[place]

    def append(self, sender: Whois, content: Content, received: int, *, own: bool = False) -> Message:
        """Add a message."""
        message = Message(sender, content, self._last + 1, received, own)
        self._rows[_key(message.number)] = SavedMessage.of(message).to_bytes()
        self._last = message.number
        if not own:
            self._unread.append(message)
        return message

    def popleft(self) -> Message:
        """Return the oldest unread message, and mark it read; `IndexError` if there is none."""
        message = self._unread[0]
        self.mark_read(message.number)
        return message

    def mark_read(self, number: int) -> None:
        """Note that all up to this number are read. A number above the last message's means the last message."""
        number = min(number, self._last)
        if number > self._read:
            self._read = number
            self._rows[_MARK] = _key(number)
        while self._unread and self._unread[0].number <= number:
            self._unread.popleft()

    def since(self, number: int) -> Iterator[Message]:
        """Return all messages after this number: the client's own, too, read or not."""
        for place in self._numbers():
            row = self._rows.get(_key(place)) if place > number else None
            if row is not None:
                yield SavedMessage.from_bytes(row).message(place)

    def get(self, number: int) -> Message | None:
        """Return one message, or None."""
        row = self._rows.get(_key(number)) if 0 < number <= self._last else None
        return SavedMessage.from_bytes(row).message(number) if row is not None else None

    def discard(self, number: int) -> None:
        """Forget all up to this number."""
        self.mark_read(number)
        with self._vault.transaction():
            for old in [old for old in self._numbers() if old <= number]:
                del self._rows[_key(old)]


def _key(number: int) -> bytes:
    return number.to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class Notice(Struct):
    """Something that happened without the user's request; `when` in seconds since 1970."""

    when: Annotated[int, U64]
    text: Annotated[str, Text(4096)]


class Notices:
    """The newest notices, oldest first, kept in the vault until they are taken."""

    def __init__(self, vault: Vault) -> None:
        """Read what the vault has."""
        self._rows = vault.table("notices")
        self._next = max((int.from_bytes(key, "big") for key in self._rows), default=0) + 1

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Notice]:
        return iter([Notice.from_bytes(row) for row in self._rows.values()])

    def add(self, text: str, now: float) -> None:
        """Add a notice; drop the oldest when there are too many."""
        self._rows[_key(self._next)] = Notice(int(now), text[:1024]).to_bytes()
        self._next += 1
        while len(self._rows) > MAX_NOTICES:
            del self._rows[next(iter(self._rows))]

    def numbered(self) -> list[tuple[int, Notice]]:
        """Return all notices with their numbers, for `discard` once a person has seen them."""
        return [(int.from_bytes(key, "big"), Notice.from_bytes(row)) for key, row in self._rows.items()]

    def discard(self, number: int) -> None:
        """Delete all up to this number."""
        for key in [key for key in self._rows if int.from_bytes(key, "big") <= number]:
            del self._rows[key]

    def take(self) -> list[Notice]:
        """Return all notices, and delete them."""
        found = list(self)
        self.discard(self._next)
        return found
