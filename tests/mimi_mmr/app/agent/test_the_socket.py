"""Who may speak to an agent, what it takes, and what it does when nobody listens any more."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mimi_mmr.app.agent import connection as connection_module
from mimi_mmr.app.agent.connection import Connection, NotRunning, Refused
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.agent.server import STOP_SECONDS, AnswerLines, Server
from mimi_mmr.app.agent.socket_messages import MAX_REQUEST, CommandRequest
from mimi_mmr.app.commands.errors import AgentError, NotFound
from mimi_mmr.app.commands.result import Result


class Number(Result):
    number: int


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = Home(tmp_path / "home")
    found.make()
    return found


async def echo(request: CommandRequest, say: AnswerLines) -> dict[str, Any]:
    if request.command == "fail":
        raise NotFound("no room of this name")
    if request.command == "break":
        raise KeyError("mimi://a.example/u/alice")
    if request.command == "count":
        for number in range(3):
            say.progress(number + 1, 3)
            await say.item(Number(number=number))
    if request.command == "reverse":
        say.note(f"{len(say.content)} bytes")
        await say.file(say.content[::-1])
    return {"result": request.arguments}


@asynccontextmanager
async def serving(home: Home, handle: Any = echo, *, uid: int | None = None) -> AsyncIterator[Server]:
    server = Server(home, handle, lambda do: do.startswith("wait"), os.geteuid() if uid is None else uid)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def in_thread(work: Callable[[Connection], Any], home: Home) -> Any:
    def run() -> Any:
        with Connection(home, timeout=30) as connection:
            return work(connection)

    return await asyncio.to_thread(run)


async def test_a_request_and_its_answer(home: Home) -> None:
    async with serving(home):
        assert await in_thread(lambda connection: connection.ask("echo", {"room": "friends\x1b"}), home) == {
            "room": "friends\x1b"
        }
        progress: list[tuple[int, int]] = []

        def count(connection: Connection) -> list[tuple[str, Any]]:
            connection.ask("count", on={"progress": lambda step: progress.append(tuple(step))})
            return list(connection.stream("count"))

        said = await in_thread(count, home)
        assert progress == [(1, 3), (2, 3), (3, 3)]
        assert [value for kind, value in said if kind == "item"] == [
            {"number": 0},
            {"number": 1},
            {"number": 2},
        ]
        assert said[-1] == ("result", {})


async def test_what_a_command_waits_for_is_told_before_its_result(home: Home) -> None:
    released = asyncio.Event()

    async def waits(_: CommandRequest, say: AnswerLines) -> dict[str, Any]:
        say.note("waiting for a clock")
        await released.wait()
        return {"result": {}}

    loop = asyncio.get_running_loop()

    def read(connection: Connection) -> list[tuple[str, Any]]:
        found = []
        for answer in connection.stream("add"):
            found.append(answer)
            loop.call_soon_threadsafe(released.set)
        return found

    async with serving(home, waits):
        assert await in_thread(read, home) == [("note", "waiting for a clock"), ("result", {})]


async def test_the_bytes_of_files_go_both_ways_whatever_is_in_them(home: Home) -> None:
    content = bytes(range(256)) * 8192 + b'\n{"result":{}}\n'

    def both_ways(connection: Connection) -> list[tuple[str, Any]]:
        first = list(connection.stream("reverse", content=content))
        assert connection.ask("echo", {"still": "here"}) == {"still": "here"}
        return first

    async with serving(home):
        said = await in_thread(both_ways, home)
    assert said == [("note", f"{len(content)} bytes"), ("file", content[::-1]), ("result", {})]


async def test_a_file_that_is_not_sent_to_its_end_keeps_nobody_waiting(home: Home) -> None:
    async with serving(home):
        reader, writer = await asyncio.open_unix_connection(str(home.socket))
        writer.write(CommandRequest("reverse", {}, size=10).to_line() + b"half")
        await writer.drain()
        assert await in_thread(lambda connection: connection.ask("echo"), home) == {}
    assert await reader.read() == b""
    writer.close()


async def test_a_command_that_takes_long_says_what_it_waits_for(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "PATIENCE", 0.01)
    said = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def slow(_: CommandRequest, __: AnswerLines) -> dict[str, Any]:
        await said.wait()
        return {"result": {}}

    async with serving(home, slow):
        silence = partial(loop.call_soon_threadsafe, said.set)
        assert await in_thread(lambda connection: connection.ask("x", on_silence=silence), home) == {}


async def test_errors_carry_code_message_and_hint(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(home):
        with pytest.raises(Refused, match="no room of this name") as caught:
            await in_thread(lambda connection: connection.ask("fail"), home)
        assert caught.value.answered == "not-found"
        with pytest.raises(Refused, match="KeyError") as caught:
            await in_thread(lambda connection: connection.ask("break"), home)
        assert "alice" not in str(caught.value)
    assert "alice" not in caplog.text


async def test_directory_and_socket_are_their_owners_alone(home: Home, tmp_path: Path) -> None:
    async with serving(home):
        assert home.socket.stat().st_mode & 0o777 == 0o600
        assert home.path.stat().st_mode & 0o777 == 0o700
    assert not home.socket.exists()
    home.path.chmod(0o750)
    with pytest.raises(AgentError, match="expected mode 700, found 750"):
        home.make()
    with pytest.raises(AgentError, match="open to others"):
        Connection(home)


async def test_another_users_connection_is_refused(home: Home) -> None:
    async with serving(home, uid=os.geteuid() + 1):
        with pytest.raises(AgentError, match=r"ended|broke"):
            await in_thread(lambda connection: connection.ask("echo"), home)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
async def test_another_user_is_refused_even_where_modes_would_let_them(tmp_path: Path) -> None:
    script = "import socket,sys,os;os.setgid(65534);os.setuid(65534);s=socket.socket(socket.AF_UNIX);"
    script += 's.connect(sys.argv[1]);s.sendall(b\'{"do":"echo"}\\n\');print(len(s.recv(100)))'
    directory = Path("/tmp") / f"mimi-mmr-test-{os.getpid()}"  # noqa: S108  # pytest's own is closed to others
    home = Home(directory)
    home.make()
    try:
        async with serving(home):
            directory.chmod(0o755)
            home.socket.chmod(0o666)
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", script, str(home.socket), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            out, err = await child.communicate()
            assert out.strip() in (b"0", b""), out
            assert b"PermissionError" not in err
    finally:
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()


async def test_a_socket_that_a_dead_agent_left_is_replaced(home: Home) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(home.socket))
    left.close()
    with pytest.raises(NotRunning):
        Connection(home)
    async with serving(home):
        assert await in_thread(lambda connection: connection.ask("echo"), home) == {}


async def test_a_home_whose_path_is_longer_than_an_address(tmp_path: Path) -> None:
    home = Home(tmp_path / ("x" * 100) / ("y" * 100))
    home.make()
    with pytest.raises(NotRunning):
        Connection(home)
    async with serving(home):
        assert await in_thread(lambda connection: connection.ask("echo"), home) == {}


@pytest.mark.parametrize(
    "sent",
    [
        b"\n",
        b"{\n",
        b"[]\n",
        b'{"do":5}\n',
        b'{"do":"echo","given":5}\n',
        b'{"do":"echo","given":{},"bytes":-1}\n',
        b'{"do":"echo","given":{},"bytes":67108865}\n',
        b'{"do":"echo","given":{},"bytes":true}\n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"do":"' + b"x" * (MAX_REQUEST + 10) + b'"}\n',
    ],
)
async def test_what_is_no_request_is_said_to_be_none(home: Home, sent: bytes) -> None:
    async with serving(home):
        reader, writer = await asyncio.open_unix_connection(str(home.socket))
        writer.write(sent)
        answer = json.loads(await reader.readline())
        assert answer["error"]["code"] == "bad-request"
        writer.close()
        assert await in_thread(lambda connection: connection.ask("echo"), home) == {}


async def test_a_request_that_is_too_long_is_not_even_sent(home: Home) -> None:
    async with serving(home):
        with pytest.raises(AgentError, match="at most"):
            await in_thread(lambda connection: connection.ask("echo", {"text": "x" * MAX_REQUEST}), home)


@pytest.mark.parametrize("says_more", [False, True])
@pytest.mark.parametrize("turns", range(6))
async def test_who_connects_as_the_agent_stops_is_not_left_waiting(
    home: Home, turns: int, says_more: bool
) -> None:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(30)
        server = Server(home, echo, lambda _: False, os.geteuid())
        await server.start()
        caller.connect(str(home.socket))
        for _ in range(turns):
            await asyncio.sleep(0)
        if not says_more:
            caller.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(STOP_SECONDS / 2):  # nor is the agent, for it to say something
            await server.stop()
        with suppress(ConnectionResetError):
            assert await asyncio.to_thread(caller.recv, 1) == b""


def open_descriptors() -> set[int]:
    return {int(one.name) for one in Path("/proc/self/fd").iterdir()}


async def test_who_connects_when_no_descriptor_is_left_is_served_when_one_is(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("mimi_mmr.app.agent.server.ACCEPT_AGAIN_SECONDS", 0.01)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    with socket.socket(socket.AF_UNIX) as caller:
        caller.setblocking(False)
        async with serving(home), asyncio.timeout(30):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_descriptors()) + 1, hard))
            try:
                caller.connect(str(home.socket))
                with suppress(OSError):
                    while True:
                        taken.append(os.dup(caller.fileno()))
                while not caplog.records:  # noqa: ASYNC110  # the turns of the loop are what is waited for
                    await asyncio.sleep(0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for one in taken:
                    os.close(one)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(caller, CommandRequest("echo", {}).to_line())
            assert json.loads(await loop.sock_recv(caller, 1000)) == {"result": {}}


async def test_who_hangs_up_ends_what_waits_but_not_what_changes_something(home: Home) -> None:
    begun, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Queue[str]()

    async def handle(request: CommandRequest, _: AnswerLines) -> dict[str, Any]:
        begun.set()
        try:
            await go.wait()
        except asyncio.CancelledError:
            ended.put_nowait(f"{request.command} given up")
            raise
        ended.put_nowait(f"{request.command} done")
        return {"result": None}

    async with serving(home, handle), asyncio.timeout(30):
        for do, said in (("wait", "wait given up"), ("change", "change done")):
            begun.clear()
            _, writer = await asyncio.open_unix_connection(str(home.socket))
            writer.write(CommandRequest(do, {}).to_line())
            await begun.wait()
            writer.close()
            await writer.wait_closed()
            if do == "change":
                go.set()
            assert await ended.get() == said


async def test_an_agent_that_stops_finishes_what_changes_something(home: Home) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def handle(request: CommandRequest, _: AnswerLines) -> dict[str, Any]:
        begun.set()
        await go.wait()
        return {"result": "done"}

    server = Server(home, handle, lambda do: do == "wait", os.geteuid())
    await server.start()
    answers = [
        asyncio.create_task(in_thread(lambda connection, do=do: connection.ask(do), home))
        for do in ("change", "wait")
    ]
    await begun.wait()
    while sum(waits for waits in server._work.values()) + len(server._work) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0)  # both are in this loop: a turn of it is all there is to await
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    go.set()
    async with asyncio.timeout(30):
        await stopping
        assert await answers[0] == "done"
        with pytest.raises(AgentError, match="ended"):
            await answers[1]
