"""Loading settings from a file and environment variables, and checks between settings."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

from mimi_mmr.errors import ConfigError
from mimi_mmr.provider.settings.apart import check_apart
from mimi_mmr.provider.settings.model import AssetHostSettings, Settings
from mimi_mmr.provider.settings.sockets import socket_was_passed
from mimi_mmr.provider.settings.sources import check_environment, read_file
from mimi_mmr.provider.settings.words import explain

_S = TypeVar("_S", bound=BaseSettings)


def load_settings(path: Path | None) -> Settings:
    """Return a provider's settings; raise `ConfigError`, which names every bad one."""
    settings = _load(Settings, path)
    if settings.domain in settings.peers:
        raise ConfigError(
            f"peers: {settings.domain} is this provider; a gateway must not be relayed to itself"
        )
    for domain, url in settings.peers.items():
        if _endpoint(url) == _endpoint(settings.base_url):
            raise ConfigError(f"peers.{domain}: expected the peer's URL, not base_url, which is one's own")
    check_apart(settings)
    if not settings.trust_dir.is_dir():
        raise ConfigError(
            f"trust_dir: no such directory: {settings.trust_dir}; expected that of {settings.domain}.pem, which"
            " mimi-mmr ca makes, and of the peers' certificates"
        )
    return settings


def load_asset_host_settings(path: Path | None) -> AssetHostSettings:
    """Return an asset host's settings; raise `ConfigError`, which names every bad one."""
    return _load(AssetHostSettings, path)


def _load(kind: type[_S], path: Path | None) -> _S:
    values = read_file(path, kind) if path is not None else {}
    prefix = kind.model_config.get("env_prefix", "")
    check_environment(kind)
    try:
        settings = kind(**values)
    except ValidationError as error:
        raise ConfigError(explain(error, kind, prefix)) from None
    except SettingsError as error:  # a table in one variable; the error names the field, not the value
        field = re.search(r'"(\w+)"', str(error))
        top = f"{prefix}{field[1] if field else ''}".upper()
        given = sorted(name for name in os.environ if f"{name.upper()}__".startswith(f"{top}__"))
        raise ConfigError(
            f"{', '.join(given)}: expected JSON, for a table or a list in one variable"
        ) from None
    if "listen" not in settings.model_fields_set and socket_was_passed():
        return settings.model_copy(update={"listen": "fd:3"})
    return settings


def _endpoint(url: str) -> tuple[str | None, int]:
    parts = urlsplit(url)
    return parts.hostname, parts.port or 443
