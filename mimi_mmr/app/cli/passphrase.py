"""Where a passphrase comes from: a file, the environment, or the person at the terminal; never an argument."""

from __future__ import annotations

import getpass
import os
import stat
from pathlib import Path

from mimi_mmr.app.agent.launch import PASSPHRASE_VARIABLE
from mimi_mmr.app.cli import terminal
from mimi_mmr.app.commands.errors import AgentError
from mimi_mmr.app.commands.passphrases import check_new_passphrase
from mimi_mmr.errors import ConfigError

FILE_OPTION = "--passphrase-file"
_ELSEWHERE = f"set {PASSPHRASE_VARIABLE}, or use {FILE_OPTION}"


def given_passphrase(file: Path | None) -> str | None:
    """Return the passphrase in a file or the environment; None if somebody has to be asked. Raise `ConfigError`."""
    if file is not None:
        return read_passphrase(file, FILE_OPTION)
    return os.environ.get(PASSPHRASE_VARIABLE) or None


def given_new_passphrase(file: Path | None) -> str | None:
    """Return the same for a new state. Raise `ConfigError` also for a passphrase that is too short."""
    given = given_passphrase(file)
    return None if given is None else _checked(given, FILE_OPTION if file else PASSPHRASE_VARIABLE)


def read_passphrase(path: Path, option: str) -> str:
    """Return the first line of a file in UTF-8. Raise `ConfigError`, which names the option that named the file."""
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode) and found.st_mode & 0o007:
            raise ConfigError(f"{option}: readable by others; expected mode 640 or less: {path}")
        first = path.read_text("utf-8-sig").partition("\n")[0].removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"{option}: {why}: {path}") from None
    if not first:
        raise ConfigError(f"{option}: expected a passphrase in the first line of {path}")
    return first


def read_new_passphrase(path: Path, option: str) -> str:
    """Return the same for a new passphrase. Raise `ConfigError` also if it is too short."""
    return _checked(read_passphrase(path, option), option)


def ask_passphrase(prompt: str = "Passphrase", elsewhere: str = _ELSEWHERE) -> str:
    """Ask on the terminal. Raise `AgentError` if there is none; it says where `elsewhere` a passphrase may be."""
    _check_terminal(elsewhere)
    try:
        return getpass.getpass(f"{prompt}: ")
    except UnicodeDecodeError as error:
        raise AgentError(f"what was typed is not {error.encoding.upper()}, the terminal's encoding") from None


def ask_new_passphrase(elsewhere: str = _ELSEWHERE) -> str:
    """Ask twice, until both are the same and long enough. Say what was wrong."""
    while True:
        first = ask_passphrase("New passphrase", elsewhere)
        try:
            check_new_passphrase(first)
        except ValueError as error:
            terminal.note(f"mimi-mmr: {error}")
            continue
        if ask_passphrase("The same again", elsewhere) == first:
            return first
        terminal.note("mimi-mmr: the two were not the same: try again")


def _checked(text: str, whence: str) -> str:
    try:
        return check_new_passphrase(text)
    except ValueError as error:
        raise ConfigError(f"{whence}: {error}") from None


def _check_terminal(elsewhere: str) -> None:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        raise AgentError(f"no terminal to ask for the passphrase on: {elsewhere}") from None
