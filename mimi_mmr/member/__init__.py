"""A member's room: the MLS group, the Tree Wrap tree, and the identities that the two together show.

The names in `__all__` are public; the modules are internal.
"""

from mimi_mmr.member.committing import PendingCommit
from mimi_mmr.member.following import Followed
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.leaves import PreparedKeyPackage, PreparedLeaf, prepare_key_package, prepare_leaf
from mimi_mmr.member.member_list import ListedMember, MemberList, UnreadableMember
from mimi_mmr.member.room import Room
from mimi_mmr.member.saved import SavedRoom
from mimi_mmr.member.whois import Standing, Whois

__all__ = [
    "CommitIntent",
    "Followed",
    "ListedMember",
    "MemberList",
    "PendingCommit",
    "PreparedKeyPackage",
    "PreparedLeaf",
    "Room",
    "SavedRoom",
    "Standing",
    "UnreadableMember",
    "Whois",
    "prepare_key_package",
    "prepare_leaf",
]
