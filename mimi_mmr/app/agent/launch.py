"""How the command line starts the agent: the passphrase goes through a pipe, not into arguments or environment."""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mimi_mmr.app.agent.connection import Connection, NotRunning, Refused
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.commands.errors import AgentError

PASSPHRASE_VARIABLE = "MIMI_MMR_PASSPHRASE"  # noqa: S105  # a variable's name
MAX_LOG = 1 << 20
START_SECONDS = 120.0  # opening a large state takes seconds
END_SECONDS = 30.0
LOOK_SECONDS = 0.02


def is_running(home: Home) -> bool:
    """Return whether an agent listens."""
    try:
        Connection(home).close()
    except NotRunning:
        return False
    return True


def start(home: Home, passphrase: str, *, create: bool = False, idle: float | None = None) -> None:
    """Start an agent, unless one runs, and wait until it answers. Raise `Refused`, also for a wrong passphrase."""
    home.make()
    with _one_at_a_time(home):
        if not is_running(home):
            _spawn(
                home, json.dumps({"passphrase": passphrase, "create": create, "idle": idle}).encode() + b"\n"
            )


def wait_for_end(home: Home, seconds: float = END_SECONDS) -> None:
    """Wait until an agent that was told to end has closed its files and freed its lock.

    Raise `AgentError` if it has not after `seconds`.
    """
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(home, descriptor, "did not end", seconds)
    finally:
        os.close(descriptor)


def hung(home: Home, what: str) -> AgentError:
    """Return the error for an agent that does not do what it has to; `what` says that of it."""
    with suppress(OSError, ValueError):
        number = int(home.lock.read_text())
        return AgentError(
            f"the agent, process {number}, {what}: `kill -9 {number}` ends it, and nothing stored is lost"
        )
    return AgentError(f"the agent {what}")


def _take(home: Home, descriptor: int, what: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise hung(home, f"{what} within {seconds:g} s") from None
            time.sleep(LOOK_SECONDS)
        else:
            return


def _spawn(home: Home, opening: bytes) -> None:
    environment = {name: value for name, value in os.environ.items() if name != PASSPHRASE_VARIABLE}
    # -P: import nothing from the current directory
    command = [
        sys.executable,
        "-P",
        "-m",
        "mimi_mmr",
        "agent",
        "run",
        "--from-pipe",
        "--home",
        str(home.path),
    ]
    log = os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        if os.fstat(log).st_size > MAX_LOG:
            os.ftruncate(log, 0)
        child = subprocess.Popen(  # noqa: S603  # this very program
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
    finally:
        os.close(log)
    assert child.stdin is not None and child.stdout is not None  # noqa: S101  # they are pipes
    with child.stdout, child.stdin:
        try:
            child.stdin.write(opening)
            child.stdin.flush()
        except BrokenPipeError:
            pass  # the agent has failed already, and says why on its stdout
        answer = _first_line(child.stdout.fileno())
    if b'"ready"' not in answer:
        child.kill()
        child.wait()
        raise _failure(home, answer)
    child.returncode = 0  # the agent outlives this process, so nobody waits for it


def _first_line(descriptor: int) -> bytes:
    """Return what an agent that is being started says: one line, or nothing if it ended or took too long."""
    line, end = b"", time.monotonic() + START_SECONDS
    while not line.endswith(b"\n"):
        left = end - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            break
        more = os.read(descriptor, 1 << 16)
        if not more:
            break
        line += more
    return line


def _failure(home: Home, answer: bytes) -> AgentError:
    try:
        error = json.loads(answer)["error"]
        return Refused(error["code"], error["message"], error.get("hint", ""))
    except (ValueError, KeyError, TypeError):
        return AgentError(f"the agent did not start; {home.log} may say why")


@contextmanager
def _one_at_a_time(home: Home) -> Iterator[None]:
    """Let only one command start an agent: a second command waits here, and then finds the agent running."""
    descriptor = os.open(home.starting, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(home, descriptor, "did not start", START_SECONDS)
        yield
    finally:
        os.close(descriptor)
