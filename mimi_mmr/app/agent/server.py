"""The agent's end of the socket: check the peer, read one request a line, write lines of answer."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.agent.socket_messages import MAX_REQUEST, CommandRequest, error_answer, to_line
from mimi_mmr.app.commands.errors import BadRequest, SystemFailed
from mimi_mmr.app.commands.result import Result, to_json
from mimi_mmr.errors import MmrError

log = logging.getLogger(__name__)
PEER = struct.Struct("3i")  # pid, uid, gid: SO_PEERCRED
BACKLOG = 32
STOP_SECONDS = 5.0
ACCEPT_AGAIN_SECONDS = 1.0
CHUNK = 1 << 18  # bytes


class AnswerLines:
    """What a command gets and sends besides its arguments and its result. `content` came with the request."""

    def __init__(self, writer: asyncio.StreamWriter, content: bytes = b"") -> None:
        self.content = content
        self._writer = writer

    def progress(self, done: int, total: int) -> None:
        """Report how much is done."""
        self._line({"progress": [done, total]})

    def note(self, text: str) -> None:
        """Tell the person something at once."""
        self._line({"note": text})

    async def item(self, value: Result) -> None:
        """Report one item of several; wait if the reader is slow."""
        self._line({"item": to_json(type(value), value)})
        await self._writer.drain()

    async def file(self, data: bytes) -> None:
        """Send the bytes of a file."""
        self._line({"bytes": len(data)})
        for start in range(0, len(data), CHUNK):
            self._writer.write(data[start : start + CHUNK])
            await self._writer.drain()

    def _line(self, value: dict[str, Any]) -> None:
        self._writer.write(to_line(value))


Handle = Callable[[CommandRequest, AnswerLines], Awaitable[dict[str, Any]]]


class Server:
    """The server that listens in a home for one user's commands."""

    def __init__(self, home: Home, handle: Handle, only_waits: Callable[[str], bool], uid: int) -> None:
        """`handle` returns the fields of an answer's last line.

        A command that `only_waits` is cancelled when its connection closes; any other is finished.
        """
        self._home = home
        self._handle = handle
        self._only_waits = only_waits
        self._uid = uid
        self._listening: socket.socket | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._work: dict[asyncio.Task[dict[str, Any]], bool] = {}
        self._readings: set[asyncio.Task[bytes]] = set()
        self._stopping = False

    async def start(self) -> None:
        """Listen. The caller holds the home's lock, so an existing socket belongs to an ended agent."""
        with suppress(FileNotFoundError):
            self._home.socket.unlink()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.setblocking(False)
        before = os.umask(0o177)  # 0600 from the first moment on
        try:
            with self._home.address() as address:
                listening.bind(address)
        finally:
            os.umask(before)
        listening.listen(BACKLOG)
        self._listening = listening
        self._listen()

    async def stop(self) -> None:
        """Stop listening; give commands that change something a few seconds to finish."""
        self._stopping = True
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            with suppress(FileNotFoundError):
                self._home.socket.unlink()
        for reading in list(self._readings):
            reading.cancel()
        for work, waits in list(self._work.items()):
            if waits:
                work.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=STOP_SECONDS)
        left = [*self._work, *self._connections]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    @property
    def busy(self) -> bool:
        """Whether a command is connected."""
        return bool(self._connections)

    def _listen(self) -> None:
        if self._listening is not None and not self._stopping:
            asyncio.get_running_loop().add_reader(self._listening, self._accept, self._listening)

    def _accept(self, listening: socket.socket) -> None:
        """Accept a connection and start its task at once: `asyncio.Server` drops connections when it closes."""
        loop = asyncio.get_running_loop()
        try:
            connection, _ = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:  # out of descriptors: without a pause this would loop at full speed
            log.error("no connection can be taken: %s", type(error).__name__)  # noqa: TRY400
            loop.remove_reader(listening)
            loop.call_later(ACCEPT_AGAIN_SECONDS, self._listen)
            return
        connection.setblocking(False)
        task = loop.create_task(self._connected(connection))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connected(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=MAX_REQUEST)
        try:
            if self._is_ours(writer):
                await self._converse(reader, writer)
            else:
                log.warning("a connection of another user was refused")
        except (OSError, asyncio.CancelledError):
            pass  # the command line or the agent has ended: nobody reads an answer
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _is_ours(self, writer: asyncio.StreamWriter) -> bool:
        """Return whether the peer runs as this agent's user. The directory's mode ensures that, too."""
        peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
        _, uid, _ = PEER.unpack(peer)
        return bool(uid == self._uid)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = self._reading(reader.readline())
        try:
            while data := await line:
                request, content = await self._request(data, reader)
                line = self._reading(reader.readline())
                writer.write(to_line(await self._answer(request, content, line, writer)))
                await writer.drain()
                if self._stopping:
                    return
        except ValueError:  # raised by `readline` for a line over its limit
            error = BadRequest(f"expected a request of at most {MAX_REQUEST} bytes")
            writer.write(to_line(error_answer(error)))
            await writer.drain()
        finally:
            line.cancel()

    async def _request(
        self, data: bytes, reader: asyncio.StreamReader
    ) -> tuple[CommandRequest | BadRequest, bytes]:
        """Return a request, or why it is none, and the bytes that follow its line."""
        try:
            request = CommandRequest.from_line(data)
        except BadRequest as error:
            return error, b""
        try:
            return request, await self._reading(reader.readexactly(request.size))
        except asyncio.IncompleteReadError:
            raise ConnectionResetError from None

    def _reading(self, what: Coroutine[Any, Any, bytes]) -> asyncio.Task[bytes]:
        """Read from a connection in a task, which is cancelled when the server stops."""
        task = asyncio.create_task(what)
        self._readings.add(task)
        task.add_done_callback(self._readings.discard)
        if self._stopping:  # no more requests are answered, so this task must be cancelled here
            task.cancel()
        return task

    async def _answer(
        self,
        request: CommandRequest | BadRequest,
        content: bytes,
        following: asyncio.Task[bytes],
        writer: asyncio.StreamWriter,
    ) -> dict[str, Any]:
        if isinstance(request, BadRequest):
            return error_answer(request)
        work = asyncio.create_task(self._run(request, AnswerLines(writer, content)))
        waits = self._work[work] = self._only_waits(request.command)
        work.add_done_callback(self._work.pop)
        await _until_done(work, following, waits)
        return work.result()

    async def _run(self, request: CommandRequest, say: AnswerLines) -> dict[str, Any]:
        try:
            return await self._handle(request, say)
        except MmrError as error:
            return error_answer(error)
        except OSError as error:
            return error_answer(SystemFailed.of(error))
        except Exception as error:
            log.error("a request failed: %s", type(error).__name__)  # noqa: TRY400  # a traceback may hold anything
            what = f"the agent failed at this ({type(error).__name__}); this is a defect"
            return error_answer(MmrError(what))


async def _until_done(work: asyncio.Task[dict[str, Any]], line: asyncio.Task[bytes], waits: bool) -> None:
    """Wait for the answer. If the connection closes first, cancel a command that only waits."""
    await asyncio.wait({work, line}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done() and waits and _hung_up(line):
        work.cancel()
    await asyncio.wait({work})
    if work.cancelled():
        raise ConnectionResetError


def _hung_up(line: asyncio.Task[bytes]) -> bool:
    return line.done() and not line.cancelled() and (line.exception() is not None or not line.result())
