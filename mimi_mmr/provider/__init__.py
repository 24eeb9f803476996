"""The provider server: endpoints that answer directly, and endpoints that answer through the gateway only.

Public is what `__all__` names, `settings` and `store`; the other modules are internal.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mimi_mmr.provider.app import Provider
    from mimi_mmr.provider.http import Router
    from mimi_mmr.provider.hub import HubService

__all__ = [
    "HubService",
    "Provider",
    "Router",
]

_MODULES = {
    "HubService": "mimi_mmr.provider.hub",
    "Provider": "mimi_mmr.provider.app",
    "Router": "mimi_mmr.provider.http",
}


def __getattr__(name: str) -> object:
    """Import one of the names above at its first use, so that a command loads only the modules it needs."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value
