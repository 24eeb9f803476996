"""Minimal metadata rooms for MIMI: rooms whose hub sees pseudonyms only.

What an application begins with stands here; the rest is in `mimi_mmr.client` and `mimi_mmr.errors`. It is loaded
when it is first asked for: a provider, which imports other modules of this package, does not load a client.
"""

TYPE_CHECKING = False  # as type checkers read it; importing it would cost more than all the rest here
if TYPE_CHECKING:
    from mimi_mmr.client.client import Client
    from mimi_mmr.client.storage.vault import Vault
    from mimi_mmr.crypto.certificates import TrustAnchors
    from mimi_mmr.errors import (
        ConfigError,
        ConnectionRefused,
        HubRefusal,
        IdentityError,
        InvalidUri,
        MmrError,
        NoKeyPackages,
        NotAllowed,
        ParseError,
        PeerError,
        PrivatePathFailed,
        RoomError,
        StateError,
    )
    from mimi_mmr.protocol.room.join_links import JoinLink

__all__ = [
    "Client",
    "ConfigError",
    "ConnectionRefused",
    "HubRefusal",
    "IdentityError",
    "InvalidUri",
    "JoinLink",
    "MmrError",
    "NoKeyPackages",
    "NotAllowed",
    "ParseError",
    "PeerError",
    "PrivatePathFailed",
    "RoomError",
    "StateError",
    "TrustAnchors",
    "Vault",
]

_MODULES = {
    "Client": "mimi_mmr.client.client",
    "JoinLink": "mimi_mmr.protocol.room.join_links",
    "TrustAnchors": "mimi_mmr.crypto.certificates",
    "Vault": "mimi_mmr.client.storage.vault",
}


def __getattr__(name: str) -> object:
    """Load one of the names above; what has no module there is an error."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # a provider does without

    value: object = getattr(import_module(_MODULES.get(name, "mimi_mmr.errors")), name)
    globals()[name] = value
    return value
