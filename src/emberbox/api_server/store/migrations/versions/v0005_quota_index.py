"""The index by which a team's quota is counted has all that is counted."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_COUNTED = ["team_id", "state", "vcpu", "ram_mb", "disk_mb"]


def upgrade() -> None:
    """Make the wider one, then drop the narrow one."""
    op.create_index(f"ix_sandboxes_{'_'.join(_COUNTED)}", "sandboxes", _COUNTED)
    op.drop_index("ix_sandboxes_team_id_state", "sandboxes")


def downgrade() -> None:
    """The other way round."""
    op.create_index("ix_sandboxes_team_id_state", "sandboxes", ["team_id", "state"])
    op.drop_index(f"ix_sandboxes_{'_'.join(_COUNTED)}", "sandboxes")
