"""The accounts' tables as version 0.1.0 made them; that version recorded no schema number."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "accounts_0001_0.1.0"
down_revision = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

tables = sa.MetaData()

sa.Table(
    "users",
    tables,
    sa.Column("uri", sa.Text, primary_key=True),
    sa.Column("open", sa.Boolean, nullable=False),
)
sa.Table(
    "devices",
    tables,
    sa.Column("device", sa.Text, primary_key=True),
    sa.Column("uri", sa.Text, sa.ForeignKey("users.uri"), nullable=False, index=True),
    sa.Column("public_key", sa.LargeBinary, nullable=False),
    sa.Column("token_hash", sa.LargeBinary, nullable=False, unique=True),
)
sa.Table(
    "connection_packages",
    tables,
    sa.Column("id", _SERIAL, primary_key=True, autoincrement=True),
    sa.Column("uri", sa.Text, sa.ForeignKey("users.uri"), nullable=False, index=True),
    sa.Column("device", sa.Text, nullable=False),
    sa.Column("package", sa.LargeBinary, nullable=False),
    sa.Column("last_resort", sa.Boolean, nullable=False),
    sa.Column("expiry", sa.BigInteger, nullable=False),
)
sa.Table(
    "connection_requests",
    tables,
    sa.Column("id", _SERIAL, primary_key=True, autoincrement=True),
    sa.Column("uri", sa.Text, sa.ForeignKey("users.uri"), nullable=False, index=True),
    sa.Column("deposit", sa.LargeBinary, nullable=False),
)


def upgrade(op: Operations) -> None:
    """Create the tables."""
    tables.create_all(op.get_bind())
