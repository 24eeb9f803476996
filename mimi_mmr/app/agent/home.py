"""The directory where a person's state, socket and log are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mimi_mmr.app.commands.errors import AgentError
from mimi_mmr.errors import ConfigError

HOME_VARIABLE = "MIMI_MMR_HOME"
_LONGEST = 100  # a Unix socket's address has room for 107 bytes


def _user_home() -> Path:
    with suppress(RuntimeError):  # no HOME, and no such user in the system's list
        if os.environ.get("HOME") != "":
            return Path.home()
    raise ConfigError(
        "HOME is not set, and this user has no home directory: name the state's place with --home or"
        f" {HOME_VARIABLE}"
    )


@dataclass(frozen=True, slots=True)
class Home:
    """A directory of mode 0700, and the paths in it."""

    path: Path

    @classmethod
    def find(cls, given: Path | None) -> Home:
        """Return the given home, or that of MIMI_MMR_HOME, or `mimi-mmr` in the user's XDG data directory.

        Raise `ConfigError` if the user has none.
        """
        if given is not None:
            return cls(given.absolute())
        if from_environment := os.environ.get(HOME_VARIABLE):
            return cls(Path(from_environment).absolute())
        data = os.environ.get("XDG_DATA_HOME", "")
        base = Path(data) if Path(data).is_absolute() else _user_home() / ".local" / "share"
        return cls(base / "mimi-mmr")

    @property
    def state(self) -> Path:
        """The vault."""
        return self.path / "state"

    @property
    def socket(self) -> Path:
        """The socket on which the agent listens."""
        return self.path / "agent.sock"

    @property
    def lock(self) -> Path:
        """Locked while an agent runs; holds its process number."""
        return self.path / "agent.lock"

    @property
    def starting(self) -> Path:
        """Locked by a command while it starts an agent."""
        return self.path / "agent.starting"

    @property
    def log(self) -> Path:
        """The agent's log, without names, addresses and keys."""
        return self.path / "agent.log"

    def make(self) -> None:
        """Make the directory if it is missing. Raise `AgentError` as `check` does."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise AgentError(f"the home {self.path} can't be made: {error.strerror}").with_hint(
                f"name a place where directories can be made, with --home or {HOME_VARIABLE}"
            ) from None
        self.check()

    def remove(self) -> None:
        """Delete the agent's own files, and the directory if nothing else is in it. Call it while no agent runs."""
        for file in (self.socket, self.lock, self.starting, self.log):
            file.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def check(self) -> None:
        """Raise `AgentError` if other users can read the directory. A missing directory is accepted."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise AgentError(f"the home {self.path} can't be used: {error.strerror}") from None
        if found.st_uid != os.geteuid():
            raise AgentError(f"the home {self.path} belongs to another user")
        if found.st_mode & 0o077:
            raise AgentError(
                f"the home {self.path} is open to others: expected mode 700, found {found.st_mode & 0o777:o}"
            )

    @contextmanager
    def address(self) -> Iterator[str]:
        """Return the socket's address; through a descriptor if the path is too long for an address."""
        direct = str(self.socket)
        if len(os.fsencode(direct)) <= _LONGEST or not Path("/proc/self/fd").is_dir():
            yield direct
            return
        descriptor = os.open(self.path, os.O_PATH | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{descriptor}/{self.socket.name}"
        finally:
            os.close(descriptor)
