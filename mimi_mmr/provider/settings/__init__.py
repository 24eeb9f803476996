"""A provider's settings: a TOML file, environment variables that override it, and working defaults.

Variables are `MIMI_MMR_DOMAIN`, `MIMI_MMR_TLS__CERTIFICATE` and so on; two underscores separate a table from its
key. Settings are checked before anything is opened. An error names the setting and what was expected; it never
repeats a value, which may be secret.
"""

from mimi_mmr.provider.settings.load import load_asset_host_settings, load_settings
from mimi_mmr.provider.settings.model import (
    ASSETS_PREFIX,
    PREFIX,
    ROLES,
    AssetHostSettings,
    AssetStorage,
    ConnectionSettings,
    Databases,
    ServerTls,
    Settings,
)
from mimi_mmr.provider.settings.names import every, settings_table, variable
from mimi_mmr.provider.settings.sockets import activated_socket, socket_was_passed

__all__ = [
    "ASSETS_PREFIX",
    "PREFIX",
    "ROLES",
    "AssetHostSettings",
    "AssetStorage",
    "ConnectionSettings",
    "Databases",
    "ServerTls",
    "Settings",
    "activated_socket",
    "every",
    "load_asset_host_settings",
    "load_settings",
    "settings_table",
    "socket_was_passed",
    "variable",
]
