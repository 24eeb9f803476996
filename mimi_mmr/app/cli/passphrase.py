"""Where a passphrase comes from: a file, the environment, or the person at the terminal; never an argument."""

from __future__ import annotations

import getpass
import os
import stat
from pathlib import Path

from mimi_mmr.app.agent.launch import PASSPHRASE_VARIABLE
from mimi_mmr.app.commands.errors import AgentError
from mimi_mmr.errors import ConfigError


def given_passphrase(file: Path | None) -> str | None:
    """Return the passphrase in a file or the environment; None if somebody has to be asked."""
    if file is not None:
        return _from_file(file)
    return os.environ.get(PASSPHRASE_VARIABLE) or None


def ask_passphrase(prompt: str = "Passphrase") -> str:
    """Ask on the terminal. Raise `AgentError` if there is none."""
    _check_terminal()
    return getpass.getpass(f"{prompt}: ")


def ask_new_passphrase() -> str:
    """Ask twice, until both are the same and not empty."""
    while True:
        first = ask_passphrase("New passphrase")
        if not first:
            continue
        if ask_passphrase("The same again") == first:
            return first


def _from_file(path: Path) -> str:
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode) and found.st_mode & 0o007:
            raise ConfigError(f"--passphrase-file: readable by others; expected mode 640 or less: {path}")
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"--passphrase-file: {why}: {path}") from None
    if not lines or not lines[0]:
        raise ConfigError(f"--passphrase-file: expected a passphrase in the first line of {path}")
    return lines[0]


def _check_terminal() -> None:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        raise AgentError(
            f"no terminal to ask for the passphrase on: set {PASSPHRASE_VARIABLE}, or use --passphrase-file"
        ) from None
