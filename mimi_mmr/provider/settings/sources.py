"""Where settings come from: a TOML file, and environment variables; what is mistaken in either is refused."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings

from mimi_mmr.errors import ConfigError
from mimi_mmr.provider.settings.model import PREFIX, AssetHostSettings, Settings
from mimi_mmr.provider.settings.names import alike, every, variable

OF_PEOPLE = {f"{PREFIX}HOME", f"{PREFIX}PASSPHRASE"}  # of the commands that use an account


def check_environment(kind: type[BaseSettings]) -> None:
    """Refuse a variable that no setting of any command has, and name one that it is like."""
    known = {
        variable(part, setting.name) for part in (Settings, AssetHostSettings) for setting in every(part)
    }
    known |= {variable(part, name) for part in (Settings, AssetHostSettings) for name in part.model_fields}
    known |= OF_PEOPLE
    first = kind.model_config.get("env_prefix", "")
    for name in sorted(os.environ):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known or upper.startswith(f"{PREFIX}PEERS__"):
            continue
        hint = alike(upper, sorted(known, key=lambda one: (not one.startswith(first), one)))
        raise ConfigError(f"{name}: no such setting{hint}")


def read_file(path: Path, kind: type[BaseSettings]) -> Mapping[str, Any]:
    """Return what a TOML file says, with its relative paths taken from where it lies; raise `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not TOML: not UTF-8") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    _check_quotes(values.get("peers"))
    defaults = {name: field.default for name, field in kind.model_fields.items()}
    beside = {name: path.parent / value for name, value in defaults.items() if isinstance(value, Path)}
    return beside | {name: _absolute(name, value, path.parent) for name, value in values.items()}


def _check_quotes(peers: object) -> None:
    """Refuse a domain without quotes, which is a table in a table in TOML."""
    if not isinstance(peers, dict):
        return
    for name, value in peers.items():
        parts = [name]
        while isinstance(value, dict) and value:
            part, value = next(iter(value.items()))
            parts.append(part)
        if len(parts) > 1:
            domain = ".".join(parts)
            raise ConfigError(f'peers.{domain}: expected the domain in quotes: "{domain}" = "https://…"')


def _absolute(name: str, value: Any, base: Path) -> Any:
    """Return a value of a file with its relative paths taken from the file's directory."""
    if name.endswith("_dir") and isinstance(value, str):
        return base / value
    if name == "tls" and isinstance(value, dict):
        return {key: base / entry if isinstance(entry, str) else entry for key, entry in value.items()}
    if name == "database" and isinstance(value, dict):
        return {
            key: _beside(entry, base) if isinstance(entry, str) else entry for key, entry in value.items()
        }
    return value


def _beside(url: str, base: Path) -> str:
    """Return a SQLite URL with a relative path as one with the file's directory before it."""
    relative = re.fullmatch(r"(sqlite(?:\+\w+)?:///)(?!/|:memory:|file:)(.+)", url)
    return f"{relative[1]}{base / relative[2]}" if relative else url
