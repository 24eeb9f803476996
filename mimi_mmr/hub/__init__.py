"""Hub mode: what a hub does for a minimal metadata room, without a socket or a database.

Public is what `__all__` names; the modules are internal.
"""

from mimi_mmr.hub.links import HubLink, check_join, check_order
from mimi_mmr.hub.mode import AcceptedCommit, HubMode, NewRoom
from mimi_mmr.hub.state import HubRoom, Member, Outgoing, TreeRows

__all__ = [
    "AcceptedCommit",
    "HubLink",
    "HubMode",
    "HubRoom",
    "Member",
    "NewRoom",
    "Outgoing",
    "TreeRows",
    "check_join",
    "check_order",
]
