"""Sources of settings: a TOML file and environment variables. Unknown names in either are refused."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic_settings import BaseSettings

from mimi_mmr.errors import ConfigError
from mimi_mmr.provider.settings.model import PREFIX, AssetHostSettings, Settings
from mimi_mmr.provider.settings.names import alike, every, variable

# What Kubernetes and Docker set in every container for each service beside it, here for one named `mimi-mmr` or
# `mimi-mmr-…`: MIMI_MMR_PORT=tcp://10.0.0.1:443, MIMI_MMR_PORT_443_TCP_ADDR, MIMI_MMR_SERVICE_HOST and so on.
_OF_SERVICES = (
    (re.compile(r"(?:\w+_)?PORT(?:_\d+_(?:TCP|UDP|SCTP))?"), re.compile(r"(?:tcp|udp|sctp)://.*")),
    (re.compile(r"(?:\w+_)?PORT_\d+_(?:TCP|UDP|SCTP)_PROTO"), re.compile(r"tcp|udp|sctp")),
    (re.compile(r"(?:\w+_)?PORT_\d+_(?:TCP|UDP|SCTP)_PORT"), re.compile(r"\d+")),
    (re.compile(r"(?:\w+_)?PORT_\d+_(?:TCP|UDP|SCTP)_ADDR"), re.compile(r".*")),
    (re.compile(r"(?:\w+_)?SERVICE_HOST"), re.compile(r".*")),
    (re.compile(r"(?:\w+_)?SERVICE_PORT(?:_\w+)?"), re.compile(r"\d+")),
)
OF_PEOPLE = {f"{PREFIX}HOME", f"{PREFIX}PASSPHRASE"}  # for the client's commands


def check_environment(kind: type[BaseSettings]) -> None:
    """Refuse an environment variable that no command's setting has, and suggest a similar one."""
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
        if _is_of_a_service(upper.removeprefix(PREFIX), os.environ[name]):
            continue
        hint = alike(upper, sorted(known, key=lambda one: (not one.startswith(first), one)))
        raise ConfigError(f"{name}: no such setting{hint}")


def _is_of_a_service(name: str, value: str) -> bool:
    """Return whether Kubernetes sets such a variable by itself. MIMI_MMR_PORT=8443 is a person's mistake."""
    return any(names.fullmatch(name) and values.fullmatch(value.strip()) for names, values in _OF_SERVICES)


def read_file(path: Path, kind: type[BaseSettings]) -> Mapping[str, Any]:
    """Read a TOML file; its relative paths are relative to the file's directory. Raise `ConfigError`."""
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
    """Refuse a domain without quotes: TOML reads it as nested tables."""
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
    """Return a value of a file; resolve relative paths against the file's directory."""
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
    """Return a SQLite URL; put the file's directory before a relative path."""
    relative = re.fullmatch(r"(sqlite(?:\+\w+)?:///)(?!/|:memory:|file:)(.+)", url)
    return f"{relative[1]}{quote(str(base))}/{relative[2]}" if relative else url
