"""The command line's blocking connection to the agent. It imports little, since shell completion uses it, too."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mimi_mmr.app.agent import socket_messages
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.agent.socket_messages import MAX_ANSWER, MAX_REQUEST, CommandRequest, content_size
from mimi_mmr.app.commands.errors import AgentError

PATIENCE = 10.0  # seconds
ENDED = "the agent ended before it had answered; mimi-mmr status shows what was done"


class NotRunning(AgentError):
    """No agent listens."""

    code = "agent-not-running"


class NoAnswer(AgentError):
    """An agent is running and does not answer in time."""


class Refused(AgentError):
    """The agent's error; `answered` is its code."""

    def __init__(self, answered: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.answered = answered
        self.hint = hint


class Connection:
    """One connection to a running agent, for one request after another."""

    def __init__(self, home: Home, timeout: float | None = None) -> None:
        """Connect. Raise `NotRunning`; after `timeout` seconds without an answer, raise `AgentError`."""
        home.check()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            with home.address() as address:
                self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            if isinstance(error, FileNotFoundError | ConnectionRefusedError):
                raise NotRunning(f"no agent is running for {home.path}") from None
            raise AgentError(f"the agent can't be reached: {error.strerror or error}") from None
        self._lines = self._socket.makefile("rb")

    def close(self) -> None:
        """Disconnect. The agent cancels a command that only waits, and finishes any other."""
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def ask(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        content: bytes = b"",
        on: Mapping[str, Callable[[Any], None]] | None = None,
        on_silence: Callable[[], None] | None = None,
    ) -> Any:
        """Run a command; return its result as JSON values. Raise `Refused` or `AgentError`.

        `on` has a function for each kind of other answer that matters; see `stream`.
        """
        on = on or {}
        answers = self.stream(
            command, arguments, content=content, notices="notices" in on, on_silence=on_silence
        )
        for kind, value in answers:
            if kind == "result":
                return value
            if kind in on:
                on[kind](value)
        raise AgentError(ENDED)

    def stream(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        content: bytes = b"",
        notices: bool = False,
        on_silence: Callable[[], None] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Run a command, with the bytes of a file; yield (kind, value) for every answer, and at last the result.

        Kinds are "progress", "item", "note", "file" (bytes), "notices", "result". `on_silence` is called once if no
        answer has come after `PATIENCE` seconds; the command goes on.
        """
        request = CommandRequest(command, dict(arguments or {}), notices, len(content)).to_line()
        if len(request) > MAX_REQUEST:
            raise AgentError(f"expected at most {MAX_REQUEST} bytes in a request, got {len(request)}")
        with _broken():
            self._socket.sendall(request + content)
        if on_silence is not None and not select.select([self._socket], [], [], PATIENCE)[0]:
            on_silence()
        while data := self._next_line():
            answer = socket_messages.read(data)
            if "error" in answer:
                error = answer["error"]
                raise Refused(error["code"], error["message"], error.get("hint", ""))
            if "result" in answer:
                if answer.get("notices"):
                    yield "notices", answer["notices"]
                yield "result", answer["result"]
                return
            if "bytes" in answer:
                yield "file", self._file(content_size(answer))
            else:
                yield from answer.items()
        raise AgentError(ENDED)

    def _file(self, size: int) -> bytes:
        with _broken():
            data = self._lines.read(size)
        if len(data) < size:
            raise AgentError(ENDED)
        return data

    def _next_line(self) -> bytes:
        with _broken():
            data = self._lines.readline(MAX_ANSWER)
        if data and not data.endswith(b"\n"):
            raise AgentError(f"expected a line of at most {MAX_ANSWER} bytes from the agent")
        return data


@contextmanager
def _broken() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise NoAnswer("the agent did not answer in time") from None
    except OSError as error:
        raise AgentError(f"the connection to the agent broke: {error.strerror or error}") from None
