"""View of refused connections, associations, SOP classes and instances, counted by reason."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Both databases support ``->>``; a contexts-refused event lists SOP classes, not a reason.
_REFUSALS = """
SELECT event, COALESCE(detail ->> 'reason', 'sop-class-not-taken') AS reason,
       detail ->> 'calling_ae' AS calling_ae, detail ->> 'peer_address' AS peer_address,
       SUM(COALESCE(CAST(detail ->> 'times' AS INTEGER), 1)) AS times,
       MIN(at) AS first_at, MAX(at) AS last_at
  FROM audit_events
 WHERE event IN
       ('connection-refused', 'association-refused', 'association-aborted', 'contexts-refused',
        'instance-refused')
 GROUP BY event, COALESCE(detail ->> 'reason', 'sop-class-not-taken'),
          detail ->> 'calling_ae', detail ->> 'peer_address'
"""


def upgrade() -> None:
    op.execute(f"CREATE VIEW refusals AS {_REFUSALS}")
    if op.get_bind().dialect.name != "sqlite":
        op.execute("COMMENT ON VIEW refusals IS 'Who was refused what, why, and how often'")


def downgrade() -> None:
    op.execute("DROP VIEW refusals")
