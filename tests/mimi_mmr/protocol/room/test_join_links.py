"""Join links: from a member's wish to somebody's first message in the room."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimi_mmr.errors import InvalidUri, JoinRefused, NotAllowed
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.key_packages import NamelessKeyPackage
from mimi_mmr.protocol.room.join_links import (
    Joiner,
    JoinLink,
    LinkSeed,
    LiveLink,
    make_join_request,
    open_join_request,
)
from mimi_mmr.protocol.room.link_orders import MAX_USES, LinkKind
from mimi_mmr.protocol.room.policy import Identities, Role
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.bench import DAY, HUB, RoomBench, World, next_policy

WORLD = World()
ROOM = MimiUri(HUB, Kind.ROOM, "room")
LINK = JoinLink(ROOM, Identities.EVERYONE, LinkSeed(bytes(range(32))))


@pytest.fixture
def bench() -> RoomBench:
    bench = RoomBench(world=WORLD)
    bench.commit("alice", add=["bob"])
    return bench


# --- the link itself ---------------------------------------------------------------------------------


def test_a_link_is_a_uri() -> None:
    text = "mimi-join:mimi://a.example/r/room?l=AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
    assert str(LINK) == LINK.uri == text
    assert JoinLink.parse(text) == LINK


@given(st.binary(min_size=32, max_size=32), st.sampled_from(Identities))
def test_every_link_comes_back(seed: bytes, identities: Identities) -> None:
    link = JoinLink(ROOM, identities, LinkSeed(seed))
    assert JoinLink.parse(link.uri) == link


def encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mimi-join:",
        str(ROOM),
        LINK.uri.upper(),
        LINK.uri.replace("mimi-join:", "mimi-connect:"),
        LINK.uri.replace("/r/", "/u/"),
        LINK.uri.replace("?l=", "?x="),
        LINK.uri + "&l=x",
        LINK.uri + "A",
        LINK.uri + "====",
        LINK.uri + " ",
        LINK.uri[:-1],
        LINK.uri[:-4],
        LINK.uri.replace("BAgM", "B/gM"),
        LINK.uri.replace("BAgM", "Bäg"),
        f"mimi-join:{ROOM}?l={encoded(bytes([9]) + bytes(32))}",
        f"mimi-join:{ROOM}?l={encoded(bytes([1]) + bytes(31))}",
        f"mimi-join:{ROOM}?l={encoded(bytes([1]) + bytes(33))}",
        f"mimi-join:{ROOM}?l=",
        "mimi-join:mimi://a/r/room?l=" + LINK.uri.partition("=")[2],
    ],
)
def test_what_is_no_link_is_refused(text: str) -> None:
    with pytest.raises(InvalidUri) as refusal:
        JoinLink.parse(text)
    assert LINK.uri.partition("=")[2] not in str(refusal.value)


def test_a_link_hides_its_seed_but_where_it_is_asked_for() -> None:
    live = LiveLink(bytes(range(32)), MimiUri(HUB, Kind.CLIENT_PSEUDONYM, "c"), 5, 1)
    for shown in (repr(LINK), repr(live)):
        assert "x1f" not in shown
        assert LINK.uri.partition("=")[2] not in shown


def test_another_room_or_way_of_showing_names_gives_other_keys() -> None:
    links = [
        LINK,
        replace(LINK, room=replace(ROOM, name="other")),
        replace(LINK, identities=Identities.NOBODY),
    ]
    links.append(replace(LINK, seed=LinkSeed(bytes(32))))
    assert len({link.id for link in links}) == 4
    assert len({link.signing_key.public for link in links}) == 4
    assert len({link.sealing_key.public.public_key for link in links}) == 4


# --- the way in --------------------------------------------------------------------------------------


def test_somebody_with_a_link_comes_in(bench: RoomBench) -> None:
    link = bench.make_link("bob")
    assert [one.uses_left for one in bench.rooms["alice"].members_only.state.links] == [3]
    event = bench.knock(bench.ask(JoinLink.parse(link.uri), "erin"))
    done = bench.let_in("alice", event, "erin")
    assert done.followed["bob"].problems == ()
    bench.check_agreement()
    assert [one.uses_left for one in bench.rooms["erin"].members_only.state.links] == [2]
    sent = bench.rooms["erin"].encrypt(Content.text("hello")).app_message
    assert bench.read("bob", sent)[1].body == b"hello"


def test_any_member_who_may_add_lets_them_in_also_after_a_restart(bench: RoomBench) -> None:
    link = bench.make_link("alice")
    event = bench.knock(bench.ask(link, "erin"))
    bench.restart("bob")
    bench.let_in("bob", event, "erin")
    bench.check_agreement()


def test_all_devices_of_one_user_come_in_at_once(bench: RoomBench) -> None:
    link = bench.make_link("alice")
    bench.person("erin")
    bench.set_keys["erin"] = bench.set_keys.get("erin") or bench.set_keys["alice"].__class__.generate()
    bench.device_of("erin-laptop", "erin")
    event = bench.knock(bench.ask(link, "erin", "erin-laptop"))
    bench.let_in("bob", event, "erin", "erin-laptop")
    bench.check_agreement()
    assert bench.pseudonym("erin") == bench.pseudonym("erin-laptop")
    assert [one.uses_left for one in bench.rooms["bob"].members_only.state.links] == [2]


@pytest.mark.parametrize("identities", [Identities.NOBODY, Identities.ADMINS_ONLY])
def test_where_names_are_hidden_a_newcomer_gives_none_away(identities: Identities) -> None:
    bench = RoomBench(world=WORLD, identities=identities)
    bench.commit("alice", add=["bob"])
    link = bench.make_link("alice")
    assert link.identities is identities
    event = bench.knock(bench.ask(link, "erin"))
    (package,) = bench.rooms["bob"].join_links.open_request(event, bench.now)
    assert isinstance(package, NamelessKeyPackage)
    ilk = bench.leaves["erin"].ilk
    assert ilk.reveal() not in package.to_bytes()
    assert package.welcome_key == bench.packages["erin"].welcome_key
    bench.let_in("bob", event, "erin")
    bench.check_agreement()
    bench.commit("erin", reveal=True)
    bench.revealed.add("erin")
    bench.check_agreement()


def test_a_link_is_used_up(bench: RoomBench) -> None:
    link = bench.make_link("alice", uses=2)
    for name in ("erin", "frank"):
        bench.let_in("bob", bench.knock(bench.ask(link, name)), name)
    assert bench.rooms["bob"].members_only.state.links == ()
    with pytest.raises(JoinRefused):
        bench.knock(bench.ask(link, "gwen"))
    bench.check_agreement()


def test_expired_links_make_way_for_new_ones(bench: RoomBench) -> None:
    bench.make_link("alice", lifetime=DAY)
    room = bench.rooms["bob"]
    live = room.join_links.make(int(bench.now) + 3 * DAY, 1)
    assert room.members_only.state.with_link(live, bench.now).links[1:] == (live,)
    assert room.members_only.state.with_link(live, bench.now + DAY).links == (live,)


def test_a_link_is_revoked_by_whoever_may_add(bench: RoomBench) -> None:
    link = bench.make_link("alice")
    room = bench.rooms["bob"]
    (live,) = room.members_only.state.links
    bench.commit("bob", state=replace(room.members_only.state, links=()))
    bench.take_order(room.join_links.order(live, LinkKind.REVOKE))
    with pytest.raises(JoinRefused):
        bench.knock(bench.ask(link, "erin"))
    bench.check_agreement()


def test_a_removal_ends_every_link(bench: RoomBench) -> None:
    links = [bench.make_link("alice"), bench.make_link("bob")]
    early = bench.knock(bench.ask(links[1], "erin"))
    bench.commit("alice", remove=["bob"])
    assert bench.rooms["alice"].members_only.state.links == ()
    for link in links:
        with pytest.raises(JoinRefused):
            bench.knock(bench.ask(link, "frank"))
    with pytest.raises(JoinRefused, match="none of the room's links"):
        bench.rooms["alice"].join_links.open_request(early, bench.now)


def test_only_those_who_may_add_make_links(bench: RoomBench) -> None:
    bench.commit("alice", policy=next_policy(bench.state.policy, may_add=Role.ADMIN))
    with pytest.raises(NotAllowed, match="adding needs the role ADMIN"):
        bench.rooms["bob"].join_links.make(int(bench.now) + DAY, 1)
    for uses in (0, MAX_USES + 1):
        with pytest.raises(NotAllowed, match="uses"):
            bench.rooms["alice"].join_links.make(int(bench.now) + DAY, uses)
    bench.make_link("alice")


def test_a_request_has_a_bucket_for_its_length_and_a_bound(bench: RoomBench) -> None:
    link = bench.make_link("alice")
    sizes = {len(bench.ask(link, name).content.box.ciphertext) for name in ("erin", "bartholomew", "x")}
    assert len(sizes) == 1
    package = bench.package("erin")
    with pytest.raises(ValueError, match="packages"):
        make_join_request(link, [package] * 33)
    box = link.sealing_key.public.seal("join request", link.id, b"")
    with pytest.raises(JoinRefused):
        open_join_request(link, box)
    nobody = make_join_request(link, [])
    with pytest.raises(JoinRefused, match="no KeyPackage"):
        open_join_request(link, nobody.content.box)
    assert Joiner((package,)).to_bytes()
