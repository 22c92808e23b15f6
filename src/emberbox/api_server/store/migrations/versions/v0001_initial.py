"""Teams, keys, templates, sandboxes, settings of the cluster.

The columns are written out here, not taken from `store.tables`: that module goes on changing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "cluster_settings",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.String(256), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_cluster_settings"),
    )
    _teams_and_keys()
    _templates()
    _sandboxes()


def downgrade() -> None:
    """Drop the tables, those that refer to others first."""
    for table in (
        "sandboxes", "template_names", "templates", "api_keys", "teams", "cluster_settings",
    ):  # fmt: skip
        op.drop_table(table)


def _teams_and_keys() -> None:
    op.create_table(
        "teams",
        sa.Column("team_id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("concurrent_sandboxes", sa.Integer()),
        sa.Column("max_length_hours", sa.Integer()),
        sa.Column("max_vcpu", sa.Integer()),
        sa.Column("max_ram_mb", sa.Integer()),
        sa.Column("max_disk_mb", sa.Integer()),
        sa.Column("total_vcpu", sa.Integer()),
        sa.Column("total_ram_mb", sa.Integer()),
        sa.Column("total_disk_mb", sa.Integer()),
        sa.PrimaryKeyConstraint("team_id", name="pk_teams"),
        sa.UniqueConstraint("name", name="uq_teams_name"),
    )
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(36), nullable=False),
        sa.Column("team_id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("mask_prefix", sa.String(16), nullable=False),
        sa.Column("mask_first", sa.String(2), nullable=False),
        sa.Column("mask_last", sa.String(4), nullable=False),
        sa.Column("value_length", sa.Integer(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("last_used_at", _MOMENT),
        sa.Column("revoked_at", _MOMENT),
        _of_team("api_keys"),
        sa.PrimaryKeyConstraint("key_id", name="pk_api_keys"),
        sa.UniqueConstraint("hash", name="uq_api_keys_hash"),
    )
    op.create_index("ix_api_keys_team_id", "api_keys", ["team_id"])


def _templates() -> None:
    op.create_table(
        "templates",
        sa.Column("template_id", sa.String(64), nullable=False),
        sa.Column("team_id", sa.String(36)),
        sa.Column("build_id", sa.String(36), nullable=False),
        sa.Column("vcpu", sa.Integer(), nullable=False),
        sa.Column("ram_mb", sa.Integer(), nullable=False),
        sa.Column("disk_mb", sa.Integer(), nullable=False),
        sa.Column("envd_version", sa.String(32), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        _of_team("templates"),
        sa.PrimaryKeyConstraint("template_id", name="pk_templates"),
    )
    op.create_index("ix_templates_team_id", "templates", ["team_id"])
    op.create_table(
        "template_names",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("template_id", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["template_id"],
            ["templates.template_id"],
            name="fk_template_names_template_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("name", name="pk_template_names"),
    )
    op.create_index("ix_template_names_template_id", "template_names", ["template_id"])


def _sandboxes() -> None:
    op.create_table(
        "sandboxes",
        sa.Column("sandbox_id", sa.String(64), nullable=False),
        sa.Column("team_id", sa.String(36), nullable=False),
        sa.Column("execution_id", sa.String(36), nullable=False),
        sa.Column("node_id", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("template_id", sa.String(64), nullable=False),
        sa.Column("template_name", sa.String(128)),
        sa.Column("build_id", sa.String(36), nullable=False),
        sa.Column("vcpu", sa.Integer(), nullable=False),
        sa.Column("ram_mb", sa.Integer(), nullable=False),
        sa.Column("disk_mb", sa.Integer(), nullable=False),
        sa.Column("envd_version", sa.String(32), nullable=False),
        sa.Column("secure", sa.Boolean(), nullable=False),
        sa.Column("allow_internet_access", sa.Boolean()),
        sa.Column("public_traffic", sa.Boolean(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("end_at", _MOMENT, nullable=False),
        sa.Column("ended_at", _MOMENT),
        sa.Column("end_reason", sa.String(512)),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("request_hash", sa.String(64)),
        _of_team("sandboxes"),
        sa.PrimaryKeyConstraint("sandbox_id", name="pk_sandboxes"),
        sa.UniqueConstraint(
            "team_id", "idempotency_key", name="uq_sandboxes_team_id_idempotency_key"
        ),
    )
    for columns in (
        ["team_id", "state"],
        ["team_id", "started_at", "sandbox_id"],
        ["node_id", "state"],
        ["state", "ended_at"],
    ):
        op.create_index(f"ix_sandboxes_{'_'.join(columns)}", "sandboxes", columns)


def _of_team(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["team_id"], ["teams.team_id"], name=f"fk_{table}_team_id", ondelete="CASCADE"
    )
