"""Pause, resume and snapshots.

The columns are written out here, not taken from `store.tables`: that module goes on changing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)
_FIRST_TIMEOUT = "300"
"""Seconds, for sandboxes of before, whose own nobody wrote down: the default of v2."""


def upgrade() -> None:
    """Make the tables and columns."""
    _builds()
    _tags()
    for column in _columns_of_sandboxes():
        op.add_column("sandboxes", column)
    op.create_index("ix_sandboxes_build_id", "sandboxes", ["build_id"])


def downgrade() -> None:
    """Drop them, those that refer to others first."""
    op.drop_index("ix_sandboxes_build_id", "sandboxes")
    with op.batch_alter_table("sandboxes") as table:
        for column in _columns_of_sandboxes():
            table.drop_column(column.name)
    op.drop_table("template_tags")
    op.drop_table("template_builds")


def _columns_of_sandboxes() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("shown_template_id", sa.String(64)),
        sa.Column("timeout", sa.Integer(), nullable=False, server_default=_FIRST_TIMEOUT),
        sa.Column("auto_pause", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("auto_pause_memory", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("auto_resume", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("paused_at", _MOMENT),
        sa.Column("paused_memory", sa.Boolean()),
        sa.Column("notice", sa.String(512)),
    )


def _builds() -> None:
    op.create_table(
        "template_builds",
        sa.Column("build_id", sa.String(36), nullable=False),
        sa.Column("template_id", sa.String(64), nullable=False),
        sa.Column("node_id", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("vcpu", sa.Integer(), nullable=False),
        sa.Column("ram_mb", sa.Integer(), nullable=False),
        sa.Column("disk_mb", sa.Integer(), nullable=False),
        sa.Column("envd_version", sa.String(32), nullable=False),
        sa.Column("memory", sa.Boolean(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("disk_bytes", sa.BigInteger(), nullable=False),
        sa.Column("origin_sandbox_id", sa.String(64), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("build_id", name="pk_template_builds"),
    )
    for column in ("template_id", "state", "origin_sandbox_id"):
        op.create_index(f"ix_template_builds_{column}", "template_builds", [column])


def _tags() -> None:
    op.create_table(
        "template_tags",
        sa.Column("template_id", sa.String(64), nullable=False),
        sa.Column("tag", sa.String(128), nullable=False),
        sa.Column("build_id", sa.String(36), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["template_id"],
            ["templates.template_id"],
            name="fk_template_tags_template_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["build_id"],
            ["template_builds.build_id"],
            name="fk_template_tags_build_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("template_id", "tag", name="pk_template_tags"),
    )
    op.create_index("ix_template_tags_build_id", "template_tags", ["build_id"])
