"""Whatever others name their rooms and themselves: a text that a person types leads to what the person means."""

from __future__ import annotations

import pytest

from mimi_mmr.app.cli.terminal import with_addresses
from mimi_mmr.app.commands.completion import RoomNames
from mimi_mmr.app.commands.context import AgentContext, Say
from mimi_mmr.app.commands.errors import Ambiguous, BadRequest, NotFound
from mimi_mmr.app.commands.member import _leaves
from mimi_mmr.app.commands.names import find_contact, find_room, find_user, parse_user, people_rooms
from mimi_mmr.app.commands.pasted import is_reference, quoted, unwrapped
from mimi_mmr.app.commands.table import COMMANDS
from mimi_mmr.client import Client
from mimi_mmr.errors import InvalidUri
from mimi_mmr.member.whois import Standing, Whois
from mimi_mmr.protocol.connections import ContactCode
from mimi_mmr.protocol.credentials import ResolvedMember, VerifiedDevice
from mimi_mmr.protocol.room.join_links import JoinLink, LinkSeed
from mimi_mmr.protocol.room.policy import Identities, Role
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.conftest import LiveWorld, connect

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


class Named:
    """An agent whose completion is asked for."""

    def __init__(self, client: Client) -> None:
        self.client = client


async def offered(client: Client) -> list[str]:
    agent: AgentContext = Named(client)  # type: ignore[assignment]
    say: Say = None  # type: ignore[assignment]
    return await RoomNames().run(agent, say)


