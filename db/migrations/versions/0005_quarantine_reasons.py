"""Quarantine with a reason, also for instances whose SOP Instance UID is not known yet."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TABLE = "quarantined_instances"
_FOREIGN_KEY = "fk_quarantined_instances_sop_instance_uid_instances"
_REASON = "conflict: UID known with other content; other-patient: not that of its study"


def upgrade() -> None:
    with op.batch_alter_table(_TABLE) as table:
        table.drop_constraint(_FOREIGN_KEY, type_="foreignkey")
        table.alter_column(
            "sop_instance_uid",
            existing_type=sa.String(64),
            existing_nullable=False,
            comment="SOP Instance UID that it claims",
            existing_comment="SOP Instance UID that is taken",
        )
        table.add_column(
            sa.Column(
                "reason",
                sa.String(16),
                nullable=False,
                server_default="conflict",
                comment=_REASON,
            )
        )


def downgrade() -> None:
    op.execute(f"DELETE FROM {_TABLE} WHERE reason <> 'conflict'")  # noqa: S608 - a constant
    with op.batch_alter_table(_TABLE) as table:
        table.drop_column("reason")
        table.alter_column(
            "sop_instance_uid",
            existing_type=sa.String(64),
            existing_nullable=False,
            comment="SOP Instance UID that is taken",
            existing_comment="SOP Instance UID that it claims",
        )
        table.create_foreign_key(
            _FOREIGN_KEY, "instances", ["sop_instance_uid"], ["sop_instance_uid"]
        )
