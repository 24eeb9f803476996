"""The command's end of the socket. Blocking, and light: completion in a shell uses it too."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mimi_mmr.app.agent import wire
from mimi_mmr.app.agent.errors import AgentError
from mimi_mmr.app.agent.home import Home


class NotRunning(AgentError):
    """Nobody listens."""

    code = "agent-not-running"


class Refused(AgentError):
    """The agent's no: its code and hint, as they came."""

    def __init__(self, answered: str, message: str, hint: str) -> None:
        """Remember them."""
        super().__init__(message)
        self.answered = answered
        self.hint = hint


class Link:
    """One connection to a running agent; requests one after another."""

    def __init__(self, home: Home, timeout: float | None = None) -> None:
        """Connect; raises `NotRunning`. A `timeout` (seconds) is for who would rather have no answer than wait."""
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
        """Hang up; what only waits is given up by the agent, what changes something is finished."""
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def ask(
        self,
        do: str,
        *,
        on_progress: Callable[[int, int], None] | None = None,
        on_notice: Callable[[str], None] | None = None,
        **given: object,
    ) -> Any:
        """Do something; gives the result, or raises `Refused`. Items on the way are passed over."""
        for kind, value in self.stream(do, notices=on_notice is not None, **given):
            if kind == "progress" and on_progress is not None:
                on_progress(*value)
            elif kind == "notices" and on_notice is not None:
                for text in value:
                    on_notice(text)
            elif kind == "result":
                return value
        raise AgentError("the agent ended while it was working on this; mimi-mmr status says how it stands")

    def stream(self, do: str, *, notices: bool = False, **given: object) -> Iterator[tuple[str, Any]]:
        """Do something; gives (kind, value) of all that comes: progress, item, notices, and at last result."""
        request = wire.Request(do, wire.Given(given), notices).to_line()
        if len(request) > wire.MAX_REQUEST:
            raise AgentError(f"expected at most {wire.MAX_REQUEST} bytes in a request, got {len(request)}")
        with _broken():
            self._socket.sendall(request)
        while data := self._next_line():
            answer = wire.read(data)
            if "error" in answer:
                error = answer["error"]
                raise Refused(error["code"], error["message"], error.get("hint", ""))
            if "result" in answer:
                if answer.get("notices"):
                    yield "notices", answer["notices"]
                yield "result", answer["result"]
                return
            yield from answer.items()
        raise AgentError("the agent ended while it was working on this; mimi-mmr status says how it stands")

    def _next_line(self) -> bytes:
        with _broken():
            data = self._lines.readline(wire.MAX_ANSWER)
        if data and not data.endswith(b"\n"):
            raise AgentError(f"expected a line of at most {wire.MAX_ANSWER} bytes from the agent")
        return data


@contextmanager
def _broken() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise AgentError("the agent did not answer in time") from None
    except OSError as error:
        raise AgentError(f"the connection to the agent broke: {error.strerror or error}") from None