async def test_a_rooms_name_never_wins_over_another_rooms_id_or_a_person(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, _ = await connect(alice, bob)
    assert to_bob.room is not None
    meant, other = await alice.rooms.create(), await alice.rooms.create()
    short = meant.uri.name[:8]
    for name in (short, short.upper(), short[:4], meant.uri.name):
        await alice.rooms.rename(other, name)  # as any member can
        if is_reference(name):
            assert find_room(alice, name) is meant
        else:
            with pytest.raises(Ambiguous, match=f"{short}.*{other.uri.name[:8]}.*use the id"):
                find_room(alice, name)
        assert name not in set(await offered(alice)) - {short}
    await alice.rooms.rename(other, str(meant.uri))
    assert find_room(alice, str(meant.uri)) is meant
    for name in ("bob@b.example", "mimi://b.example/u/bob"):
        await alice.rooms.rename(other, name)
        assert find_room(alice, name).uri == to_bob.room
    await alice.rooms.rename(other, "bob")
    with pytest.raises(Ambiguous):
        find_room(alice, "bob")
    to_bob.room = None  # a contact without a direct room
    with pytest.raises(Ambiguous, match=r"bob@b\.example"):
        find_room(alice, "bob")
    assert "bob" not in await offered(alice)
    await alice.rooms.forget(meant)
    for name in (short, meant.uri.name, str(meant.uri), "carol@c.example", "mimi-join:x"):
        await alice.rooms.rename(other, name)  # of what is known here no more
        with pytest.raises(NotFound, match="names that look like these are not used"):
            find_room(alice, name)

    with pytest.raises(NotFound) as caught:
        find_room(alice, meant.uri.name[:2])
    assert "at least 4 letters of an id" in caught.value.hint

    await alice.rooms.rename(other, DECOMPOSED)
    for text in (COMPOSED, DECOMPOSED, f" {COMPOSED}\n"):
        assert find_room(alice, text) is other
    assert COMPOSED in await offered(alice)
    assert find_room(alice, f" <{str(other.uri).replace('mimi', 'MIMI')}>\n") is other
    assert find_room(alice, other.uri.name[:8].upper()) is other


async def test_a_room_that_was_left_is_not_listed_and_has_its_id_only(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    await connect(alice, bob)
    (room,), (at_bob,) = people_rooms(alice), people_rooms(bob)
    await alice.rooms.rename(room, "friends")
    await alice.rooms.make_admin(room, at_bob.pseudonym)
    await alice.rooms.leave(room)
    assert room.left
    assert people_rooms(alice) == []
    assert find_room(alice, room.uri.name[:8]) is room
    with pytest.raises(NotFound):
        find_room(alice, "friends")
    await alice.tend()
    again = live.restarted(alice)
    assert people_rooms(again) == []
    while len(at_bob.room.members.identities) > 1:
        await bob.rooms.sync(at_bob, wait=5)
        await bob.tend()
    while not again.rooms[room.uri].removed:
        await again.rooms.sync(again.rooms[room.uri], wait=5)
    assert people_rooms(again) == []
    assert people_rooms(bob) == [at_bob]


@pytest.mark.parametrize("command", ["room.create", "room.rename"])
def test_a_room_gets_no_name_that_looks_like_an_id_or_an_address(command: str) -> None:
    given = {"room": "x"} if command == "room.rename" else {}
    for name in ("fef7b529", "FEF7B529", " mimi://a.example/r/x", "Mimi-Join:x", "bob@b.example"):
        with pytest.raises(BadRequest, match="can't be mistaken"):
            COMMANDS[command].from_request(given | {"name": name})
    made = COMMANDS[command].from_request(given | {"name": f" {DECOMPOSED} "})
    assert made.to_request()["name"] == COMPOSED
    for name in ("café", "2024", "12 monkeys", "team@work", "fef7b52", "dead beef"):
        COMMANDS[command].from_request(given | {"name": name})


async def test_an_error_about_a_name_says_which_name_was_typed(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    with pytest.raises(NotFound, match='no room has the name or id "freinds"'):
        find_room(alice, " freinds\n")
    with pytest.raises(NotFound, match=r'contact "zed@b\.example", and names'):
        find_room(alice, "zed@b.example")
    with pytest.raises(NotFound, match='no contact is called "robert"'):
        find_contact(alice, "robert")
    with pytest.raises(NotFound, match='pseudonym or leaf "carol"'):
        _leaves([member(0, "alice")], "carol")


def test_an_example_in_an_error_is_not_shown_as_somebodys_address() -> None:
    with pytest.raises(InvalidUri) as caught:
        parse_user("bob")
    assert with_addresses(str(caught.value)) == str(caught.value)


def test_an_error_about_a_name_quotes_no_secret_and_no_book() -> None:
    link = str(JoinLink(ROOM, Identities.EVERYONE, LinkSeed(bytes(range(32)))))
    assert quoted(link) == f'"{link[:40]}…"'
    assert "?l=" not in quoted(link)


async def test_somebody_who_was_asked_and_has_not_answered_is_no_unknown_name(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    await alice.people.request_connection(bob.contact_code)
    with pytest.raises(NotFound, match=r"^bob@b\.example was asked to connect and has not accepted yet"):
        find_contact(alice, "bob")


async def test_a_room_is_found_by_its_name_as_it_is_shown(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    room = await alice.rooms.create(name="two\n  lines")  # as another client may name it
    assert find_room(alice, "two lines") is room


def member(leaf: int, name: str | None, domain: str = "a.example") -> Whois:
    pseudonym = MimiUri(domain, Kind.USER_PSEUDONYM, f"p{leaf}")
    client = MimiUri(domain, Kind.CLIENT_PSEUDONYM, f"c{leaf}")
    if name is None:
        return Whois(leaf, pseudonym, client, Role.MEMBER, Standing.HIDDEN)
    user = MimiUri(domain, Kind.USER, name)
    device = VerifiedDevice(user, MimiUri(domain, Kind.DEVICE, "phone"), b"", b"")
    return Whois(leaf, pseudonym, client, Role.MEMBER, Standing.VERIFIED, ResolvedMember(pseudonym, device))


def test_a_members_name_is_not_another_ones_leaf_or_name() -> None:
    members = [member(0, "alice"), member(1, "2"), member(2, None), member(3, "bob"), member(4, "bob")]
    members.append(member(5, "bob", "b.example"))
    for text in ("2", "bob"):
        with pytest.raises(Ambiguous, match="several members"):
            _leaves(members, text)
    assert _leaves(members, "1") == [1]
    assert _leaves(members, " bob@a.example") == [3, 4]
    assert _leaves(members, "mimi://b.example/u/bob") == [5]
    assert _leaves(members, "mimi://a.example/p/p2") == [2]
    with pytest.raises(NotFound):
        _leaves(members, "carol")


def test_people_have_no_ids_to_be_told_apart_by() -> None:
    users = [MimiUri(domain, Kind.USER, "bob") for domain in ("a.example", "b.example")]
    with pytest.raises(Ambiguous, match=r"bob@a\.example, bob@b\.example; use one of these whole names"):
        find_user(users, "bob", "contact")
    assert find_user(users, "<bob@b.example>", "contact") == users[1]


# --- what is pasted -----------------------------------------------------------------------------------

ROOM = MimiUri("a.example", Kind.ROOM, "01234567-89ab-4def-8123-456789abcdef")
LINK = f"mimi-join:{ROOM}?l=AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
CODE = str(ContactCode(MimiUri("b.example", Kind.USER, "bob"), bytes(range(32))))
AROUND = [
    "{}",
    " {}",
    "{}\n",
    "\t{}\r\n",
    "<{}>",
    '"{}"',
    "'{}' ",
    "“{}”",
    "„{}“",
    "«\xa0{}\xa0»",
    "`{}`",
    "(<{}>)",
    "\ufeff{}\u200b",
]


@pytest.mark.parametrize("around", AROUND)
def test_a_code_survives_what_is_around_it(around: str) -> None:
    for text in (LINK, CODE, str(ROOM), "bob@b.example"):
        assert unwrapped(around.format(text)) == text
        scheme, colon, rest = text.partition(":")
        assert unwrapped(around.format(scheme.upper() + colon + rest)) == (text if colon else text.upper())
        if colon:  # folded by a mail program
            assert unwrapped(around.format(f"{text[:30]}\r\n {text[30:40]}\n\t{text[40:]}")) == text
    assert JoinLink.parse(unwrapped(around.format(LINK))).identities is Identities(1)
    assert parse_user(around.format("mimi://b.example/u/bob")).name == "bob"


@pytest.mark.parametrize("wrong", ["{}x", "x{}", "{}.", "{}%20"])
def test_a_code_that_was_altered_is_refused(wrong: str) -> None:
    with pytest.raises(InvalidUri):
        JoinLink.parse(unwrapped(wrong.format(LINK)))
    with pytest.raises(InvalidUri):
        ContactCode.parse(unwrapped(wrong.format(CODE)))
    with pytest.raises(InvalidUri):
        JoinLink.parse(unwrapped(LINK[:-1]))
    with pytest.raises(InvalidUri):
        ContactCode.parse(unwrapped(CODE[:-1]))
