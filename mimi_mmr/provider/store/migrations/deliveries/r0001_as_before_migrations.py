"""The deliveries' tables as version 0.1.0 made them; that version recorded no schema number."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "deliveries_0001_0.1.0"
down_revision = None

tables = sa.MetaData()

sa.Table(
    "queues",
    tables,
    sa.Column("id", sa.LargeBinary, primary_key=True),
    sa.Column("accepts_deposits", sa.Boolean, nullable=False),
    sa.Column("next_sequence", sa.BigInteger, nullable=False),
    sa.Column("lost", sa.BigInteger, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
)
sa.Table(
    "queue_count",
    tables,
    sa.Column("row", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("count", sa.BigInteger, nullable=False),
)
sa.Table(
    "queue_messages",
    tables,
    sa.Column("queue", sa.LargeBinary, sa.ForeignKey("queues.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True),
    sa.Column("message", sa.LargeBinary, nullable=False),
    sa.Column("received", sa.BigInteger, nullable=False),
)
sa.Table(
    "transactions",
    tables,
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("expiry", sa.BigInteger, nullable=False, index=True),
)
sa.Table(
    "shelves",
    tables,
    sa.Column("id", sa.LargeBinary, primary_key=True),
    sa.Column("upload_public_key", sa.LargeBinary, nullable=False),
    sa.Column("open", sa.Boolean, nullable=False),
    sa.Column("expiry", sa.BigInteger, nullable=False, index=True),
)
sa.Table(
    "key_package_sets",
    tables,
    sa.Column("shelf", sa.LargeBinary, sa.ForeignKey("shelves.id"), primary_key=True),
    sa.Column("serial", sa.LargeBinary, primary_key=True),
    sa.Column("key_packages", sa.LargeBinary, nullable=False),
    sa.Column("last_resort", sa.Boolean, nullable=False),
    sa.Column("uses", sa.Integer, nullable=False),
    sa.Column("expiry", sa.BigInteger, nullable=False),
)


def upgrade(op: Operations) -> None:
    """Create the tables."""
    tables.create_all(op.get_bind())
