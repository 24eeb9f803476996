"""The labels of the construction. No two keys, hashes, signatures or sealed contents share one."""

from __future__ import annotations

PREFIX = b"TreeWrap 1.0 "

# ExpandWithLabel puts the prefix in front of these.
NODE_KEY = b"node"
LEAF_WRAP = b"leaf"
ROOM_WRAP = b"room"
LINKS_WRAP = b"links"
DEFERRED_WRAP = b"deferred"
CONFIRM_KEY = b"confirm"
WRAPS = (LEAF_WRAP, ROOM_WRAP, LINKS_WRAP, DEFERRED_WRAP)

# Hash inputs begin with these.
NODE_HASH = PREFIX + b"node"
CHILDREN_HASH = PREFIX + b"children"
TREE_HASH = PREFIX + b"tree"

# Signed contents and HPKE's info begin with these, encoded as <V>.
LINK_TBS = PREFIX + b"link"
REVOKE_TBS = PREFIX + b"revoke"
SEAL_INFO = PREFIX + b"seal"

# The inputs of the salt's HMAC. ExpandWithLabel's input begins with 0x00, these do not.
SALT = b"salt"
DEFERRED_SALT = b"deferred"

# The AAD of a sealed state: this, then "full" or "light".
STATE = PREFIX + b"state 1 "
