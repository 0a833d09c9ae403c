"""Refusals are counted in a table of their own; who reported a storage commitment is kept."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_MAX_ROWS = 500  # as `db.refusals.MAX_ROWS`
_COMMENT = "Refused connections, associations, SOP classes and instances, counted by reason"

_VIEW_BEFORE = """
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
_VIEW = """
SELECT event, reason, NULLIF(calling_ae, '') AS calling_ae, peer_address, times, first_at, last_at
  FROM refusal_counts
"""
# Those before this migration, from the audit events: the most recent by caller, the rest in all.
_COPY = f"""
INSERT INTO refusal_counts
       (event, reason, calling_ae, peer_address, times, first_at, last_at)
SELECT event, reason, calling_ae, peer_address, SUM(times), MIN(first_at), MAX(last_at)
  FROM (SELECT event, reason, times, first_at, last_at,
               CASE WHEN place <= {_MAX_ROWS} THEN COALESCE(calling_ae, '') ELSE '*' END
               AS calling_ae,
               CASE WHEN place <= {_MAX_ROWS} THEN COALESCE(peer_address, '') ELSE '*' END
               AS peer_address
          FROM (SELECT *, ROW_NUMBER() OVER (ORDER BY last_at DESC) AS place
                  FROM ({_VIEW_BEFORE}) AS of_events) AS placed) AS named
 GROUP BY event, reason, calling_ae, peer_address
"""  # noqa: S608 - constants
_REPORTER = {
    "reporter_ae": "AE title that reported",
    "reporter_address": "Address that reported",
    "reporter_certificate": "Names in the certificate of the reporter; empty without TLS",
}


def upgrade() -> None:
    op.create_table(
        "refusal_counts",
        sa.Column("id", sa.Integer(), nullable=False, comment="Number of the row"),
        sa.Column("event", sa.String(64), nullable=False, comment="Name of the audit event"),
        sa.Column(
            "reason",
            sa.Text(),
            nullable=False,
            comment="Reason code, or a sentence for an instance",
        ),
        sa.Column(
            "calling_ae",
            sa.Text(),
            nullable=False,
            comment="Calling AE title; empty: not known, *: various",
        ),
        sa.Column(
            "peer_address",
            sa.Text(),
            nullable=False,
            comment="IPv4 address or IPv6 /64 network; *: various",
        ),
        sa.Column("times", sa.BigInteger(), nullable=False, comment="How often"),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False, comment="When first"),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False, comment="When last"),
        sa.PrimaryKeyConstraint("id", name="pk_refusal_counts"),
        sa.UniqueConstraint(
            "event",
            "reason",
            "calling_ae",
            "peer_address",
            name="uq_refusal_counts_event_reason_calling_ae_peer_address",
        ),
        comment="Refusals counted by event, reason and caller; a limited number of rows",
    )
    op.execute(sa.text(_COPY))
    _replace_view(_VIEW)
    for name, comment in _REPORTER.items():
        op.add_column(
            "commitment_requests", sa.Column(name, sa.Text(), nullable=True, comment=comment)
        )


def downgrade() -> None:
    for name in _REPORTER:
        op.drop_column("commitment_requests", name)
    _replace_view(_VIEW_BEFORE)
    op.drop_table("refusal_counts")


def _replace_view(definition: str) -> None:
    op.execute("DROP VIEW refusals")
    op.execute(sa.text(f"CREATE VIEW refusals AS {definition}"))
    if op.get_bind().dialect.name != "sqlite":
        op.execute(f"COMMENT ON VIEW refusals IS '{_COMMENT}'")
