"""The event log.

The columns are written out here, not taken from `store.tables`: that module goes on changing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "sandbox_events",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("event_id", sa.String(36), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("what", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("sandbox_id", sa.String(64), nullable=False),
        sa.Column("execution_id", sa.String(36), nullable=False),
        sa.Column("team_id", sa.String(36), nullable=False),
        sa.Column("node_id", sa.String(128), nullable=False),
        sa.Column("template_id", sa.String(64), nullable=False),
        sa.Column("build_id", sa.String(36), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_sandbox_events"),
        sa.UniqueConstraint("event_id", name="uq_sandbox_events_event_id"),
    )
    op.create_index("ix_sandbox_events_at", "sandbox_events", ["at"])
    for column in ("sandbox_id", "team_id"):
        op.create_index(f"ix_sandbox_events_{column}_number", "sandbox_events", [column, "number"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("sandbox_events")
