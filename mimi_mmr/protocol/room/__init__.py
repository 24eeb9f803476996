"""Messages about one room between members, hub and providers: requests, events, deliveries, and their documents.

Public is what `__all__` names; the modules are internal.
"""

from mimi_mmr.protocol.room.deliveries import Delivery, NotifyRequest
from mimi_mmr.protocol.room.departures import Departure
from mimi_mmr.protocol.room.events import (
    ApplicationEvent,
    CommitEvent,
    EventKind,
    FanoutMessage,
    RoomEvent,
    TaggedMessage,
    WelcomeEvent,
    event_epoch,
)
from mimi_mmr.protocol.room.join_links import JoinLink
from mimi_mmr.protocol.room.link_orders import JoinRequest, LinkKind, LinkOrder
from mimi_mmr.protocol.room.members_only import MembersOnlyState
from mimi_mmr.protocol.room.policy import Identities, Role, RoleAssignment, RoomPolicy, SignedPolicy
from mimi_mmr.protocol.room.requests import (
    CommitAuth,
    CommitReport,
    CreateRoomRequest,
    RepairKind,
    Snapshot,
    SnapshotRequest,
    SubmitMessageRequest,
    UpdateCode,
    UpdateRequest,
    UpdateRoomResponse,
    group_id,
)
from mimi_mmr.protocol.room.welcome_proofs import WelcomeProof

__all__ = [
    "ApplicationEvent",
    "CommitAuth",
    "CommitEvent",
    "CommitReport",
    "CreateRoomRequest",
    "Delivery",
    "Departure",
    "EventKind",
    "FanoutMessage",
    "Identities",
    "JoinLink",
    "JoinRequest",
    "LinkKind",
    "LinkOrder",
    "MembersOnlyState",
    "NotifyRequest",
    "RepairKind",
    "Role",
    "RoleAssignment",
    "RoomEvent",
    "RoomPolicy",
    "SignedPolicy",
    "Snapshot",
    "SnapshotRequest",
    "SubmitMessageRequest",
    "TaggedMessage",
    "UpdateCode",
    "UpdateRequest",
    "UpdateRoomResponse",
    "WelcomeEvent",
    "WelcomeProof",
    "event_epoch",
    "group_id",
]
