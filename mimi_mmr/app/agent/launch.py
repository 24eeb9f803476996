"""How a command starts the agent. The passphrase goes through a pipe: not into an argument, nor the environment."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mimi_mmr.app.agent.errors import AgentError
from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.agent.link import Link, NotRunning, Refused

PASSPHRASE_VARIABLE = "MIMI_MMR_PASSPHRASE"  # noqa: S105  # a variable's name
MAX_LOG = 1 << 20


def is_running(home: Home) -> bool:
    """Whether an agent listens."""
    try:
        Link(home).close()
    except NotRunning:
        return False
    return True


def start(home: Home, passphrase: str, *, create: bool = False, idle: float | None = None) -> None:
    """Start an agent, unless there is one, and wait until it answers. `Refused` may be for a wrong passphrase."""
    home.make()
    with _one_at_a_time(home):
        if not is_running(home):
            _spawn(
                home, json.dumps({"passphrase": passphrase, "create": create, "idle": idle}).encode() + b"\n"
            )


def stop(home: Home) -> int:
    """End the agent, and wait until it has ended; gives its process number. Raises `NotRunning`."""
    with Link(home) as link:
        found: int = link.ask("stop")["pid"]
    wait_for_end(home)
    return found


def wait_for_end(home: Home) -> None:
    """Until the agent, which was told to end, has closed its files and let go of its lock."""
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def _spawn(home: Home, opening: bytes) -> None:
    environment = {name: value for name, value in os.environ.items() if name != PASSPHRASE_VARIABLE}
    # -P: nothing is imported from whatever directory this happens in
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
            pass  # it has something to say instead
        answer = child.stdout.readline(1 << 16)
    if b'"ready"' not in answer:
        child.wait()
        raise _failure(home, answer)
    child.returncode = 0  # it outlives this process, and is not waited for


def _failure(home: Home, answer: bytes) -> AgentError:
    try:
        error = json.loads(answer)["error"]
        return Refused(error["code"], error["message"], error["hint"])
    except (ValueError, KeyError, TypeError):
        return AgentError(f"the agent did not start; {home.log} may say why")


@contextmanager
def _one_at_a_time(home: Home) -> Iterator[None]:
    """Two commands at once start one agent: the second waits here, and finds it."""
    descriptor = os.open(home.starting, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
