"""An epoch is named by its number and the commit that began it; reports keep their signature."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.operations import Operations

revision = "hub_0002_0.3.0"
down_revision = "hub_0001_0.1.0"

_FILL = """
    update rooms set commit_hash = (
        select room_epochs.commit_hash from room_epochs
        where room_epochs.room = rooms.id and room_epochs.epoch = rooms.epoch
    )
"""


def upgrade(op: Operations) -> None:
    """Give each room the hash of its last commit. Older commits have no `auth`, older reports no signature."""
    op.add_column("rooms", sa.Column("commit_hash", sa.LargeBinary))
    op.execute(_FILL)
    with op.batch_alter_table("rooms") as rooms:
        rooms.alter_column("commit_hash", existing_type=sa.LargeBinary, nullable=False)
    op.add_column("room_epochs", sa.Column("auth", sa.LargeBinary))
    op.add_column("commit_reports", sa.Column("report", sa.LargeBinary))
    op.create_table(
        "undone_commits",
        sa.Column("room", sa.Text, sa.ForeignKey("rooms.id"), primary_key=True),
        sa.Column("epoch", sa.BigInteger, primary_key=True),
        sa.Column("commit_hash", sa.LargeBinary, primary_key=True),
    )
