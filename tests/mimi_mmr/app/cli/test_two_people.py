"""Two people, two terminals: from an account to a room, with agents that are killed on the way."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from mimi_mmr.app.agent.home import Home
from tests.mimi_mmr.app.cli.people import PASSPHRASE, Person, befriend, people, until
from tests.mimi_mmr.app.cli.test_the_readme import documented
from tests.mimi_mmr.conftest import LiveWorld

ROOM, MEMBER, CONTACT = (
    documented("`room create`"),
    documented("each of these three"),
    documented("`contact accept`"),
)
MESSAGE, STATUS = documented("`room read`") - {"asset"}, documented("`status`")


@pytest.mark.nightly  # a minute of commands, each a process
async def test_from_an_account_to_a_room(live: LiveWorld, tmp_path: Path) -> None:
    async with people(live, tmp_path, alice="a.example", bob="b.example") as (alice, bob):
        shown = await alice.ask("account", "show")
        assert set(shown) == documented("`account show`")
        assert (shown["user"], shown["device"]) == ("mimi://a.example/u/alice", "phone")
        code = (await bob.ask("contact", "code"))["code"]
        out = await alice.ask("contact", "add", code)
        assert set(out) == documented("`contact add`")
        assert out["pinned"] is True
        (incoming,) = await bob.ask("contact", "requests")
        assert set(incoming) == documented("`contact requests`")
        await bob.kill()  # the request is with the provider, its key in the state
        await alice.kill()
        accepted = await bob.ask("contact", "accept", "alice@a.example")
        assert set(accepted) == CONTACT
        for person, standing in ((alice, "pinned"), (bob, "first-use")):
            found = await until(
                person,
                "connected",
                "contact",
                "list",
                wanted=lambda found: found["contacts"] and found["contacts"][0]["ready"],
            )
            assert set(found) == documented("`contact list`")
            assert set(found["contacts"][0]) == CONTACT
            assert found["contacts"][0]["standing"] == standing

        room = await alice.ask("room", "create", "--name", "friends")
        assert set(room) == ROOM
        assert (room["name"], room["kind"], room["role"], room["members"]) == ("friends", "room", "admin", 1)
        await alice.ask("room", "add", "friends", "bob")
        await alice.ask("room", "send", "friends", "hello bob")
        (message,) = await bob.lines("room", "read", "friends", "--wait", "60")
        assert set(message) == MESSAGE
        assert set(message["from"]) == {"user", "pseudonym", "standing"}
        assert (message["text"], message["from"]["user"]) == ("hello bob", "mimi://a.example/u/alice")
        assert message["from"]["standing"] == "verified"

        await alice.kill()
        await bob.ask("room", "send", room["id"], "two\nlines")  # by its id, while she is away
        assert await alice.read(room["room"]) == ["two\nlines"]
        assert await bob.lines("room", "read", "friends") == []
        assert [message["own"] for message in await bob.lines("room", "read", "friends", "--all")] == [
            False,
            True,
        ]

        who = await bob.ask("room", "who", "friends")
        assert set(who) == documented("`room who`")
        assert {member["user"] for member in who["verified"]} == {
            "mimi://a.example/u/alice",
            "mimi://b.example/u/bob",
        }
        assert all(set(member) == MEMBER for member in who["verified"])

        await alice.ask("room", "rename", "friends", "enemies")
        await until(
            bob, "renamed", "room", "list", wanted=lambda rooms: "enemies" in {r["name"] for r in rooms}
        )
        assert set(await alice.ask("room", "heal", "enemies")) == ROOM
        await alice.ask("room", "remove", "enemies", "bob")
        rooms = await until(
            bob, "removed", "room", "list", wanted=lambda rooms: "removed" in {r["state"] for r in rooms}
        )
        assert {view["kind"] for view in rooms} == {"room", "direct"}
        assert (await bob.ask("room", "leave", "enemies"))["forgotten"] is True
        assert set(await bob.ask("status")) == STATUS


async def test_a_direct_room_is_called_by_the_contact(live: LiveWorld, tmp_path: Path) -> None:
    async with people(live, tmp_path, alice="a.example", bob="b.example") as (alice, bob):
        await befriend(alice, bob)
        await alice.ask("room", "send", "bob", "just us")
        assert await bob.read("alice@a.example") == ["just us"]
        done = await bob.run("room", "list")  # piped: values with tabs between, no heading
        (row,) = done.out.splitlines()
        assert row.split("\t")[1:4] == ["alice@a.example", "direct", "2"]


async def test_refused_cancelled_blocked(live: LiveWorld, tmp_path: Path) -> None:
    async with people(live, tmp_path, alice="a.example", bob="b.example") as (alice, bob):
        done = await alice.run("contact", "add", "bob@b.example")
        assert done.status == 2
        assert "--pinless" in done.err
        asked = await alice.ask("contact", "add", "bob@b.example", "--pinless")
        assert asked["pinned"] is False
        await alice.ask("contact", "cancel", "bob")
        assert (await alice.ask("contact", "list"))["requests_out"] == []
        await until(bob, "cancelled", "contact", "requests", wanted=lambda found: found == [])
        await alice.ask("contact", "add", "mimi://b.example/u/bob", "--pinless")
        await until(bob, "asked", "contact", "requests", wanted=lambda found: len(found) == 1)
        await bob.ask("contact", "refuse", "alice")
        assert await bob.ask("contact", "requests") == []
        assert (await bob.ask("contact", "only-contacts", "on"))["only_contacts"] is True
        await alice.ask("contact", "cancel", "bob")
        await bob.ask("contact", "only-contacts", "off")
        await befriend(alice, bob)
        blocked = await bob.ask("contact", "block", "alice")
        assert (blocked["blocked"], blocked["room"], blocked["ready"]) == (True, None, False)
        await bob.ask("room", "create", "--name", "friends")
        done = await bob.run("room", "add", "friends", "alice")
        assert done.status == 1  # refused: neither the state nor the agent is to blame
        assert "alice@a.example is blocked" in done.err
        assert (await bob.ask("contact", "unblock", "alice"))["blocked"] is False
        done = await bob.run("room", "add", "friends", "alice", "--json")
        assert (done.status, "contact add" in done.error["hint"]) == (1, True), done
        assert "not connected: mimi-mmr contact add" in (await bob.run("contact", "list")).out


async def test_a_file_from_one_to_the_other(live: LiveWorld, tmp_path: Path) -> None:
    async with people(live, tmp_path, alice="a.example", bob="b.example") as (alice, bob):
        await befriend(alice, bob)
        sent = tmp_path / "letter.txt"
        sent.write_bytes(b"dear bob" * 1000)
        put = await alice.ask("asset", "put", "bob", str(sent))
        assert (put["name"], put["size"]) == ("letter.txt", 8000)
        (message,) = await bob.lines("room", "read", "alice", "--wait", "60")
        assert message["asset"] == {"name": "letter.txt", "size": 8000}
        (tmp_path / "in").mkdir()
        got = await bob.ask("asset", "get", "alice", str(message["number"]), "--out", str(tmp_path / "in"))
        taken = tmp_path / "in" / "letter.txt"
        assert got["file"] == str(taken)
        assert taken.read_bytes() == sent.read_bytes()
        assert taken.stat().st_mode & 0o777 == 0o600
        again = await bob.run("asset", "get", "alice", str(message["number"]), "--out", str(tmp_path / "in"))
        assert again.status == 2
        assert "nothing is overwritten" in again.err
        assert (await bob.run("asset", "get", "alice", "999")).status == 3


@pytest.mark.nightly  # a minute of commands, each a process
async def test_a_further_device(live: LiveWorld, tmp_path: Path) -> None:
    async with people(live, tmp_path, alice="a.example", bob="b.example") as (alice, bob):
        await befriend(alice, bob)
        await alice.ask("room", "create", "--name", "friends")
        added = (await alice.ask("room", "add", "friends", "bob"))["added"]
        again = (await alice.ask("room", "add", "friends", "bob"))["added"]
        assert (added, again) == (["mimi://b.example/u/bob"], [])
        second = Person("bob", "b.example", tmp_path / "second", live)
        try:
            mistyped = await second.run(
                *("device", "join", "bob", "--code", "MISTYPED", "--json"), *second.opening()
            )
            assert (mistyped.status, mistyped.error["code"]) == (2, "invalid-uri")
            assert not second.home.exists()
            adding = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "mimi_mmr", "device", "add", "--json", "--home", str(bob.home)),
                stdout=PIPE,
            )
            assert adding.stdout is not None
            shown = json.loads(await adding.stdout.readline())
            joined = await second.ask(
                *("device", "join", "bob", "--code", shown["code"], "--device", "tablet"), *second.opening()
            )
            assert (joined["user"], joined["device"]) == ("mimi://b.example/u/bob", "tablet")
            assert json.loads(await adding.stdout.readline()) == {"device": "tablet"}
            assert await adding.wait() == 0
            listed = await bob.ask("device", "list")
            assert listed == [{"device": "phone", "own": True}, {"device": "tablet", "own": False}]
            await until(
                second,
                "in",
                "room",
                "list",
                wanted=lambda rooms: "friends" in {room["name"] for room in rooms},
            )
            await alice.ask("room", "send", "friends", "to both")
            assert await second.read("friends") == ["to both"]
            assert await bob.read("friends") == ["to both"]
            done = await bob.run("device", "remove", "tabelt", "--json")
            assert (done.status, done.error["code"]) == (3, "unknown-device")
            await bob.ask("device", "remove", "tablet")
            assert [entry["device"] for entry in await bob.ask("device", "list")] == ["phone"]
        finally:
            second.reap()


@pytest.mark.nightly  # a minute of commands, each a process
async def test_another_passphrase_and_the_end(live: LiveWorld, tmp_path: Path) -> None:
    async with people(live, tmp_path, alice="a.example") as (alice,):
        new = tmp_path / "new"
        new.write_text("another one\n")
        new.chmod(0o600)
        await alice.ask("account", "passphrase", "--new-passphrase-file", str(new))
        await alice.ask("agent", "stop")
        done = await alice.run("account", "show")
        assert (done.status, done.out) == (4, "")
        assert "wrong passphrase" in done.err
        assert PASSPHRASE not in done.err
        done = await alice.run("account", "show", "--json", "--passphrase-file", str(new))
        assert done.status == 0
        done = await alice.run("account", "delete", "--yes", "--json")
        assert done.json == {"user": "mimi://a.example/u/alice", "problems": []}
        assert not Home(alice.home).state.exists()
        done = await alice.run("account", "show", "--json")
        assert (done.status, done.error["code"]) == (4, "no-account")
        done = await alice.run("account", "create", "alice", *alice.opening(), "--json")
        assert done.status == 1  # its name stays taken
        assert not Home(alice.home).state.exists()


async def test_what_is_meant_has_to_be_clear(live: LiveWorld, tmp_path: Path) -> None:
    async with people(live, tmp_path, alice="a.example") as (alice,):
        one = await alice.ask("room", "create", "--name", "twin")
        two = await alice.ask("room", "create", "--name", "twin")
        done = await alice.run("room", "send", "twin", "to whom?")
        assert done.status == 3
        assert all(view["id"] in done.err for view in (one, two))
        done = await alice.run("room", "who", "nowhere", "--json")
        assert (done.status, done.error["code"]) == (3, "not-found")
        assert "room list" in done.error["hint"]
        assert "mimi-mmr" not in done.error["message"]
        for noun, verb, text, taken_by in (
            ("contact", "add", "mimi-join:x", "room join"),
            ("room", "join", "MIMI-connect:x", "contact add"),
        ):
            done = await alice.run(noun, verb, text, "--json")
            assert (done.status, done.error["code"]) == (2, "invalid-uri")
            assert taken_by in done.error["hint"]
        await alice.ask("room", "send", one["id"], "to this one")


@pytest.mark.parametrize(("arguments", "status"), [(("room", "nonsense"), 2), (("room", "send"), 2)])
async def test_usage_errors_end_with_2(tmp_path: Path, arguments: tuple[str, ...], status: int) -> None:
    assert (await Person("x", "x.example", tmp_path / "home").run(*arguments)).status == status


async def test_a_link_lets_somebody_in_who_is_no_contact(live: LiveWorld, tmp_path: Path) -> None:
    async with people(live, tmp_path, alice="a.example", bob="b.example") as (alice, bob):
        await alice.ask("room", "create", "--name", "open house")
        made = await alice.ask("room", "link", "open house", "--uses", "1", "--expires", "1d")
        assert set(made) == documented("`room link`")
        joined = await bob.ask("room", "join", f" <{made['link'].replace('mimi-join', 'MIMI-Join')}>\n")
        assert set(joined) == ROOM
        assert joined["name"] == "open house"
        await bob.ask("room", "send", "open house", "let me in, please: thanks")
        assert await alice.read("open house") == ["let me in, please: thanks"]
        assert set(await alice.ask("room", "link", "open house", "--revoke")) == {"room"}
        assert (await alice.run("room", "link", "open house", "--expires", "soon")).status == 2


async def test_names_that_are_hidden_until_they_are_shown(live: LiveWorld, tmp_path: Path) -> None:
    async with people(live, tmp_path, alice="a.example", bob="b.example") as (alice, bob):
        await befriend(alice, bob)
        room = await alice.ask("room", "create", "--name", "masks", "--identities", "nobody")
        assert room["identities"] == "nobody"
        await alice.ask("room", "add", "masks", "bob")
        await until(
            bob, "in", "room", "list", wanted=lambda rooms: "masks" in {room["name"] for room in rooms}
        )
        who = await bob.ask("room", "who", "masks")
        assert [member["user"] for member in who["hidden"]] == [None, None]
        assert who["verified"] == []
        await bob.ask("room", "reveal", "masks")
        await until(
            alice,
            "revealed",
            *("room", "who", "masks"),
            wanted=lambda who: [member["user"] for member in who["verified"]] == ["mimi://b.example/u/bob"],
        )
        shown = await alice.run("room", "who", "masks")
        assert "(hidden)" in shown.out
        await alice.ask("room", "admin", "masks", who["hidden"][0]["pseudonym"])


async def test_nothing_is_lost_or_doubled_by_agents_that_die(live: LiveWorld, tmp_path: Path) -> None:
    """Whatever an agent is at when it dies: what it had not written down comes again, what it had does not."""
    async with people(live, tmp_path, alice="a.example", bob="b.example") as (alice, bob):
        await befriend(alice, bob)
        expected = [f"message {number}" for number in range(7)]

        async def dying() -> None:
            while len(sent) < len(expected):
                await bob.ask("agent", "start")
                await bob.kill()

        sent: list[str] = []
        dies = asyncio.create_task(dying())
        for text in expected:
            await alice.ask("room", "send", "bob", text)
            sent.append(text)
            if len(sent) == 4:
                await alice.kill()
        await dies
        read: list[str] = []
        while len(read) < len(expected):
            read += await bob.read("alice")
        assert read == expected
        assert await bob.lines("room", "read", "alice") == []
        await bob.ask("room", "send", "alice", "all there")
        assert await alice.read("bob") == ["all there"]
