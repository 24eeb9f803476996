"""The tables of three databases that share no key: a provider's hub, its accounts, its anonymous deliveries.

No column links an account to a pseudonym, a queue to a KeyPackage set, or a request to an address. The revisions
in `migrations/<role>` create and change the tables; this module describes them after the newest revision.
"""

from __future__ import annotations

import sqlalchemy as sa

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# --- hub ---------------------------------------------------------------------------------------------

hub = sa.MetaData(info={"role": "hub"})

rooms = sa.Table(
    "rooms",
    hub,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("arity", sa.Integer, nullable=False),
    sa.Column("commit_hash", sa.LargeBinary, nullable=False),
)

# A node's row is valid from `epoch_from` up to, not including, `epoch_to`. So a joiner gets the trees of its
# Welcome's epoch even if the room has moved on.
room_nodes = sa.Table(
    "room_nodes",
    hub,
    sa.Column("room", sa.Text, sa.ForeignKey("rooms.id"), primary_key=True),
    sa.Column("tree", sa.SmallInteger, primary_key=True),
    sa.Column("level", sa.SmallInteger, primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True),
    sa.Column("epoch_from", sa.BigInteger, primary_key=True),
    sa.Column("epoch_to", sa.BigInteger),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

room_epochs = sa.Table(
    "room_epochs",
    hub,
    sa.Column("room", sa.Text, sa.ForeignKey("rooms.id"), primary_key=True),
    sa.Column("epoch", sa.BigInteger, primary_key=True),
    sa.Column("wrap_header", sa.LargeBinary, nullable=False),
    sa.Column("policy", sa.LargeBinary, nullable=False),
    sa.Column("room_state", sa.LargeBinary),
    sa.Column("commit_hash", sa.LargeBinary, nullable=False),
    sa.Column("auth", sa.LargeBinary),
)

# Members who reported that they can't process the commit that began an epoch. Rows of schema 1 have no `report`.
commit_reports = sa.Table(
    "commit_reports",
    hub,
    sa.Column("room", sa.Text, sa.ForeignKey("rooms.id"), primary_key=True),
    sa.Column("epoch", sa.BigInteger, primary_key=True),
    sa.Column("leaf", sa.BigInteger, primary_key=True),
    sa.Column("report", sa.LargeBinary),
)

# Commits that were undone, by the epoch that they had begun: none of them is accepted again.
undone_commits = sa.Table(
    "undone_commits",
    hub,
    sa.Column("room", sa.Text, sa.ForeignKey("rooms.id"), primary_key=True),
    sa.Column("epoch", sa.BigInteger, primary_key=True),
    sa.Column("commit_hash", sa.LargeBinary, primary_key=True),
)

# Join links, with what is needed to count uses. A revoked link stays until it expires, with 0 uses left.
join_links = sa.Table(
    "join_links",
    hub,
    sa.Column("room", sa.Text, sa.ForeignKey("rooms.id"), primary_key=True),
    sa.Column("id", sa.LargeBinary, primary_key=True),
    sa.Column("public_key", sa.LargeBinary, nullable=False),
    sa.Column("expiry", sa.BigInteger, nullable=False, index=True),
    sa.Column("uses_left", sa.Integer, nullable=False),
)

# Hashes of forwarded requests to join, kept as long as their link, so that each request counts once.
join_requests = sa.Table(
    "join_requests",
    hub,
    sa.Column("room", sa.Text, sa.ForeignKey("rooms.id"), primary_key=True),
    sa.Column("link", sa.LargeBinary, primary_key=True),
    sa.Column("digest", sa.LargeBinary, primary_key=True),
)

outbox = sa.Table(
    "outbox",
    hub,
    sa.Column("id", _SERIAL, primary_key=True, autoincrement=True),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Index("outbox_by_destination", "destination", "id"),
)

# --- accounts ----------------------------------------------------------------------------------------

accounts = sa.MetaData(info={"role": "accounts"})

users = sa.Table(
    "users",
    accounts,
    sa.Column("uri", sa.Text, primary_key=True),
    sa.Column("open", sa.Boolean, nullable=False),
)

# A closed account's row stays in `users`, so that no later account gets its name and its requests.
devices = sa.Table(
    "devices",
    accounts,
    sa.Column("device", sa.Text, primary_key=True),
    sa.Column("uri", sa.Text, sa.ForeignKey("users.uri"), nullable=False, index=True),
    sa.Column("public_key", sa.LargeBinary, nullable=False),
    sa.Column("token_hash", sa.LargeBinary, nullable=False, unique=True),
)

connection_packages = sa.Table(
    "connection_packages",
    accounts,
    sa.Column("id", _SERIAL, primary_key=True, autoincrement=True),
    sa.Column("uri", sa.Text, sa.ForeignKey("users.uri"), nullable=False, index=True),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("package", sa.LargeBinary, nullable=False),
    sa.Column("last_resort", sa.Boolean, nullable=False),
    sa.Column("expiry", sa.BigInteger, nullable=False),
)

connection_requests = sa.Table(
    "connection_requests",
    accounts,
    sa.Column("id", _SERIAL, primary_key=True, autoincrement=True),
    sa.Column("uri", sa.Text, sa.ForeignKey("users.uri"), nullable=False, index=True),
    sa.Column("deposit", sa.LargeBinary, nullable=False),
)

# --- deliveries --------------------------------------------------------------------------------------

deliveries = sa.MetaData(info={"role": "deliveries"})

queues = sa.Table(
    "queues",
    deliveries,
    sa.Column("id", sa.LargeBinary, primary_key=True),
    sa.Column("accepts_deposits", sa.Boolean, nullable=False),
    sa.Column("next_sequence", sa.BigInteger, nullable=False),
    sa.Column("lost", sa.BigInteger, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
)

# One row: the number of queues, so that no query has to count them.
queue_count = sa.Table(
    "queue_count",
    deliveries,
    sa.Column("row", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("count", sa.BigInteger, nullable=False),
)

queue_messages = sa.Table(
    "queue_messages",
    deliveries,
    sa.Column("queue", sa.LargeBinary, sa.ForeignKey("queues.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True),
    sa.Column("message", sa.LargeBinary, nullable=False),
    sa.Column("received", sa.BigInteger, nullable=False),
)

transactions = sa.Table(
    "transactions",
    deliveries,
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("expiry", sa.BigInteger, nullable=False, index=True),
)

# `expiry` (a day): all that was signed for the shelf has expired by then, so the row can be deleted.
shelves = sa.Table(
    "shelves",
    deliveries,
    sa.Column("id", sa.LargeBinary, primary_key=True),
    sa.Column("upload_public_key", sa.LargeBinary, nullable=False),
    sa.Column("open", sa.Boolean, nullable=False),
    sa.Column("expiry", sa.BigInteger, nullable=False, index=True),
)

key_package_sets = sa.Table(
    "key_package_sets",
    deliveries,
    sa.Column("shelf", sa.LargeBinary, sa.ForeignKey("shelves.id"), primary_key=True),
    sa.Column("serial", sa.LargeBinary, primary_key=True),
    sa.Column("key_packages", sa.LargeBinary, nullable=False),
    sa.Column("last_resort", sa.Boolean, nullable=False),
    sa.Column("uses", sa.Integer, nullable=False),
    sa.Column("expiry", sa.BigInteger, nullable=False),
)

ROLES = {metadata.info["role"]: metadata for metadata in (hub, accounts, deliveries)}
