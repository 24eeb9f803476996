"""Storage: SQLAlchemy Core over SQLite (WAL) or PostgreSQL; one database for each role of a provider.

Public is what `__all__` names; the modules are internal.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mimi_mmr.provider.store.accounts import AccountStore
    from mimi_mmr.provider.store.database import Database
    from mimi_mmr.provider.store.deliveries import DeliveryStore
    from mimi_mmr.provider.store.hub import HubStore

__all__ = [
    "AccountStore",
    "Database",
    "DeliveryStore",
    "HubStore",
]

_MODULES = {
    "AccountStore": "mimi_mmr.provider.store.accounts",
    "Database": "mimi_mmr.provider.store.database",
    "DeliveryStore": "mimi_mmr.provider.store.deliveries",
    "HubStore": "mimi_mmr.provider.store.hub",
}


def __getattr__(name: str) -> object:
    """Import one of the names above at its first use, so that a command loads only the modules it needs."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value
