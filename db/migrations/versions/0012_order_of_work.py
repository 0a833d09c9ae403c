"""The order of work: the priority of a revision, and destinations that cannot be reached."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_INDEX = "ix_deliveries_state_destination"


def upgrade() -> None:
    op.add_column(
        "revisions",
        sa.Column(
            "priority",
            sa.Integer(),
            nullable=False,
            server_default="5",
            comment="1 (graded first) to 9; 5 without a rule of EPVS_PRIORITY_RULES",
        ),
    )
    op.add_column(
        "deliveries",
        sa.Column(
            "unavailable_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When an attempt found the destination unavailable, if none succeeded since",
        ),
    )
    op.create_index(_INDEX, "deliveries", ["state", "destination"])


def downgrade() -> None:
    op.drop_index(_INDEX, "deliveries")
    op.drop_column("deliveries", "unavailable_at")
    op.drop_column("revisions", "priority")
