"""Storage commitment: its requests, and the time at which a delivery was stored completely."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_DELIVERIES_PENDING = """
SELECT deliveries.id AS delivery_id, revisions.study_uid, revisions.number AS revision,
       revisions.id AS revision_id, deliveries.destination,
       {status} AS status,
       deliveries.attempt AS attempts, deliveries.waiting_since,
       deliveries.not_before AS next_attempt_at,
       deliveries.last_error, deliveries.last_status
  FROM deliveries
  JOIN revisions ON revisions.id = deliveries.revision_id
 WHERE deliveries.state IN ('pending', 'sending', 'parked')
"""
_STATUS_BEFORE = "deliveries.state"
_STATUS = """
       CASE WHEN deliveries.state = 'pending' AND deliveries.stored_at IS NOT NULL
            THEN 'awaiting-commitment' ELSE deliveries.state END
"""


def upgrade() -> None:
    op.add_column(
        "deliveries",
        sa.Column(
            "stored_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When everything was stored and only its commitment was missing",
        ),
    )
    op.create_table(
        "commitment_requests",
        sa.Column(
            "transaction_uid",
            sa.String(64),
            nullable=False,
            comment="Transaction UID of the N-ACTION",
        ),
        sa.Column("delivery_id", sa.String(32), nullable=False, comment="Delivery it is about"),
        sa.Column(
            "requested_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it was about to be sent",
        ),
        sa.Column(
            "answered_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the N-EVENT-REPORT came",
        ),
        sa.Column(
            "failed",
            sa.JSON(),
            nullable=True,
            comment="Failure Reason of each SOP Instance UID that is not committed",
        ),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.id"], name="fk_commitment_requests_delivery_id_deliveries"
        ),
        sa.PrimaryKeyConstraint("transaction_uid", name="pk_commitment_requests"),
        comment="Storage commitment asked of destinations (PS3.4 annex J)",
    )
    op.create_index("ix_commitment_requests_delivery_id", "commitment_requests", ["delivery_id"])
    _replace_view(_STATUS)


def downgrade() -> None:
    _replace_view(_STATUS_BEFORE)
    op.drop_table("commitment_requests")
    op.drop_column("deliveries", "stored_at")


def _replace_view(status: str) -> None:
    op.execute("DROP VIEW deliveries_pending")
    op.execute(
        sa.text(
            f"CREATE VIEW deliveries_pending AS {_DELIVERIES_PENDING.replace('{status}', status)}"
        )
    )
    if op.get_bind().dialect.name != "sqlite":
        op.execute(
            "COMMENT ON VIEW deliveries_pending IS 'Results that a destination does not have yet'"
        )
