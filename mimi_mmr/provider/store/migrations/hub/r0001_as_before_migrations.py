"""The hub's tables as version 0.1.0 made them; that version recorded no schema number."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "hub_0001_0.1.0"
down_revision = None

tables = sa.MetaData()

sa.Table(
    "rooms",
    tables,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("arity", sa.Integer, nullable=False),
)
sa.Table(
    "room_nodes",
    tables,
    sa.Column("room", sa.Text, sa.ForeignKey("rooms.id"), primary_key=True),
    sa.Column("tree", sa.SmallInteger, primary_key=True),
    sa.Column("level", sa.SmallInteger, primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True),
    sa.Column("epoch_from", sa.BigInteger, primary_key=True),
    sa.Column("epoch_to", sa.BigInteger),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
sa.Table(
    "room_epochs",
    tables,
    sa.Column("room", sa.Text, sa.ForeignKey("rooms.id"), primary_key=True),
    sa.Column("epoch", sa.BigInteger, primary_key=True),
    sa.Column("wrap_header", sa.LargeBinary, nullable=False),
    sa.Column("policy", sa.LargeBinary, nullable=False),
    sa.Column("room_state", sa.LargeBinary),
    sa.Column("commit_hash", sa.LargeBinary, nullable=False),
)
sa.Table(
    "commit_reports",
    tables,
    sa.Column("room", sa.Text, sa.ForeignKey("rooms.id"), primary_key=True),
    sa.Column("epoch", sa.BigInteger, primary_key=True),
    sa.Column("leaf", sa.BigInteger, primary_key=True),
)
sa.Table(
    "join_links",
    tables,
    sa.Column("room", sa.Text, sa.ForeignKey("rooms.id"), primary_key=True),
    sa.Column("id", sa.LargeBinary, primary_key=True),
    sa.Column("public_key", sa.LargeBinary, nullable=False),
    sa.Column("expiry", sa.BigInteger, nullable=False, index=True),
    sa.Column("uses_left", sa.Integer, nullable=False),
)
sa.Table(
    "join_requests",
    tables,
    sa.Column("room", sa.Text, sa.ForeignKey("rooms.id"), primary_key=True),
    sa.Column("link", sa.LargeBinary, primary_key=True),
    sa.Column("digest", sa.LargeBinary, primary_key=True),
)
sa.Table(
    "outbox",
    tables,
    sa.Column(
        "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
    ),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Index("outbox_by_destination", "destination", "id"),
)


def upgrade(op: Operations) -> None:
    """Create the tables."""
    tables.create_all(op.get_bind())
