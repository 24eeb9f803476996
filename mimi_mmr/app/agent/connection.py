"""The command line's blocking connection to the agent. It imports little, since shell completion uses it, too."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mimi_mmr.app.agent import socket_messages
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.agent.socket_messages import MAX_ANSWER, MAX_REQUEST, CommandRequest
from mimi_mmr.app.commands.errors import AgentError

ENDED = "the agent ended before it had answered; mimi-mmr status shows what was done"


class NotRunning(AgentError):
    """No agent listens."""

    code = "agent-not-running"


class Refused(AgentError):
    """The agent's error; `answered` is its code."""

    def __init__(self, answered: str, message: str) -> None:
        super().__init__(message)
        self.answered = answered


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
        on_progress: Callable[[int, int], None] | None = None,
        on_notice: Callable[[str], None] | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> Any:
        """Run a command; return its result as JSON values, without its items. Raise `Refused` or `AgentError`.

        `on_note` gets what the command tells before its result, `on_notice` what happened without a command.
        """
        for kind, value in self.stream(command, arguments, notices=on_notice is not None):
            if kind == "progress" and on_progress is not None:
                on_progress(*value)
            elif kind == "note" and on_note is not None:
                on_note(value)
            elif kind == "notices" and on_notice is not None:
                for text in value:
                    on_notice(text)
            elif kind == "result":
                return value
        raise AgentError(ENDED)

    def stream(
        self, command: str, arguments: Mapping[str, Any] | None = None, *, notices: bool = False
    ) -> Iterator[tuple[str, Any]]:
        """Run a command; yield (kind, value) for every answer: progress, note, item, notices, at last result."""
        request = CommandRequest(command, dict(arguments or {}), notices).to_line()
        if len(request) > MAX_REQUEST:
            raise AgentError(f"expected at most {MAX_REQUEST} bytes in a request, got {len(request)}")
        with _broken():
            self._socket.sendall(request)
        while data := self._next_line():
            answer = socket_messages.read(data)
            if "error" in answer:
                error = answer["error"]
                raise Refused(error["code"], error["message"])
            if "result" in answer:
                if answer.get("notices"):
                    yield "notices", answer["notices"]
                yield "result", answer["result"]
                return
            yield from answer.items()
        raise AgentError(ENDED)

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
        raise AgentError("the agent did not answer in time") from None
    except OSError as error:
        raise AgentError(f"the connection to the agent broke: {error.strerror or error}") from None
