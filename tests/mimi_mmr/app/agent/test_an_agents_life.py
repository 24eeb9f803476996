"""How agents start, who is asked for what, what others can see of it, and how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from mimi_mmr.app.agent.agent import Agent
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.agent.launch import wait_for_end
from mimi_mmr.client.storage.vault import Vault
from tests.mimi_mmr.app.cli.people import PASSPHRASE, PATIENCE, Person, command, people, typing
from tests.mimi_mmr.conftest import LiveWorld
from tests.mimi_mmr.provider.settings.settings_world import clean_environment


@pytest.fixture
async def alice(live: LiveWorld, tmp_path: Path) -> AsyncIterator[Person]:
    async with people(live, tmp_path, alice="a.example") as (found,):
        yield found


async def test_an_agent_is_started_by_whatever_needs_it_and_found_by_the_next(alice: Person) -> None:
    assert (await alice.ask("agent", "stop"))["pid"] == alice.agent
    done = await alice.run("agent", "status")
    assert (done.status, done.out) == (4, "not running\n")
    first = (await alice.ask("status"))["pid"]
    assert (await alice.ask("status"))["pid"] == first == alice.agent
    found = await alice.ask("agent", "status")
    assert found == {
        "running": True,
        "pid": first,
        "account": "mimi://a.example/u/alice",
        "home": str(alice.home),
        "unfinished": None,
    }
    assert (await alice.ask("agent", "start"))["pid"] == first
    assert (await alice.run("agent", "stop")).out == "stopped\n"
    assert (await alice.run("agent", "stop")).out == "it was not running\n"


async def test_a_home_may_have_a_long_path(live: LiveWorld, tmp_path: Path) -> None:
    alice = Person("alice", "a.example", tmp_path / ("x" * 120) / "home", live)
    try:
        await alice.create()
        await alice.kill()
        assert (await alice.ask("status"))["account"]["user"] == "mimi://a.example/u/alice"
    finally:
        alice.reap()


async def test_many_commands_at_once_start_one_agent(alice: Person) -> None:
    await alice.ask("agent", "stop")
    found = await asyncio.gather(*(alice.ask("status") for _ in range(4)))
    assert len({status["pid"] for status in found}) == 1


async def test_a_second_agent_is_refused(alice: Person) -> None:
    done = await alice.run("agent", "run")
    assert done.status == 4
    assert f"process {alice.agent}" in done.err
    assert (await alice.ask("agent", "status"))["running"] is True


async def test_a_killed_agents_socket_does_not_stop_the_next(alice: Person) -> None:
    await alice.kill()
    assert Home(alice.home).socket.exists()
    assert (await alice.run("agent", "status")).status == 4
    assert (await alice.ask("account", "show"))["user"] == "mimi://a.example/u/alice"


async def test_nothing_secret_can_be_seen_of_the_process(alice: Person) -> None:
    await alice.ask("room", "create", "--name", "a secret name")
    process = Path(f"/proc/{alice.agent}")
    environment = (process / "environ").read_bytes()
    arguments = (process / "cmdline").read_bytes()
    assert PASSPHRASE.encode() not in environment + arguments
    assert b"PASSPHRASE" not in environment
    assert b"alice" not in arguments.replace(str(alice.home).encode(), b"")
    assert b"Max core file size        0 " in (process / "limits").read_bytes()
    for file in alice.home.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
        if file.is_file():
            content = file.read_bytes()
            for planted in (PASSPHRASE, "alice", "a secret name", "a.example", "127.0.0.1", "mimi://"):
                assert planted.encode() not in content, (file, planted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_in_order(alice: Person, number: int) -> None:
    pid = alice.agent
    os.kill(pid, number)
    await asyncio.to_thread(wait_for_end, Home(alice.home))
    assert not Home(alice.home).socket.exists()
    assert (await alice.ask("status"))["pid"] != pid


async def test_it_stays_when_its_terminal_goes(alice: Person) -> None:
    pid = alice.agent
    os.kill(pid, signal.SIGHUP)
    assert (await alice.ask("status"))["pid"] == pid


async def test_it_ends_by_itself_only_if_asked_to(alice: Person) -> None:
    await alice.ask("agent", "stop")
    await alice.ask("agent", "start", "--idle", "1")
    async with asyncio.timeout(PATIENCE):
        await asyncio.to_thread(wait_for_end, Home(alice.home))
    assert (await alice.run("agent", "status")).status == 4


async def test_in_the_foreground_for_a_service_manager(alice: Person, tmp_path: Path) -> None:
    await alice.ask("agent", "stop")
    file = tmp_path / "passphrase"
    file.write_text(f"{PASSPHRASE}\n")
    file.chmod(0o600)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mimi_mmr", "agent", "run", "--home", str(alice.home)),
        *("--passphrase-file", str(file)),
        stdout=PIPE,
        env=clean_environment(),
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert (await process.stdout.readline()).decode() == f"the agent of {alice.home} is ready\n"
    assert (await alice.ask("status"))["pid"] == process.pid
    process.terminate()
    assert await process.wait() == 0


async def test_without_a_terminal_it_says_where_else_the_passphrase_may_be(
    alice: Person, tmp_path: Path
) -> None:
    await alice.ask("agent", "stop")
    done = await command("status", "--home", str(alice.home))
    assert done.status == 4
    assert "MIMI_MMR_PASSPHRASE" in done.err
    loose = tmp_path / "loose"
    loose.write_text(PASSPHRASE)
    loose.chmod(0o644)
    done = await command("status", "--home", str(alice.home), "--passphrase-file", str(loose))
    assert done.status == 2
    assert "readable by others" in done.err
    done = await alice.run("status", env={"MIMI_MMR_HOME": str(alice.home), "MIMI_MMR_PASSPHRASE": "wrong"})
    assert done.status == 4
    assert "wrong passphrase" in done.err
    assert "Traceback" not in done.err


async def test_on_a_terminal_it_asks_again_after_a_wrong_one(alice: Person) -> None:
    await alice.ask("agent", "stop")
    answers = ["wrong", PASSPHRASE]
    status, said = await asyncio.to_thread(typing, ["account", "show"], alice.home, answers, "Passphrase: ")
    assert status == 0, said
    assert "wrong passphrase" in said
    assert "alice@a.example" in said
    assert PASSPHRASE not in said
    await alice.ask("agent", "stop")
    status, said = await asyncio.to_thread(
        typing, ["account", "show"], alice.home, ["no"] * 3, "Passphrase: "
    )
    assert status == 4, said
    assert said.count("wrong passphrase") == 3


async def test_a_new_passphrase_is_typed_twice(live: LiveWorld, tmp_path: Path) -> None:
    alice = Person("alice", "a.example", tmp_path / "alice", live)
    arguments = ["account", "create", "alice", *alice.opening()]
    answers = ["one", "another one", "yet another", PASSPHRASE, PASSPHRASE]
    prompt = "(?:New passphrase|The same again): "
    try:
        status, said = await asyncio.to_thread(typing, arguments, alice.home, answers, prompt)
        assert status == 0, said
        assert said.count("New passphrase") == 3
        assert "at least 8 characters, got 3: whoever gets a copy" in said
        assert "the two were not the same" in said
        await alice.ask("agent", "stop")
        assert (await alice.ask("account", "show"))["user"] == "mimi://a.example/u/alice"
    finally:
        alice.reap()


@asynccontextmanager
async def out_of_order(live: LiveWorld, *domains: str) -> AsyncIterator[None]:
    """Providers that hang up on everybody; afterwards they are there again."""
    async with AsyncExitStack() as stack:
        for domain in domains:
            await live.stop(domain)
            listening = live.world.providers[domain].socket.dup()
            listening.setblocking(False)
            server = await asyncio.start_server(lambda _, writer: writer.close(), sock=listening)
            stack.push_async_callback(server.wait_closed)
            stack.callback(server.close)
        yield
    for domain in domains:
        await live.start(domain)


async def test_a_provider_that_does_not_answer(alice: Person) -> None:
    assert alice.live is not None
    await alice.ask("room", "create", "--name", "before it was renamed")
    await alice.ask("room", "rename", "before it was renamed", "friends")
    async with out_of_order(alice.live, "a.example", "b.example", "c.example"):
        done = await alice.run("account", "delete", "--yes", "--json")
        assert (done.status, done.error["code"]) == (5, "peer")
        done = await alice.run("room", "send", "friends", "hello", "--json")
        assert (done.status, done.out) == (5, "")
        assert done.error["code"] in ("peer", "private-path")
        assert done.error["hint"]
        async with asyncio.timeout(PATIENCE):
            while "following friends" not in (found := await alice.ask("status"))["trouble"]:
                pass
        done = await alice.run("room", "read", "friends")
        assert done.status == 0
        assert "note: friends is not up to date: the provider could not be asked" in done.err
    assert all(what.startswith(("following", "looking")) for what in found["trouble"])
    log = (alice.home / "agent.log").read_text()
    assert "to be tried again" in log
    for planted in ("alice", "friends", "example", "127.0.0", "mimi://", PASSPHRASE):
        assert planted not in log
    await alice.ask("room", "send", "friends", "hello")
    async with asyncio.timeout(PATIENCE):
        while (await alice.ask("status"))["trouble"]:
            await alice.ask("room", "create")  # which gives the background something to do


async def test_tasks_that_are_started_twice_run_once_and_end(alice: Person) -> None:
    await alice.ask("room", "create", "--name", "friends")
    await alice.ask("agent", "stop")
    before = asyncio.all_tasks()
    agent = Agent(Home(alice.home), Vault.open(Home(alice.home).state, PASSPHRASE))
    agent.open()
    running = asyncio.all_tasks() - before
    agent.background.start()
    assert asyncio.all_tasks() - before == running
    async with asyncio.timeout(PATIENCE):
        await agent.close()


async def test_an_account_whose_provider_did_not_answer_can_be_finished(
    live: LiveWorld, tmp_path: Path
) -> None:
    alice = Person("alice", "a.example", tmp_path / "alice", live)
    arguments = ["account", "create", "alice", "--device", "phone", *alice.opening(), "--json"]
    try:
        async with out_of_order(live, "a.example"):
            done = await alice.run(*arguments)
        assert (done.status, done.error["code"]) == (5, "not-begun")
        assert not alice.home.exists()
        async with live.forgetting("a.example"):
            done = await alice.run(*arguments)
        assert (done.status, done.out) == (5, "")
        assert "the name is not lost" in done.error["hint"]
        for words in (["room", "list"], ["status"]):
            done = await alice.run(*words, "--json")
            assert (done.status, done.error["code"]) == (4, "unfinished")
            assert "the account of alice@a.example was begun here" in done.error["message"]
            assert "account create" in done.error["hint"]
        assert (await alice.ask("agent", "status"))["unfinished"] == "account"
        asked = await asyncio.to_thread(typing, ["account", "delete"], alice.home, ["n"], r"\[y/N\]: ")
        assert "is not finished" in asked[1]
        await alice.kill()
        other = await alice.run(*arguments[:2], "carol", *arguments[3:])
        assert "was begun here" in other.error["message"]
        done = await alice.run(*arguments)
        assert done.json["user"] == "mimi://a.example/u/alice"
        again = await alice.run(*arguments)  # as if this answer had been lost
        assert (again.status, again.json) == (0, done.json)
    finally:
        alice.reap()


async def test_trust_anchors_are_what_a_command_has_read_and_their_files_may_go(
    alice: Person, tmp_path: Path
) -> None:
    assert alice.live is not None
    old, new = alice.live.world.trust_dir, tmp_path / "elsewhere"
    await alice.ask("agent", "stop")
    old.rename(new)
    assert (await alice.ask("account", "show"))["user"] == "mimi://a.example/u/alice"
    (new / "c.example.pem").unlink()
    script = f"exec {sys.executable} -m mimi_mmr account trust --json --tls-ca /dev/fd/3 --trust {new}"
    environment = alice.environment | {"MIMI_MMR_HOME": str(alice.home)}
    done = await command(
        program=("sh", "-c", f"{script} 3< {alice.live.world.ca_file}"),  # in the agent 3 is another file
        env=environment,
    )
    assert (done.status, done.out) == (0, '{"domains": ["a.example", "b.example"]}\n'), done
    await alice.ask("room", "create", "--name", "reached")
    (new / "b.example.pem").write_text("no certificate")
    done = await alice.run("account", "trust", "--trust", str(new), "--json")
    assert done.error["code"] == "certificate"
    assert (await alice.ask("account", "show"))["user"] == "mimi://a.example/u/alice"


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--domain", "nowhere", "domain"),
        ("--domain", "z.example", "z.example.pem"),
        ("--device", "Not A Name", "lower-case"),
    ],
)
async def test_what_an_account_is_made_of_is_checked_first(
    live: LiveWorld, tmp_path: Path, option: str, value: str, said: str
) -> None:
    alice = Person("alice", "a.example", tmp_path / "alice", live)
    try:
        done = await alice.run("account", "create", "alice", *alice.opening(), option, value, "--json")
        assert done.status == 2
        assert said in done.error["message"]
        assert not alice.home.exists()
        done = await alice.run(
            "account", "create", "alice", *alice.opening(), "--provider", "http://x", "--json"
        )
        assert "https" in done.error["message"]  # which the agent says
        assert (await alice.create())["user"] == "mimi://a.example/u/alice"
    finally:
        alice.reap()


async def test_a_home_that_others_can_look_into_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    done = await command("account", "show", "--home", str(tmp_path / "open"))
    assert done.status == 4
    assert "expected mode 700" in done.err


async def test_before_there_is_an_account(tmp_path: Path) -> None:
    for arguments in (["status"], ["room", "list"], ["agent", "start"], ["agent", "run"]):
        done = await command(*arguments, "--home", str(tmp_path / "none"))
        assert done.status == 4, done
        assert "no account" in done.err
        assert "account create" in done.err
    assert not (tmp_path / "none").exists()
