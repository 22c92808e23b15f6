"""Nodes: who there is, what each has, who looks after it.

The columns are written out here, not taken from `store.tables`: that module goes on changing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables and columns."""
    op.create_table(
        "nodes",
        sa.Column("node_id", sa.String(128), nullable=False),
        sa.Column("address", sa.String(256), nullable=False),
        sa.Column("data_address", sa.String(256), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("driver", sa.String(32), nullable=False),
        sa.Column("accelerator", sa.String(32), nullable=False),
        sa.Column("cpu_model", sa.String(128), nullable=False),
        sa.Column("cpu_count", sa.Integer(), nullable=False),
        sa.Column("cpu_used", sa.Float(), nullable=False),
        sa.Column("memory_total_mb", sa.BigInteger(), nullable=False),
        sa.Column("memory_available_mb", sa.BigInteger(), nullable=False),
        sa.Column("disk_available_mb", sa.BigInteger(), nullable=False),
        sa.Column("max_sandboxes", sa.Integer(), nullable=False),
        sa.Column("max_ram_mb", sa.BigInteger(), nullable=False),
        sa.Column("shared_directory", sa.String(64), nullable=False),
        sa.Column("ready", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(512), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("registered_at", _MOMENT, nullable=False),
        sa.Column("seen_at", _MOMENT, nullable=False),
        sa.Column("keeper_id", sa.String(256)),
        sa.Column("kept_until", _MOMENT),
        sa.PrimaryKeyConstraint("node_id", name="pk_nodes"),
    )
    op.create_table(
        "node_templates",
        sa.Column("node_id", sa.String(128), nullable=False),
        sa.Column("template_id", sa.String(64), nullable=False),
        sa.Column("build_id", sa.String(36), nullable=False),
        sa.Column("vcpu", sa.Integer(), nullable=False),
        sa.Column("ram_mb", sa.Integer(), nullable=False),
        sa.Column("disk_mb", sa.Integer(), nullable=False),
        sa.Column("envd_version", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("node_id", "template_id", name="pk_node_templates"),
    )
    op.add_column("teams", sa.Column("node_labels", sa.JSON()))


def downgrade() -> None:
    """Drop them."""
    with op.batch_alter_table("teams") as table:
        table.drop_column("node_labels")
    op.drop_table("node_templates")
    op.drop_table("nodes")
