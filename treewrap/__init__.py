"""Tree Wrap: one secret per member of an MLS group, stored on a hub that can't read any of them.

Public: the names in `__all__`. The modules are internal.

    errors, labels, secret, codec, suite, geometry   no knowledge of trees in memory
    nodes, changes, root, wire, rows, state          what a tree holds, and its bytes
    outcome, rules, stage, follow, verify            one change: made, followed, checked
    public, member                                   the hub's tree, a member's full tree
    links/                                           join links and deferred leaves; only `join` imports a tree
    light/                                           the light tree; no module of the core imports it
    vectors                                          test vectors for other implementations
"""

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
from treewrap.light.paths import OpenedPaths, PathQuery, Paths, answer_paths
from treewrap.light.tree import LightTree
from treewrap.links.counting import LinkCounter, LinkLimit
from treewrap.links.deferred import DeferredLeaf
from treewrap.links.join import LinkSnapshot, open_link, open_link_light
from treewrap.links.records import AddLink, ExpireLink, Kem, Link, LinkSeal, LiveLink, RevokeLink, UseLink
from treewrap.links.rules import Verifier
from treewrap.links.seals import LinkKey
from treewrap.member import WrapTree
from treewrap.outcome import Staged
from treewrap.public import PublicTree, StagedPublic
from treewrap.secret import EpochSecret, LeafSecret, RoomSecret, RootKey, Secret
from treewrap.stage import StagedCommit
from treewrap.suite import ARITIES, DEFAULT_ARITY, Suite
from treewrap.wire import LeafChange, MemberUpdate, TreeUpdate

__all__ = [
    "ARITIES",
    "DEFAULT_ARITY",
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
    "LinkCounter",
    "LinkError",
    "LinkKey",
    "LinkLimit",
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
    "answer_paths",
    "open_link",
    "open_link_light",
]
