"""Tree Wrap: one secret per member of an MLS group, kept on a hub that can't read any of them."""

from treewrap.changes import (
    Blank,
    Change,
    ChangeKind,
    Rebuild,
    Reject,
    Repair,
    Set,
    SetRoomSecret,
)
from treewrap.errors import (
    ChangeError,
    ConfirmationError,
    DeferredError,
    FollowError,
    LinkError,
    NodeError,
    ParseError,
    StagedError,
    StaleEpoch,
    StaleTree,
    StateError,
    TreeHashMismatch,
    TreeWrapError,
    UpdateRefused,
    WrapError,
    WrongEpochSecret,
)
from treewrap.geometry import NodeRef
from treewrap.light.paths import OpenedPaths, PathQuery, Paths
from treewrap.light.tree import LightTree
from treewrap.links.deferred import DeferredLeaf
from treewrap.links.join import LinkSnapshot, open_link, open_link_light
from treewrap.links.records import (
    AddLink,
    ExpireLink,
    Kem,
    Link,
    LinkSeal,
    LiveLink,
    RevokeLink,
    UseLink,
    Verifier,
)
from treewrap.links.seals import LinkKey
from treewrap.member import WrapTree
from treewrap.outcome import Staged, StagedCommit
from treewrap.public import PublicTree, StagedPublic
from treewrap.secret import EpochSecret, LeafSecret, RoomSecret, RootKey, Secret
from treewrap.suite import ARITIES, Suite
from treewrap.wire import LeafChange, MemberUpdate, TreeUpdate

__all__ = [
    "ARITIES",
    "AddLink",
    "Blank",
    "Change",
    "ChangeError",
    "ChangeKind",
    "ConfirmationError",
    "DeferredError",
    "DeferredLeaf",
    "EpochSecret",
    "ExpireLink",
    "FollowError",
    "Kem",
    "LeafChange",
    "LeafSecret",
    "LightTree",
    "Link",
    "LinkError",
    "LinkKey",
    "LinkSeal",
    "LinkSnapshot",
    "LiveLink",
    "MemberUpdate",
    "NodeError",
    "NodeRef",
    "OpenedPaths",
    "ParseError",
    "PathQuery",
    "Paths",
    "PublicTree",
    "Rebuild",
    "Reject",
    "Repair",
    "RevokeLink",
    "RoomSecret",
    "RootKey",
    "Secret",
    "Set",
    "SetRoomSecret",
    "Staged",
    "StagedCommit",
    "StagedError",
    "StagedPublic",
    "StaleEpoch",
    "StaleTree",
    "StateError",
    "Suite",
    "TreeHashMismatch",
    "TreeUpdate",
    "TreeWrapError",
    "UpdateRefused",
    "UseLink",
    "Verifier",
    "WrapError",
    "WrapTree",
    "WrongEpochSecret",
    "open_link",
    "open_link_light",
]
